"""Divisions that are written, and read back to the last image."""

import csv
import io
import os

import pytest

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data.split_file import read, text
from rssearch.errors import DataWarning, InputError
from tests.support.fakes import cifar10, own_scenes, tree


@pytest.fixture
def mine(tmp_path):
    return tree(tmp_path / "mine", ["a", "b"], 10)


def load(root, name="folder:mine", **split):
    return data.load(name, root, workers=1, split=Split(**split))


def written(images, path, change=lambda lines: lines):
    lines = change(text(images).splitlines())
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_the_table_says_path_label_and_split(mine, tmp_path):
    images = load(tmp_path)
    rows = list(csv.DictReader(io.StringIO(text(images))))
    assert [row["path"] for row in rows] == sorted(images.names)
    split = {images.names[i]: s for s, members in images.indices.items() for i in members}
    assert {row["path"]: (row["label"], row["split"]) for row in rows} == {
        name: (name[0], split[name]) for name in images.names
    }


@pytest.mark.parametrize("name", ["folder:mine", "synthetic_scenes", "cifar10", "segmentation_folder:scenes"])
def test_a_division_is_repeated_exactly(mine, tmp_path, name):
    own_scenes(tmp_path, 8)
    cifar10(tmp_path)
    options = {"input_size": 16} if name == "synthetic_scenes" else {}
    first = data.load(name, tmp_path, workers=1, split=Split(seed=5, train=0.5, val=0.25, test=0.25), **options)
    file = written(first, tmp_path / "split.csv")
    again = data.load(name, tmp_path, workers=1, split=Split(file=file), **options)
    assert again.split_hash == first.split_hash != data.load(name, tmp_path, workers=1, **options).split_hash
    assert again.fingerprint == first.fingerprint
    assert {s: m.tolist() for s, m in again.indices.items()} == {s: m.tolist() for s, m in first.indices.items()}
    assert again.notes == first.notes


def test_names_that_a_spreadsheet_takes_for_a_formula_come_back(tmp_path):
    tree(tmp_path / "mine", ["=a", "b,c"], 10)
    first = load(tmp_path)
    file = written(first, tmp_path / "s.csv")
    assert "\n'=a/=a_1.png,'=a," in (tmp_path / "s.csv").read_text()
    assert load(tmp_path, file=file).split_hash == first.split_hash


def test_a_division_without_a_test_split_stays_without_one(mine, tmp_path):
    first = load(tmp_path, train=0.5, val=0.5, test=0)
    again = load(tmp_path, file=written(first, tmp_path / "s.csv"))
    assert again.split_hash == first.split_hash
    assert len(again.indices["test"]) == 0


def test_without_a_validation_split_it_is_sampled_from_training(mine, tmp_path):
    first = load(tmp_path)
    file = written(first, tmp_path / "s.csv", lambda lines: [line.replace(",val", ",train") for line in lines])
    again = load(tmp_path, file=file, train=0.6, val=0.2, test=0.2)
    assert again.indices["test"].tolist() == first.indices["test"].tolist()
    assert len(again.indices["val"]) == 4


def test_images_that_it_does_not_name_are_left_out_and_said(mine, tmp_path):
    file = written(load(tmp_path), tmp_path / "s.csv", lambda lines: [x for x in lines if "a_10" not in x])
    with pytest.warns(DataWarning, match=r"not in .*s.csv: 1 images \(a/a_10.png\)"):
        images = load(tmp_path, file=file)
    assert len(images.labels) == len(images.images) == 19
    assert "a/a_10.png" not in images.names


def test_scenes_that_it_does_not_name_are_left_out(tmp_path, monkeypatch):
    """Also where scenes are decoded into the cache: another part is another content."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own_scenes(tmp_path, 8)
    options = {"workers": 1, "patches": Patches(size=16), "memory_share": 0.0}
    name = "segmentation_folder:scenes"
    first = data.load(name, tmp_path, **options)
    for lost in ("3", "5"):
        file = written(first, tmp_path / "s.csv", lambda lines, lost=lost: [x for x in lines if not x.startswith(lost)])
        with pytest.warns(DataWarning, match="left out"):
            images = data.load(name, tmp_path, split=Split(file=file), **options)
        names = [n for n in "01234567" if n != lost]
        assert list(images.names) == names
        whole = {n: first.scenes.image(int(n)) for n in names}
        assert all((images.scenes.image(i) == whole[n]).all() for i, n in enumerate(names))


def test_the_digest_is_of_names_and_splits_alone(mine, tmp_path):
    images, path = load(tmp_path), tmp_path / "s.csv"
    first = read(written(images, path)).sha256
    same = [
        lambda lines: [lines[0], *lines[:0:-1]],
        lambda lines: [line.replace(",", ";") for line in lines],
        lambda lines: [",".join(line.split(",")[::2]) for line in lines],
    ]
    assert {read(written(images, path, change)).sha256 for change in same} == {first}
    other = [
        lambda lines: lines[:-1],
        lambda lines: [line.replace("a_1.png", "a_01.png") for line in lines],
        lambda lines: [line.replace(",val", ",test") for line in lines],
    ]
    assert len({first, *(read(written(images, path, change)).sha256 for change in other)}) == 4


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a/a_1.png,a,train", "a/none.png,a,val"], r"s.csv, line 3: there is no image 'a/none.png'"),
        (
            ["a/a_1.png,a,train", "a/a_1.png,a,val"],
            r"line 3: 'a/a_1.png' is there twice|line 3: a/a_1.png is there twice",
        ),
        (["a/a_1.png,a,train", "a_1.png,a,val"], r"line 3: a_1.png is there twice: it is in .*line 2"),
        (["a/a_1.png,a,train", "b/b_1.png,b,other"], r"line 3: split: 'other' is none of train, val, test"),
        (["a/a_1.png,a,train", "b/b_1.png,b,"], r"line 3: split is empty"),
        (["a/a_1.png,a,train", "b/b_1.png,c,val"], r"line 3: label: 'c' is none of the classes a, b"),
        (["a/a_1.png,a,train", "b/b_1.png,a,val"], r"line 3: label: 'a', but the image's label is 'b'"),
        (["a/a_1.png,a,train"], r"is no division: it has train alone"),
        (["a/a_1.png,a,val", "b/b_1.png,b,test"], r"is no division: it has test, val alone"),
        (["a/a_1.png,a,train", "b/b_1.png,b,val"], r"no training image for b"),
        (["../a_1.png,a,train", "b/b_1.png,b,val"], r"line 2: there is no image '../a_1.png'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(mine, tmp_path, lines, message):
    (tmp_path / "s.csv").write_text("\n".join(["path,label,split", *lines]))
    with pytest.raises(InputError, match=message):
        load(tmp_path, file=str(tmp_path / "s.csv"))


def test_files_that_are_none(mine, tmp_path):
    with pytest.raises(InputError, match=r"settings.split.file: .*none.csv: cannot be read: No such file"):
        load(tmp_path, file=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match=r"settings.split.file: .*: cannot be read: Is a directory"):
        load(tmp_path, file=str(tmp_path))


def test_what_never_ends_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (str(tmp_path / "pipe.csv"), "/dev/zero"):
        with pytest.raises(InputError, match=f"settings.split.file: {path}: cannot be read: is a pipe, a socket or a"):
            read(path)


def test_another_file_than_the_study_began_with_is_refused(mine, tmp_path):
    file = written(load(tmp_path), tmp_path / "s.csv")
    with pytest.raises(InputError, match=r"settings.split.sha256: the file .*s.csv has .*, not 00"):
        load(tmp_path, file=file, sha256={file: "00"})


def test_a_scene_has_no_label(tmp_path):
    own_scenes(tmp_path, 6)
    (tmp_path / "s.csv").write_text("path,label,split\n0,x,train\n1,x,val\n")
    with pytest.raises(InputError, match=r"line 2: label: 'x': a scene has a mask, and no label"):
        data.load("segmentation_folder:scenes", tmp_path, split=Split(file=str(tmp_path / "s.csv")))
