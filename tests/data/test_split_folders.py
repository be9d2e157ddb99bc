"""Divisions that folders give: a split is never a class, and nothing of it is dropped in silence."""

import hashlib
import shutil

import pytest

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data.listing import from_files
from rssearch.data.split_folders import split_of
from rssearch.errors import DataWarning, InputError
from rssearch.imaging.contents import scan
from tests.support.fakes import own_scenes, picture, tree, zipped

PAIRS = [("train", "test"), ("Train", "Test"), ("TRAIN", "VAL"), ("training", "testing"), ("Training", "Validation")]


def divided(root, counts):
    """A tree of two classes in each folder, with so many images of each class."""
    for seed, (folder, count) in enumerate(counts.items()):
        tree(root / "mine" / folder, ["a", "b"], count, seed=seed)
    return root / "mine"


def sizes(images):
    return {split: len(members) for split, members in images.indices.items()}


def test_names():
    known = {name: split_of(name) for name in ("train", "TRAINING", "Val", "valid", "VALIDATION", "test", "Testing")}
    assert list(known.values()) == ["train", "train", "val", "val", "val", "test", "test"]
    assert not any(map(split_of, ("trains", "validity", "contest", "train_set", "", "eval")))


class TestClassification:
    @pytest.mark.parametrize("names", PAIRS)
    @pytest.mark.parametrize("packed", [False, True])
    def test_splits_are_known_whatever_their_case_and_synonym(self, tmp_path, names, packed):
        folder = divided(tmp_path, dict(zip(names, (8, 3), strict=True)))
        name = "folder:mine"
        if packed:
            zipped(folder, tmp_path / "mine.zip", "top/")
            name = "folder:mine.zip"
        images = data.load(name, tmp_path, workers=1)
        assert images.classes == ("a", "b")
        assert sizes(images) == {"train": 14, "val": 2, "test": 6}
        assert images.notes == ()

    def test_three_of_them(self, tmp_path):
        divided(tmp_path, {"Training": 4, "VALID": 2, "Test": 3})
        assert sizes(data.load("folder:mine", tmp_path, workers=1)) == {"train": 8, "val": 4, "test": 6}

    def test_fingerprints_of_sets_that_earlier_releases_divided_stay(self, tmp_path):
        """And those of sets whose splits they took for classes change: their trials are not to be reused."""

        def as_before(folder):
            lines = sorted(f"{p.relative_to(folder).as_posix()}\t{p.stat().st_size}\n" for p in folder.rglob("*.png"))
            return hashlib.sha256("".join(lines).encode()).hexdigest()

        folder = divided(tmp_path, {"train": 2, "valid": 1})
        assert from_files(scan(folder)).fingerprint == as_before(folder)
        (folder / "valid").rename(folder / "testing")
        assert from_files(scan(folder)).fingerprint != as_before(folder)
        (folder / "testing").rename(folder / "test")
        for label in ("a", "b"):
            (folder / "test" / label / f"{label}_1.png").rename(folder / "test" / f"{label}.png")
            (folder / "test" / label).rmdir()
        listing = from_files(scan(folder))
        assert listing.names == ("train/a/a_1.png", "train/a/a_2.png", "train/b/b_1.png", "train/b/b_2.png")
        for label in ("a", "b"):
            (folder / "test" / f"{label}.png").unlink()
        assert listing.fingerprint != as_before(folder)

    @pytest.mark.parametrize(
        ("counts", "message"),
        [
            ({"train": 2, "val": 1, "validation": 1}, "val and validation are the same split, val"),
            ({"train": 2, "Train": 1, "test": 1}, "Train and train are the same split, train"),
            ({"val": 1, "test": 1}, r"has test/, val/, but no train/ beside it"),
            (
                {"train": 2, "test": 1, "extra": 1},
                r"test/, train/ has the name of a split, but extra/ \(2 images\) beside",
            ),
            ({"test": 2, "other": 3}, r"test/ has the name of a split, but other/ \(6 images\) beside it has not"),
            ({"training_set": 2, "test_set": 1}, "test_set, training_set look like splits, but are not called so"),
            ({"seg_train": 2, "seg_test": 1, "seg_pred": 1}, "seg_test, seg_train look like splits"),
            ({"TrainImages": 2, "EvalImages": 1}, "EvalImages, TrainImages look like splits"),
            ({"trainset": 2, "testset": 1}, "testset, trainset look like splits"),
        ],
    )
    def test_what_is_not_clear_is_refused(self, tmp_path, counts, message):
        with pytest.raises(InputError, match=rf"mine: {message}.*Call the folders of a division train, val and test"):
            from_files(scan(divided(tmp_path, counts)))

    def test_classes_whose_names_hold_such_words(self, tmp_path):
        tree(tmp_path, ["train_station", "trainyard", "valley", "contest"], 1)
        assert from_files(scan(tmp_path)).classes == ("contest", "train_station", "trainyard", "valley")

    def test_classes_that_differ_in_case_are_said(self, tmp_path):
        tree(tmp_path, ["forest", "Forest", "lake"], 1)
        assert from_files(scan(tmp_path)).notes == ("the classes Forest and forest differ in case alone",)

    def test_a_split_in_a_split_is_no_class(self, tmp_path):
        for split in ("train", "test"):
            tree(tmp_path / split / split, ["a", "b"], 1)
        with pytest.raises(InputError, match="test is the name of a split, and cannot be a class"):
            from_files(scan(tmp_path))

    def test_classes_that_are_divided_each_for_itself(self, tmp_path):
        for label in ("a", "b"):
            tree(tmp_path / label, ["Train", "test"], 1)
        with pytest.raises(InputError, match=r"the classes hold folders of splits \(.*/Train/.*Put train, val"):
            from_files(scan(tmp_path))

    def test_a_lone_split_is_stepped_through(self, tmp_path):
        images = data.load("folder:mine", divided(tmp_path, {"Train": 10}).parent, workers=1)
        assert (images.classes, sizes(images)) == (("a", "b"), {"train": 14, "val": 2, "test": 4})

    def test_a_test_split_without_labels_is_drawn_from_train(self, tmp_path):
        folder = divided(tmp_path, {"train": 10})
        (folder / "test").mkdir()
        for number in range(4):
            picture(900 + number).save(folder / "test" / f"{number}.png")
        with pytest.warns(DataWarning):
            images = data.load("folder:mine", tmp_path, workers=1)
        assert sizes(images) == {"train": 14, "val": 2, "test": 4}
        assert images.notes == (
            "left out, as they are in no class folder: 4 images (test/0.png, test/1.png, test/2.png, ...)",
            "no image of the split test has a class folder: they are left out, and test images are sampled from train",
        )
        tree(folder / "Valid", ["a", "b"], 3, seed=7)
        with pytest.warns(DataWarning):
            images = data.load("folder:mine", tmp_path, workers=1)
        assert sizes(images) == {"train": 18, "val": 2, "test": 6}
        assert images.notes[1].endswith("has a class folder: they are left out, and val serves as the test split")

    def test_validation_and_training_without_labels(self, tmp_path):
        folder = divided(tmp_path, {"train": 10, "test": 2})
        (folder / "val").mkdir()
        picture(900).save(folder / "val" / "0.png")
        assert from_files(scan(folder)).notes[1].endswith("validation images are sampled from train")
        shutil.rmtree(folder / "train")
        (folder / "val").rename(folder / "train")
        with pytest.raises(InputError, match="no image of the training split has a class folder"):
            from_files(scan(folder))

    def test_classes_of_a_split(self, tmp_path):
        folder = divided(tmp_path, {"train": 4, "test": 2})
        shutil.rmtree(folder / "test" / "b")
        (folder / "test" / "b").mkdir()
        assert from_files(scan(folder)).notes == ()  # there happen to be no test images of it
        (folder / "test" / "b" / "x.jp2").write_bytes(b"")
        with pytest.raises(InputError, match=r"mine/test/b/: a folder without an image .* none is read: \.jp2 \(1\)"):
            from_files(scan(folder))
        shutil.rmtree(folder / "test")
        (folder / "test").mkdir()
        with pytest.raises(
            InputError, match=r"mine/test/: a folder without an image is no class and no split; it is emp"
        ):
            from_files(scan(folder))


def scenes(root, **options):
    return data.load("segmentation_folder:scenes", root, patches=Patches(size=8), workers=1, **options)


def split_names(found):
    """The names of the scenes of each split."""
    return {s: {found.names[n] for n in found.windows[members, 0]} for s, members in found.indices.items()}


@pytest.fixture
def flat(tmp_path):
    return own_scenes(tmp_path, 8)


def below(folder, splits):
    """Move scenes into folders below images/ and masks/: number of the scene -> name of the folder in each."""
    for number, names in splits.items():
        for kind, name in zip(("images", "masks"), names, strict=True):
            (folder / kind / name).mkdir(exist_ok=True)
            (folder / kind / f"{number}.png").rename(folder / kind / name / f"{number}.png")


def above(folder, splits):
    """Move scenes into folders with their own images/ and masks/: number of the scene -> folder."""
    for number, name in splits.items():
        for kind in ("images", "masks"):
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{number}.png").rename(folder / name / kind / f"{number}.png")
    for kind in ("images", "masks"):
        if not any((folder / kind).iterdir()):
            (folder / kind).rmdir()


FOLDERS = ["Train"] * 4 + ["valid"] * 2 + ["TESTING"] * 2
SPLITS = {
    "train": {f"train/{n}" for n in range(4)},
    "val": {"val/4", "val/5"},
    "test": {"test/6", "test/7"},
}


class TestSegmentation:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("layout", ["below", "above"])
    def test_splits_below_and_above(self, flat, layout, packed):
        if layout == "below":
            below(flat, {n: (name, name.lower()) for n, name in enumerate(FOLDERS)})
        else:
            above(flat, dict(enumerate(FOLDERS)))
        if packed:
            zipped(flat, flat.parent / "packed.zip", "top/inner/")
            shutil.rmtree(flat)
            flat.mkdir()
            (flat.parent / "packed.zip").rename(flat.parent / "scenes.zip")
            found = data.load("segmentation_folder:scenes.zip", flat.parent, patches=Patches(size=8), workers=1)
        else:
            found = scenes(flat.parent)
        assert split_names(found) == SPLITS
        assert found.classes == ("land", "water", "road")
        assert found.notes == ()

    def test_the_division_is_part_of_the_fingerprint(self, flat):
        below(flat, {n: ("train", "train") if n < 6 else ("test", "test") for n in range(8)})
        first = scenes(flat.parent)
        for kind in ("images", "masks"):
            (flat / kind / "test").rename(flat / kind / "tile")
            (flat / kind / "train").rename(flat / kind / "town")
        second = scenes(flat.parent)
        assert first.fingerprint != second.fingerprint
        assert {name.partition("/")[0] for name in split_names(second)["train"]} <= {"tile", "town"}

    def test_validation_is_drawn_from_train_where_it_is_not_given(self, flat):
        below(flat, {n: ("train", "train") if n < 6 else ("test", "test") for n in range(8)})
        found = split_names(scenes(flat.parent, split=Split(train=0.5, val=0.3, test=0.2)))
        assert found["test"] == {"test/6", "test/7"}
        assert found["train"] | found["val"] == {f"train/{n}" for n in range(6)}
        assert len(found["val"]) == 2

    @pytest.mark.parametrize("layout", ["below", "above"])
    def test_a_test_split_without_masks_is_drawn_from_train(self, flat, layout):
        if layout == "below":
            below(flat, {n: ("train", "train") if n < 6 else ("test", "test") for n in range(8)})
            shutil.rmtree(flat / "masks" / "test")
            names = "images/test/6.png, images/test/7.png"
        else:
            above(flat, {n: "train" if n < 6 else "test" for n in range(8)})
            shutil.rmtree(flat / "test" / "masks")
            names = "test/images/6.png, test/images/7.png"
        with pytest.warns(DataWarning):
            found = scenes(flat.parent)
        assert set().union(*split_names(found).values()) == {f"train/{n}" for n in range(6)}
        assert all(split_names(found).values())
        assert found.notes == (
            "no image of the split test has a mask: they are left out, and test images are sampled from train",
            f"left out, as they are no scene with a mask: 2 images ({names})",
        )

    def test_a_lone_folder_is_no_division(self, flat):
        below(flat, dict.fromkeys(range(8), ("Train", "train")))
        assert set().union(*split_names(scenes(flat.parent)).values()) == {f"train/{n}" for n in range(8)}

    def test_a_mask_that_is_missing_in_a_split_is_an_error(self, flat):
        below(flat, {n: ("train", "train") if n < 6 else ("test", "test") for n in range(8)})
        (flat / "masks" / "test" / "7.png").unlink()
        with pytest.raises(InputError, match=r"images/test/7\.png: has no mask of the same name"):
            scenes(flat.parent)

    @pytest.mark.parametrize(
        ("folders", "message"),
        [
            (["train"] * 6 + ["val", "validation"], "scenes/images: val and validation are the same split, val"),
            (["train"] * 6 + ["test", "town"], r"scenes/images: test/, train/ has the name of a split, but town/ \(1"),
            (["train"] * 6 + ["test", "."], r"train/ has the name of a split, but what is in no folder \(1 images\)"),
            (["test"] * 6 + ["val", "val"], "has test/, val/, but no train/"),
            (["train_set"] * 6 + ["test_set"] * 2, "test_set, train_set look like splits"),
        ],
    )
    def test_what_is_not_clear_is_refused(self, flat, folders, message):
        below(flat, {n: (name, name) for n, name in enumerate(folders)})
        with pytest.raises(InputError, match=message):
            scenes(flat.parent)

    @pytest.mark.parametrize(
        ("folders", "message"),
        [
            (["town1"] * 4 + ["town2"] * 4, "lie in several places, as town1/images/, town2/images/; one is read"),
            (["train"] * 6 + ["val", "Val"], "Val and val are the same split, val"),
            (["train"] * 6 + ["test", "town"], r"has the name of a split, but town/ \(2 images\) beside it has not"),
            (
                ["train"] * 6 + ["."] * 2,
                r"train/ has the name of a split, but what is in no folder \(4 images\) beside",
            ),
        ],
    )
    def test_several_places_are_refused(self, flat, folders, message):
        above(flat, {n: name for n, name in enumerate(folders) if name != "."})
        with pytest.raises(InputError, match=message):
            scenes(flat.parent)

    def test_a_group_in_two_splits_is_refused(self, flat):
        (flat / "classes.json").write_text('{"classes": ["land", "water", "road"], "group": "."}')
        below(flat, {n: ("train", "train") if n < 6 else ("test", "test") for n in range(8)})
        for kind in ("images", "masks"):
            (flat / kind / "test" / "7.png").rename(flat / kind / "test" / "0b.png")
        with pytest.raises(InputError, match="the group '0' lie in the folders of test and of train"):
            scenes(flat.parent)

    def test_tables_of_classes_in_splits(self, flat):
        above(flat, {n: "train" if n < 6 else "test" for n in range(8)})
        for split in ("train", "test"):
            shutil.copy(flat / "classes.json", flat / split)
        (flat / "classes.json").unlink()
        assert scenes(flat.parent).notes == ()
        (flat / "test" / "classes.json").write_text('["land", "water", "street"]')
        with pytest.raises(InputError, match=r"train/classes\.json and test/classes\.json differ; one is needed"):
            scenes(flat.parent)
