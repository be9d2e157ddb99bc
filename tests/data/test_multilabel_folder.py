"""Images with several labels, from a table."""

import numpy as np
import pytest
import rasterio
import torch
from torch.utils.data import DataLoader

from rssearch import data
from rssearch.config.settings import Split
from rssearch.data.describe import describe
from rssearch.data.loader import batches
from rssearch.data.multilabel import strata
from rssearch.data.sampling import index_classes
from rssearch.data.split_file import text
from rssearch.errors import InputError
from tests.support.fakes import multilabel, picture

NAME = "multilabel_folder:several"
CLASSES = ("forest", "rare", "road", "water")


def load(root, name=NAME, **options):
    return data.load(name, root, workers=1, **options)


@pytest.fixture
def folder(tmp_path):
    return multilabel(tmp_path)


def labels_in(folder):
    rows = (line.split(",") for line in (folder / "labels.csv").read_text().splitlines()[1:])
    return {path: set(labels.split(";")) for path, labels in rows}


def test_labels_are_columns_of_0_and_1(folder, tmp_path):
    found = load(tmp_path)
    assert (found.task, found.split("val").task, data.task(NAME)) == ("multilabel",) * 3
    assert found.classes == CLASSES
    assert found.labels.shape == (60, 4)
    assert found.labels.dtype == np.int64
    for name, row in zip(found.names, found.labels, strict=True):
        assert {label for label, has in zip(CLASSES, row, strict=True) if has} == labels_in(folder)[name]
    about = describe(NAME, tmp_path)
    assert (about.task, about.num_classes, about.num_images) == ("multilabel", 4, 60)
    report = data.verify(NAME, tmp_path, workers=1)
    assert report.classes == dict(zip(CLASSES, found.labels.sum(0).tolist(), strict=True))
    assert report.task == "multilabel"


def test_every_class_has_its_share_of_every_split(folder, tmp_path):
    found = load(tmp_path, split=Split(train=0.6, val=0.2, test=0.2))
    counts = {split: found.labels[members].sum(0) for split, members in found.indices.items()}
    assert counts["train"].tolist()[1] == 6  # of the 10 rare ones
    assert counts["val"].tolist()[1] == counts["test"].tolist()[1] == 2
    assert all((count > 0).all() for count in counts.values())


def test_strata_are_the_rarest_classes():
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    assert strata(labels).tolist() == [2, 0, 1, 2]
    assert strata(np.array([2, 0])).tolist() == [2, 0]


def test_batches_have_floating_point_labels(folder, tmp_path):
    train = load(tmp_path).split("train")
    x, y = next(batches(train, 8, device=torch.device("cpu"), train=False))
    assert (x.shape, y.shape, y.dtype) == ((8, 3, 16, 16), (8, 4), torch.float32)
    assert np.array_equal(y.numpy(), train.labels[:8])
    _, one = train[3]
    assert torch.equal(one, torch.from_numpy(train.labels[3]).float())
    _, loaded = next(iter(DataLoader(train, batch_size=8)))
    assert torch.equal(loaded, y)
    assert torch.equal(train.targets([3]), one[None])
    index = index_classes(train)
    assert index.totals.tolist() == train.labels.sum(0).tolist()
    assert [len(members) for members in index.members] == index.totals.tolist()


def test_a_division_is_repeated(folder, tmp_path):
    first = load(tmp_path, split=Split(seed=3))
    file = tmp_path / "split.csv"
    file.write_text(text(first))
    again = load(tmp_path, split=Split(file=str(file)))
    assert again.split_hash == first.split_hash
    file.write_text(file.read_text().replace("forest;water", "water;forest"))
    assert load(tmp_path, split=Split(file=str(file))).split_hash == first.split_hash
    file.write_text(file.read_text().replace("water;forest", "water", 1))
    with pytest.raises(InputError, match=r"label: 'water', but the image's labels are 'forest;water'"):
        load(tmp_path, split=Split(file=str(file)))


def test_order_and_spaces_change_nothing_and_labels_do(folder, tmp_path):
    before = data.fingerprint(NAME, tmp_path)
    table = folder / "labels.csv"
    content = table.read_text()
    table.write_text(content.replace("forest;water", "water ; forest"))
    assert data.fingerprint(NAME, tmp_path) == before
    table.write_text(content.replace("forest;water", "forest", 1))
    assert data.fingerprint(NAME, tmp_path) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("forest;water", "forest;;water"), "label: 'forest;;water' has an empty label"),
        (("forest;water", "forest;forest"), "label: 'forest' is there twice"),
        (("forest;water", ""), "label is empty"),
        ((None, "path,label\nim_00.png,a\nim_01.png,a\n"), "needs two or more labels; found a"),
    ],
)
def test_what_is_wrong_is_said(folder, tmp_path, change, message):
    table = folder / "labels.csv"
    old, new = change
    table.write_text(new if old is None else table.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_a_table_is_needed(folder, tmp_path):
    with pytest.raises(InputError, match=r"has one label; images with several are multilabel_folder:PATH"):
        load(tmp_path, "folder:several")
    (folder / "labels.csv").unlink()
    with pytest.raises(InputError, match=r"has no labels.csv, which says the labels of each image"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"does not exist; give a folder or a zip with images and a labels.csv"):
        load(tmp_path, "multilabel_folder:none")


def test_rasters(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "several"
    folder.mkdir()
    lines = ["path,label"]
    for number in range(12):
        with rasterio.open(
            folder / f"{number}.tif", "w", driver="GTiff", width=8, height=8, count=5, dtype="uint16",
            transform=rasterio.transform.from_origin(0, 0, 10, 10), crs="EPSG:32633",
        ) as out:  # fmt: skip
            out.write(rng.integers(0, 10_000, (5, 8, 8)).astype(np.uint16))
        lines.append(f"{number}.tif,{('a', 'b', 'a;b')[number % 3]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    found = load(tmp_path, "multilabel_raster_folder:several")
    assert (found.task, found.input_shape) == ("multilabel", (5, 8, 8))


def test_pictures_are_read(folder, tmp_path):
    found = load(tmp_path)
    assert np.array_equal(found.images[0], np.asarray(picture(0)).transpose(2, 0, 1))
