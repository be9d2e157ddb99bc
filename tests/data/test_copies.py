"""Identical images on two sides of a division that folders give."""

import json
import shutil
from io import StringIO
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.data import cifar
from rssearch.data.copies import copies, crossing
from rssearch.errors import DataWarning
from rssearch.study import run as study
from rssearch.study.environment import environment
from rssearch.study.progress import Display
from tests.support.commands import run
from tests.support.fakes import cifar10, own_scenes, tree

NOTE = (
    "3 of the 7 images of the given test split are also in the training split, byte for byte (test/a/x1.png = "
    "train/a/a_1.png; test/a/x2.png = train/a/a_2.png; test/b/x.png = train/b/b_1.png): what is measured on them does "
    "not hold for new images"
)


@pytest.fixture
def leaky(tmp_path):
    """Ten training images and seven test images, three of which are training images."""
    train, test = (
        tree(tmp_path / "mine" / "train", ["a", "b"], 5),
        tree(tmp_path / "mine" / "test", ["a", "b"], 2, seed=1),
    )
    shutil.copy(train / "a" / "a_1.png", test / "a" / "x1.png")
    shutil.copy(train / "a" / "a_2.png", test / "a" / "x2.png")
    shutil.copy(train / "b" / "b_1.png", test / "b" / "x.png")
    return tmp_path


def load(root):
    with pytest.warns(DataWarning) as caught:
        images = data.load("folder:mine", root, workers=1)
    assert [str(warning.message) for warning in caught] == [f"folder:mine: {note}" for note in images.notes]
    return images


def test_by_hand():
    digests, names = ["x", "x", "y", "x", "y", ""], ["1", "2", "3", "4", "5", "6"]
    assert copies(digests, names) == (("1", "2", "4"), ("3", "5"))
    assert crossing(digests, names, None) == ()
    assert crossing(digests, names, ["train"] * 6) == ()
    found = crossing(digests, names, ["train", "train", "val", "test", "test", "train"], "scenes")
    assert [note.partition(":")[0] for note in found] == [
        "1 of the 2 scenes of the given test split are also in the training split, byte for byte (4 = 1)",
        "1 of the 2 scenes of the given test split are also in the validation split, byte for byte (5 = 3)",
    ]
    (note,) = crossing(["x"] * 5, names[:5], ["train", *["val"] * 4])
    assert note.startswith("4 of the 4 images of the given validation split are also in the training split")
    assert "(2 = 1; 3 = 1; 4 = 1; ...)" in note


def test_load_counts_and_names_them(leaky):
    images = load(leaky)
    assert {split: len(members) for split, members in images.indices.items()} == {"train": 8, "val": 2, "test": 7}
    assert images.notes == (NOTE,)


def test_verify_says_so_and_claims_nothing_else(leaky):
    text = run("data", "verify", "folder:mine", "--data-root", str(leaky)).out
    assert NOTE in text.splitlines()
    assert "3 groups of identical files: test/a/x1.png, train/a/a_1.png; " in text
    assert "keeps" not in text
    shutil.rmtree(leaky / "mine" / "test")  # now the split is drawn
    shutil.copy(leaky / "mine" / "train" / "a" / "a_1.png", leaky / "mine" / "train" / "a" / "again.png")
    text = run("data", "verify", "folder:mine", "--data-root", str(leaky)).out
    assert "1 groups of identical files (a split keeps each on one side): a/a_1.png, a/again.png" in text


def test_a_study_says_so_on_its_console_and_in_its_record(leaky, recwarn):
    def share(points, settings, root, progress):
        return {"one": data.load("folder:mine", root, workers=1), "own": "what a user-defined trial shares"}

    console = StringIO()
    definition = SimpleNamespace(
        hook=lambda name: {"share": share}[name],
        points=[],
        config=SimpleNamespace(settings=None),
        data_root=leaky,
        class_metrics=(),
    )
    objects = study._read(definition, Display(Console(file=console, width=80)))
    assert console.getvalue() == f"folder:mine: {NOTE}\n"
    assert [warning for warning in recwarn if warning.category is DataWarning] == []  # once is enough
    (told,) = json.loads(environment(objects.values()))["data"]
    images = objects["one"]
    assert told == {
        "name": "folder:mine",
        "fingerprint": images.fingerprint,
        "split_hash": images.split_hash,
        "skipped": [],
        "notes": [NOTE],
        "split": {"train": 8, "val": 2, "test": 7},
    }


def test_scenes(tmp_path):
    folder = own_scenes(tmp_path, 6)
    for kind in ("images", "masks"):
        for number in range(6):
            target = folder / kind / ("test" if number > 3 else "train")
            target.mkdir(exist_ok=True)
            (folder / kind / f"{number}.png").rename(target / f"{number}.png")
        for copy in ("test/0.png", "train/00.png"):
            shutil.copy(folder / kind / "train" / "0.png", folder / kind / copy)
    with pytest.warns(DataWarning):
        scenes = data.load("segmentation_folder:scenes", tmp_path, patches=Patches(size=8), workers=1)
    (note,) = scenes.notes
    assert note.startswith(
        "1 of the 3 scenes of the given test split are also in the training split, byte for byte (test/0 = train/0)"
    )
    assert data.verify("segmentation_folder:scenes", tmp_path, workers=1).notes == scenes.notes
    group = dict(zip(scenes.names, scenes.groups, strict=True))
    assert group["train/0"] == group["train/00"] != group["test/0"]


def test_sets_that_come_as_arrays(tmp_path):
    cifar10(tmp_path)
    assert data.load("cifar10", tmp_path).notes == ()
    folder = tmp_path / cifar.LAYOUTS["cifar10"][0]
    shutil.copy(folder / "data_batch_2", folder / "test_batch")
    with pytest.warns(DataWarning):
        images = data.load("cifar10", tmp_path, input_size=8)
    (note,) = images.notes
    assert note.startswith("40 of the 40 images of the given test split are also in the training split")
    assert np.shape(images.images) == (240, 3, 8, 8)
    assert data.verify("cifar10", tmp_path).notes == images.notes
