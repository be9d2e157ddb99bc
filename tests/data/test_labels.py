"""Images whose labels are in a table, and divisions that lists of names give."""

import shutil
import warnings

import pytest

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.errors import DataWarning, InputError
from tests.support.fakes import own_scenes, picture, tree, zipped

NAMES = [f"im_{number:02d}.png" for number in range(12)]
LABELS = {name: ("forest", "water", "road")[number % 3] for number, name in enumerate(NAMES)}


@pytest.fixture
def flat(tmp_path):
    """Images in one folder, in no classes."""
    (tmp_path / "mine" / "pics").mkdir(parents=True)
    for number, name in enumerate(NAMES):
        picture(number).save(tmp_path / "mine" / "pics" / name)
    return tmp_path / "mine"


def table(folder, lines, head="path,label", end="\n", encoding="utf-8"):
    (folder / "labels.csv").write_bytes((end.join([head, *lines]) + end).encode(encoding))


def lines(separator=",", more=None):
    return [separator.join([f"pics/{n}", LABELS[n], *(more(n) if more else [])]) for n in NAMES]


def load(root, name="folder:mine", **options):
    return data.load(name, root, workers=1, **options)


def of(images, split):
    return {images.names[index] for index in images.indices[split]}


def test_labels_come_from_the_table_in_a_folder_and_in_a_zip_of_it(flat, tmp_path):
    table(flat, lines())
    images = load(tmp_path)
    assert images.classes == ("forest", "road", "water")
    assert images.names == tuple(f"pics/{name}" for name in NAMES)
    assert [images.classes[label] for label in images.labels] == list(LABELS.values())
    assert images.notes == ()
    zipped(flat, tmp_path / "mine.zip", "top/")
    packed = load(tmp_path, "folder:mine.zip")
    assert (packed.fingerprint, packed.split_hash, packed.names) == (
        images.fingerprint, images.split_hash, images.names,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("separator", "end", "encoding"), [(";", "\r\n", "utf-8-sig"), ("\t", "\n", "utf-8"), (", ", "\n", "utf-8")]
)
def test_other_separators_ends_of_lines_and_byte_order_marks_say_the_same(flat, tmp_path, separator, end, encoding):
    table(flat, lines())
    plain = load(tmp_path).fingerprint
    table(flat, lines(separator)[::-1], separator.join(["Path", "LABEL"]), end, encoding)
    assert load(tmp_path).fingerprint == plain


def test_the_fingerprint_changes_with_labels_splits_and_groups(flat, tmp_path):
    heads = {
        "plain": ("path,label", lines()),
        "label": ("path,label", [*lines()[:-1], f"pics/{NAMES[-1]},forest"]),
        "split": ("path,label,split", lines(more=lambda n: ["test" if n > "im_08" else "train"])),
        "other split": ("path,label,split", lines(more=lambda n: ["test" if n > "im_05" else "train"])),
        "group": ("path,label,group", lines(more=lambda n: [n[3]])),
        "other group": ("path,label,group", lines(more=lambda n: [n[4]])),
        "fewer": ("path,label", lines()[:-1]),
    }
    found = set()
    for head, rows in heads.values():
        table(flat, rows, head)
        found.add(data.fingerprint("folder:mine", tmp_path))
    assert len(found) == len(heads)


def test_a_column_of_splits_is_kept(flat, tmp_path):
    sides = [
        "Train",
        "TRAINING",
        "train",
        "val",
        "valid",
        "Validation",
        "test",
        "testing",
        "Test",
        "train",
        "val",
        "test",
    ]
    given = dict(zip(NAMES, sides, strict=True))
    table(flat, lines(more=lambda n: [given[n]]), "path,label,split")
    images = load(tmp_path)
    for split in ("train", "val", "test"):
        assert of(images, split) == {f"pics/{n}" for n, side in given.items() if side.lower().startswith(split[:3])}


def test_groups_are_never_parted(flat, tmp_path):
    for number in range(12, 60):
        picture(number).save(flat / "pics" / f"im_{number:02d}.png")
    rows = [f"pics/im_{n:02d}.png,{'ab'[n % 2]},place {n // 5}" for n in range(60)]
    table(flat, rows, "path,label,group")
    place = {f"pics/im_{n:02d}.png": n // 5 for n in range(60)}
    divisions = set()
    for seed in range(4):
        images = load(tmp_path, split=Split(seed=seed, train=0.6, val=0.2, test=0.2))
        places = [{place[name] for name in of(images, split)} for split in ("train", "val", "test")]
        assert sum(map(len, places)) == 12
        assert [len(found) for found in places] == [7, 3, 2] or [len(found) for found in places] == [7, 2, 3]
        divisions.add(images.split_hash)
    assert len(divisions) > 1


def test_whole_numbers_are_in_their_order(flat, tmp_path):
    table(flat, [f"pics/{name},{number % 3 * 5}" for number, name in enumerate(NAMES)])
    assert load(tmp_path).classes == ("0", "5", "10")


def test_what_the_table_does_not_name_is_left_out_and_said(flat, tmp_path):
    table(flat, [line + ",52.1" for line in lines()[:9]], "path,label,lat")
    with pytest.warns(DataWarning) as said:
        images = load(tmp_path)
    assert len(images.names) == 9
    text = " ".join(str(warning.message) for warning in said)
    assert "not in labels.csv: 3 images (pics/im_09.png, pics/im_10.png, pics/im_11.png)" in text
    assert "columns of labels.csv that are not read: lat" in text


P0, P1 = f"pics/{NAMES[0]}", f"pics/{NAMES[1]}"


@pytest.mark.parametrize(
    ("rows", "head", "message"),
    [
        ([f"{P0},a", "pics/none.png,b"], "path,label", r"labels.csv, line 3: pics/none.png does not exist"),
        ([f"{P0},a", "pics/im_01.jpg,b"], "path,label", r"line 3: .* Did you mean 'pics/im_01.png'"),
        ([f"{P0},a", f"{P0},b"], "path,label", r"line 3: pics/im_00.png is there twice: .*line 2"),
        ([f"{P0},a", f"./{P0},b"], "path,label", r"line 3: pics/im_00.png is there twice"),
        ([f"{P0},a", f"{P1},"], "path,label", r"line 3: label is empty"),
        ([f"{P0},a", " ,b"], "path,label", r"line 3: path is empty"),
        ([f"{P0},a", f"../mine/{P1},b"], "path,label", r"line 3: .* leads out of the folder"),
        ([f"{P0},a", f"/{P1},b"], "path,label", r"line 3: .* leads out of the folder"),
        ([f"{P0},a", f"C:/{P1},b"], "path,label", r"line 3: .* leads out of the folder"),
        ([f"{P0},a", "pics\\im_01.png,b"], "path,label", r"line 3: .*divided by /"),
        ([f"{P0},a", f"{P1},a"], "path,label", r"two or more labels; found a"),
        ([f"{P0},a,train", f"{P1},b,"], "path,label,split", r"line 3: split is empty"),
        ([f"{P0},a,train", f"{P1},b,hold"], "path,label,split", r"line 3: split: 'hold' is none of"),
        ([f"{P0},a,val", f"{P1},b,test"], "path,label,split", r"no line has the split train"),
        ([f"{P0},a,", f"{P1},b,x"], "path,label,group", r"line 2: group is empty"),
        (
            [f"{P0},a,train,x", f"{P1},b,test,x"], "path,label,split,group",
            r"line 3: the group x is in test, but in train by .*line 2",
        ),
        ([f"{P0},a", f"{P1},b,c"], "path,label", r"line 3: has 3 values, but the first line has 2"),
        ([f"{P0},a", f'"{P1},b'], "path,label", r"line 3: unexpected end of data"),
        ([f"{P0},a", f"{P1},b;c"], "path,label", r"line 3: label: 'b;c'.* has one label"),
        ([f"{P0},a", f"{P1},b"], "file,label", r"line 1: has no column 'path'"),
        ([f"{P0},a,train", f"{P1},b,val"], "path,label,spilt", r"line 1: unknown column 'spilt'. Did you mean 'split'"),
        ([f"{P0},a,b", f"{P1},b,a"], "path,label,label", r"line 1: the column 'label' is there twice"),
        ([], "path,label", r"has no line below the first"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(flat, tmp_path, rows, head, message):
    table(flat, rows, head)
    with pytest.raises(InputError, match=message) as raised:
        load(tmp_path)
    assert str(flat / "labels.csv") in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\nä,b\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("path,label\npics/ä.png,b\n".encode("latin-1"), "line 2: is no UTF-8"),
        (b"path,label\npics/im_00.png,\0\n", "line 2: has a zero byte"),
        (b"", "has no column 'path'"),
    ],
)
def test_bytes_that_are_no_table(flat, tmp_path, content, message):
    (flat / "labels.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


class TestLists:
    """Beside class folders, as torchgeo publishes them."""

    @pytest.fixture
    def classes(self, tmp_path):
        return tree(tmp_path / "mine", ["a", "b"], 6, suffix=".jpg")

    def put(self, folder, prefix="", **names):
        for split, listed in names.items():
            (folder / f"{prefix}{split}.txt").write_text("\n".join(listed) + "\n")

    def names(self, numbers, form="{0}_{1}.jpg"):
        return [form.format(label, number) for label in "ab" for number in numbers]

    @pytest.mark.parametrize("form", ["{0}_{1}.tif", "{0}_{1}.jpg", "{0}/{0}_{1}.jpg", "{0}_{1}", "{0}/{0}_{1}"])
    @pytest.mark.parametrize("prefix", ["", "eurosat-spatial-"])
    def test_they_are_the_division(self, classes, tmp_path, form, prefix):
        before = data.fingerprint("folder:mine", tmp_path)
        self.put(
            classes, prefix, train=self.names([1, 2, 3], form), val=self.names([4], form), test=self.names([5, 6], form)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            images = load(tmp_path)
        assert of(images, "train") == {f"{c}/{c}_{n}.jpg" for c in "ab" for n in (1, 2, 3)}
        assert of(images, "val") == {f"{c}/{c}_4.jpg" for c in "ab"}
        assert of(images, "test") == {f"{c}/{c}_{n}.jpg" for c in "ab" for n in (5, 6)}
        assert images.fingerprint != before
        zipped(classes, tmp_path / "z.zip", "2750/")
        packed = load(tmp_path, "folder:z.zip")
        assert (packed.fingerprint, packed.split_hash) == (images.fingerprint, images.split_hash)

    def test_order_and_ends_of_lines_change_nothing_and_names_do(self, classes, tmp_path):
        self.put(classes, train=self.names([1, 2, 3, 4]), test=self.names([5, 6]))
        first = load(tmp_path).fingerprint
        (classes / "train.txt").write_bytes(("\r\n".join(self.names([4, 3, 2, 1])) + "\r\n\r\n").encode("utf-8-sig"))
        assert load(tmp_path).fingerprint == first
        self.put(classes, train=self.names([1, 2, 3, 5]), test=self.names([4, 6]))
        assert load(tmp_path).fingerprint != first

    def test_images_in_no_list_are_left_out_and_said(self, classes, tmp_path):
        self.put(classes, train=self.names([1, 2]), val=self.names([3]), test=self.names([4]))
        with pytest.warns(DataWarning, match=r"in none of .*: 4 images \(a/a_5.jpg, a/a_6.jpg, b/b_5.jpg, \.\.\.\)"):
            assert len(load(tmp_path).names) == 8

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            (["a_1.jpg", "a_9.jpg"], ["b_1.jpg"], r"train.txt, line 2: there is no image 'a_9.jpg'"),
            (["a_1.jpg", "b_1.jpg"], ["b_1.jpg"], r"train.txt, line 2: b_1.jpg is there twice: .*test.txt, line 1"),
            (["a_1.jpg", "a/a_1.jpg"], ["b_1.jpg"], r"train.txt, line 2: a/a_1.jpg is there twice"),
            (["a_1.jpg"], [""], r"test.txt: names no image"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_line(self, classes, tmp_path, train, test, message):
        self.put(classes, train=train, test=test)
        with pytest.raises(InputError, match=message):
            load(tmp_path)

    def test_a_name_of_several_images_is_refused(self, classes, tmp_path):
        shutil.copy(classes / "a" / "a_1.jpg", classes / "b" / "a_1.jpg")
        self.put(classes, train=["a_1.jpg"], test=["b_1.jpg"])
        with pytest.raises(
            InputError, match=r"line 1: a_1.jpg may be 2 images \(a/a_1.jpg, b/a_1.jpg\); write its path"
        ):
            load(tmp_path)

    def test_several_divisions_are_refused(self, classes, tmp_path):
        for prefix in ("one-", "two-"):
            self.put(classes, prefix, train=self.names([1, 2]), test=self.names([3]))
        with pytest.raises(InputError, match=r"one-train.txt and two-train.txt are lists of different divisions"):
            load(tmp_path)

    def test_other_texts_are_no_lists(self, classes, tmp_path):
        before = data.fingerprint("folder:mine", tmp_path)
        (classes / "readme.txt").write_text("train")
        (classes / "train.txt").write_text("how it was trained")
        with pytest.warns(DataWarning, match=r"endings are not read: .txt \(2\)"):
            assert load(tmp_path).fingerprint == before

    def test_folders_of_a_division_come_first(self, tmp_path):
        for seed, split in enumerate(("Train", "TEST")):
            tree(tmp_path / "mine" / split, ["a", "b"], 6, seed=seed)
        before = load(tmp_path)
        self.put(tmp_path / "mine", train=["a"], test=["b"])
        with pytest.warns(DataWarning, match=r"not read, as folders give the division: .txt \(2\)"):
            images = load(tmp_path)
        assert (images.fingerprint, images.split_hash) == (before.fingerprint, before.split_hash)

    def test_beside_a_table_of_labels(self, flat, tmp_path):
        table(flat, lines())
        self.put(flat, train=NAMES[:9], test=NAMES[9:])
        assert of(load(tmp_path), "test") == {f"pics/{name}" for name in NAMES[9:]}
        table(flat, lines(more=lambda n: ["train" if n < "im_06" else "test"]), "path,label,split")
        with pytest.raises(InputError, match=r"labels.csv and .* give a division; one is needed"):
            load(tmp_path)


def test_names_of_own_scenes_have_no_table(tmp_path):
    folder = own_scenes(tmp_path)
    (folder / "labels.csv").write_text("path,label\n")
    with pytest.warns(DataWarning, match=r"endings are not read: .csv \(1\)"):
        data.load("segmentation_folder:scenes", tmp_path, workers=1)


class TestListsOfScenes:
    def test_they_are_the_division(self, tmp_path):
        folder = own_scenes(tmp_path, 8)
        before = data.fingerprint("segmentation_folder:scenes", tmp_path)
        for split, names in {"train": "0 1 2 3", "val": "4.png 5.png", "test": "6.tif"}.items():
            (folder / f"{split}.txt").write_text("\n".join(names.split()))
        with pytest.warns(DataWarning, match=r"in none of test.txt, train.txt, val.txt: 1 images \(7\)"):
            found = data.load("segmentation_folder:scenes", tmp_path, workers=1, patches=Patches(size=16))
        sides = {s: sorted(set(found.windows[found.indices[s], 0].tolist())) for s in found.indices}
        assert sides == {"train": [0, 1, 2, 3], "val": [4, 5], "test": [6]}
        assert found.names == tuple("0123456")
        assert found.fingerprint != before

    def test_a_group_in_two_splits_is_refused(self, tmp_path):
        folder = own_scenes(tmp_path, 8)
        (folder / "classes.json").write_text('{"classes": ["land", "water", "road"], "group": "[01]|."}')
        (folder / "train.txt").write_text("0\n1\n2\n")
        (folder / "test.txt").write_text("3\n4\n")
        with pytest.warns(DataWarning):
            data.load("segmentation_folder:scenes", tmp_path, workers=1, patches=Patches(size=16))
        (folder / "classes.json").write_text('{"classes": ["land", "water", "road"], "group": "()"}')
        with pytest.raises(InputError, match="the scenes of the group '' lie in"):
            data.load("segmentation_folder:scenes", tmp_path, workers=1)
