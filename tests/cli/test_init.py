"""rssearch init: the YAML of a first study."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

from rssearch.config import plain_yaml
from rssearch.config.loading import load_study
from rssearch.config.reference import SCHEMA_FILE
from rssearch.data.survey import MOST, survey
from tests.support.commands import refused, run
from tests.support.fakes import own_scenes, zipped

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def images(folder: Path, classes: tuple[str, ...] = ("lake", "road"), count: int = 10, size: int = 40) -> Path:
    for label in classes:
        (folder / label).mkdir(parents=True)
        for index in range(count):
            pixels = RNG.integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")
    return folder


def test_a_folder_of_images() -> None:
    images(Path("data/my images"))
    result = run("init", "data/my images")
    assert (result.status, result.err) == (0, "")
    about, following = result.out.splitlines()
    assert about == "my-images-methods.yaml: 20 images of 48x40 pixels in 2 classes: lake (10), road (10)"
    assert following == "next: rssearch plan my-images-methods.yaml"
    study = load_study(Path("my-images-methods.yaml"))
    assert (study.study, study.data_root) == ("my-images-methods", "data")
    assert study.space["dataset"].to_yaml() == ["folder:my images"]
    assert study.settings.input_size == 40
    assert dict(study.search.objectives) == {"val_accuracy": "max", "macs": "min"}
    text = Path("my-images-methods.yaml").read_text()
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE.as_uri()}"
    jsonschema.validate(plain_yaml.load(text), json.loads(SCHEMA_FILE.read_text()))
    planned = run(*shlex.split(following.removeprefix("next: rssearch ")), "--json")
    assert planned.status == 0, planned.err
    assert json.loads(planned.out)["trials"] == 6


def test_a_folder_of_scenes() -> None:
    own_scenes(Path())
    result = run("init", "scenes", "--out", "my study.yaml")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "next: rssearch plan 'my study.yaml'"
    study = load_study(Path("my study.yaml"))
    assert study.space["dataset"].to_yaml() == ["segmentation_folder:scenes"]
    assert study.settings.input_size is None
    assert dict(study.search.objectives) == {"val_miou": "max", "macs": "min"}
    planned = run("plan", "my study.yaml", "--json")
    assert planned.status == 0, planned.err
    assert json.loads(planned.out)["trials"] == 6


def test_a_zip_and_a_folder_that_comes_divided(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 3)):
        images(Path("mine") / split, count=count)
    zipped(Path("mine"), Path("mine.zip"))
    assert run("init", "mine.zip").status == 0
    assert run("init", str(tmp_path / "mine"), "--out", "other.yaml").status == 0
    first, other = (load_study(Path(name)) for name in ("mine-methods.yaml", "other.yaml"))
    assert first.space["dataset"].to_yaml() == ["folder:mine.zip"]
    assert other.space["dataset"].to_yaml() == ["folder:mine"]
    assert (first.data_root, other.data_root) == (".", str(tmp_path))
    assert first.settings == other.settings
    assert "the folder's own division is kept" in Path("other.yaml").read_text()


def test_strange_names_stay_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    images(Path("#1: {a}, [b] & *c/'quoted\": no"), classes=("a\n- b: c", "\ufffe{x} # é"))
    monkeypatch.chdir("#1: {a}, [b] & *c")
    result = run("init", "'quoted\": no")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines()[0].endswith("in 2 classes: a\\n- b: c (10), \\ufffe{x} # é (10)")
    study = load_study(Path("quoted-no-methods.yaml"))
    assert study.space["dataset"].to_yaml() == ["folder:'quoted\": no"]
    assert run("init", ".", "--out", "here.yaml").status == 0
    assert load_study(Path("here.yaml")).space["dataset"].to_yaml() == ["folder:#1: {a}, [b] & *c"]


def test_images_that_cannot_be_read_are_named() -> None:
    images(Path("mine"))
    for name in ("mine/lake/0.png", "mine/road/3.png"):
        Path(name).write_text("no image")
    (Path("mine") / "lake" / "readme.txt").write_text("about")
    result = run("init", "mine")
    assert result.status == 0
    assert "note: left out, as these endings are not read: .txt (1)" in result.out
    assert (
        "note: 2 of 20 images looked at cannot be read (mine/lake/0.png, mine/road/3.png), which would end"
        in result.out
    )
    assert "`rssearch data verify folder:mine --data-root .` says why" in result.out


def test_of_many_images_some_are_looked_at() -> None:
    for label in ("a", "b"):
        Path("mine", label).mkdir(parents=True)
        for index in range(400):
            Path("mine", label, f"{index:03}.png").symlink_to(Path("image.png").absolute())
    Image.new("RGB", (64, 64)).save("image.png")
    found = survey("mine")
    assert (found.images, found.looked_at, dict(found.sizes)) == (800, MOST, {(64, 64): MOST})


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    images(Path("mine"))
    Path("mine-methods.yaml").write_text("mine")
    Path("link.yaml").symlink_to("nowhere")
    refused(run("init", "mine"), "mine-methods.yaml: is there already; name another file with --out")
    refused(run("init", "mine", "--out", "link.yaml"), "link.yaml: is there already")
    refused(run("init", "mine", "--out", "mine"), "mine: is there already")
    assert Path("mine-methods.yaml").read_text() == "mine"


def _few(folder: Path) -> None:
    images(folder, count=1)


def _one_class(folder: Path) -> None:
    images(folder, classes=("lake",))


def _deep(folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(np.zeros((40, 40), np.uint16)).save(folder / label / f"{index}.png")


def _no_classes_of_masks(folder: Path) -> None:
    own_scenes(folder.parent).rename(folder)
    (folder / "classes.json").unlink()


def _zips(folder: Path) -> None:
    zipped(images(folder / "tiles"), folder / "tiles.zip")
    shutil.rmtree(folder / "tiles")


def _one_scene(folder: Path) -> None:
    own_scenes(folder.parent, 1).rename(folder)


BAD = {
    "a class of one image": (_few, "no validation image; bring at least three images of each class"),
    "one class": (_one_class, "needs a folder of images for each of two or more classes; found []"),
    "an empty folder": (lambda folder: folder.mkdir(), "mine: has no image (read are .bmp .jpeg .jpg"),
    "a folder of zips": (
        _zips,
        "mine: has no image (read are .bmp .jpeg .jpg .png .ppm .tif .tiff .webp); left out, as",
    ),
    "no folder": (lambda folder: None, "mine: there is no such folder or zip"),
    "a file": (lambda folder: folder.write_text("x"), "is neither a folder nor a zip archive"),
    "images of 16 bits": (_deep, "none of the 8 images looked at can be read; the last: it has one band of 16 bits"),
    "masks without classes": (_no_classes_of_masks, "needs classes.json beside images/ and masks/"),
    "one scene": (_one_scene, "1 scenes (0) cannot be divided among 3 splits"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_is_no_dataset_is_refused(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    make(tmp_path / "mine")
    refused(run("init", "mine"), message)
    assert [path.name for path in tmp_path.iterdir() if path.name != "mine"] == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    images(Path("mine"))
    refused(run("init", "mine", "--out", "none/deep/my.yaml"), "none/deep: there is no such folder")
    refused(run("init", "mine", "--out", "mine/lake/0.png/my.yaml"), "cannot be written: Not a directory")
    refused(run("init", "a\0b"), "a path cannot contain a NUL character")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
