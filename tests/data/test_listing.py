import os
import pickle
import shutil

import numpy as np
import pytest

from rssearch import data
from rssearch.data import eurosat, registry
from rssearch.data.listing import Files, from_files
from rssearch.errors import InputError
from rssearch.imaging.contents import scan
from tests.support.fakes import picture, tree, zipped

CLASSES = list(eurosat.FAMILY.expected)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("original"), CLASSES, 5, suffix=".jpg")


def signature(name, root):
    images = data.load(name, root, workers=1)
    return images.fingerprint, images.split_hash, images.images.tobytes(), images.labels.tolist(), images.classes


@pytest.mark.parametrize(
    "place",
    [
        "eurosat", "eurosat/2750", "eurosat_rgb", "eurosat_rgb/deeper/still", "EuroSAT", "some_other_name", ".",
        "eurosat_rgb/eurosat_rgb.zip", "eurosat_rgb.zip", "EuroSAT.zip", "eurosat/whatever.zip",
    ],
)  # fmt: skip
def test_every_layout_gives_the_same_dataset(original, tmp_path, place):
    target = tmp_path / place
    if place.endswith(".zip"):
        zipped(original, target, prefix="eurosat_rgb/" if "rgb" in place else "2750/")
    else:
        shutil.copytree(original, target, dirs_exist_ok=True)
    (tmp_path / "README.md").write_text("other files do not matter")
    (target.parent / "preview.png").write_bytes(b"nor do images beside the classes")
    expected = signature("folder:.", original)
    assert signature("eurosat", tmp_path) == expected
    assert signature("eurosat_rgb", tmp_path) == expected


def test_root_may_be_the_datasets_own_folder_or_zip(original, tmp_path):
    archive = zipped(original, tmp_path / "eurosat_rgb" / "eurosat_rgb.zip")
    expected = signature("folder:.", original)
    assert signature("eurosat_rgb", archive.parent) == expected
    assert signature("eurosat_rgb", archive) == expected
    assert signature("folder:eurosat_rgb/eurosat_rgb.zip", tmp_path) == expected


def test_zip_is_not_extracted(original, tmp_path):
    zipped(original, tmp_path / "eurosat.zip")
    data.load("eurosat", tmp_path, workers=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["eurosat.zip"]


def test_fingerprint_follows_names_and_sizes(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    before = from_files(scan(copy)).fingerprint
    os.utime(copy / CLASSES[0] / f"{CLASSES[0]}_1.jpg", (0, 0))
    assert from_files(scan(copy)).fingerprint == before
    file = copy / CLASSES[0] / f"{CLASSES[0]}_1.jpg"
    file.write_bytes(file.read_bytes() + b"x")
    longer = from_files(scan(copy)).fingerprint
    file.rename(file.with_name("renamed.jpg"))
    assert len({before, longer, from_files(scan(copy)).fingerprint}) == 3


def test_hidden_and_foreign_files_are_left_out(original, tmp_path):
    copy = shutil.copytree(original, tmp_path / "copy")
    (copy / "__MACOSX" / CLASSES[0]).mkdir(parents=True)
    (copy / "__MACOSX" / CLASSES[0] / "x.jpg").write_bytes(b"")
    (copy / ".cache").mkdir()
    (copy / ".cache" / "x.jpg").write_bytes(b"")
    (copy / CLASSES[0] / "Thumbs.db").write_bytes(b"")
    assert from_files(scan(copy)).fingerprint == from_files(scan(original)).fingerprint


def test_split_folders_fix_the_split(tmp_path):
    for seed, split in enumerate(("train", "valid", "test")):
        tree(tmp_path / "mine" / split, ["a", "b"], 3 + seed, seed=seed)
    images = data.load("folder:mine", tmp_path, workers=1)
    assert images.classes == ("a", "b")
    assert {k: len(v) for k, v in images.indices.items()} == {"train": 6, "val": 8, "test": 10}


def test_val_is_the_test_set_where_there_is_no_other(tmp_path):
    for seed, (split, count) in enumerate((("train", 8), ("val", 3))):
        tree(tmp_path / "mine" / split, ["a", "b"], count, seed=seed)
    images = data.load("folder:mine", tmp_path, workers=1)
    assert {k: len(v) for k, v in images.indices.items()} == {"train": 14, "val": 2, "test": 6}


def test_folder_errors(tmp_path):
    with pytest.raises(InputError, match="needs a path"):
        data.load("folder:", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        data.load("folder:nothing", tmp_path)
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        data.load("folder:note.txt", tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"broken\.zip: cannot be read as a zip"):
        data.load("folder:broken.zip", tmp_path)
    tree(tmp_path / "single", ["only"], 2)
    with pytest.raises(InputError, match="two or more classes"):
        data.load("folder:single", tmp_path)


def test_missing_dataset_lists_folders_and_zips(tmp_path):
    with pytest.raises(InputError) as caught:
        data.fingerprint("ucmerced", tmp_path)
    for place in ("ucmerced", "ucmerced.zip", "ucmerced_landuse", "rssearch data fetch ucmerced"):
        assert place in str(caught.value)
    assert "does not exist" not in str(caught.value)


def test_files_pickle_small_and_read_after_it(original, tmp_path):
    files = from_files(scan(zipped(original, tmp_path / "a.zip"))).pixels
    content = files.read(3)
    again = pickle.loads(pickle.dumps(files))
    assert isinstance(again, Files)
    assert again.read(3) == content == from_files(scan(original)).pixels.read(3)
    assert again.location(3).startswith(f"{tmp_path}/a.zip/")


def test_zip_is_opened_anew_in_a_forked_process(original, tmp_path):
    files = from_files(scan(zipped(original, tmp_path / "a.zip"))).pixels
    files.read(0)
    opened = files._archive
    files._owner = -1  # as a child of the process that opened it would see
    files.read(0)
    assert files._archive is not opened


def test_nested_folders_belong_to_their_class(tmp_path):
    tree(tmp_path / "deep" / "a", ["x", "y"], 2)
    tree(tmp_path / "deep", ["b"], 3, seed=1)
    listing = from_files(scan(tmp_path / "deep"))
    assert listing.classes == ("a", "b")
    assert np.bincount(listing.labels).tolist() == [4, 3]


def test_fetch_needs_torchgeo(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchgeo.datasets", None)
    for name in ("ucmerced", "resisc45"):
        with pytest.raises(InputError, match=r"pip install 'rssearch\[torchgeo\]'"):
            data.fetch(name, tmp_path)
    with pytest.raises(InputError, match=r"account.*ILSVRC2012_img_train"):
        data.fetch("imagenet", tmp_path)


def test_load_downloads_only_when_asked(tmp_path, monkeypatch):
    calls = []

    def download(root):
        calls.append(root)
        tree(root / "eurosat" / "2750", CLASSES, 4, suffix=".jpg")

    family = registry.FAMILIES["eurosat"]
    monkeypatch.setitem(registry.FAMILIES, "eurosat", registry.dataclasses.replace(family, fetch=download))
    with pytest.raises(InputError, match="was not found"):
        data.load("eurosat", tmp_path / "new")
    assert calls == []
    assert len(data.load("eurosat", tmp_path / "new", download=True, workers=1).labels) == 40
    data.load("eurosat", tmp_path / "new", download=True, workers=1)
    assert calls == [tmp_path / "new"]


def test_failed_download_is_an_input_error(tmp_path, monkeypatch):
    def download(root):
        raise RuntimeError("File not found or corrupted.")

    family = registry.FAMILIES["eurosat"]
    monkeypatch.setitem(registry.FAMILIES, "eurosat", registry.dataclasses.replace(family, fetch=download))
    with pytest.raises(InputError, match=r"could not be downloaded.*corrupted"):
        data.fetch("eurosat", tmp_path)


def test_summary_has_a_row_for_every_dataset():
    rows = data.summary()
    assert [row["name"] for row in rows] == [*data.list_datasets(), *(f"{prefix}PATH" for prefix in registry.FOLDERS)]
    assert all(set(row) == {"name", "task", "summary", "source", "download"} and all(row.values()) for row in rows)


def test_greyscale_and_transparent_images_become_rgb(tmp_path):
    for number, mode in enumerate(("L", "RGBA", "P", "LA")):
        for label in ("a", "b"):
            (tmp_path / label).mkdir(exist_ok=True)
            picture(number + 10 * (label == "b")).convert(mode).save(tmp_path / label / f"{number}.png")
    images = data.load("folder:.", tmp_path, workers=1)
    assert images.images.shape == (8, 3, 16, 16)
    grey = images.images[0]
    assert (grey[0] == grey[1]).all()
    assert (grey[0] == grey[2]).all()
