"""The layouts in which published scenes lie on the disk."""

import numpy as np
import pytest
from PIL import Image

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.data import IGNORE, dubai
from rssearch.errors import InputError
from rssearch.imaging.pixels import large_images
from tests.support import fakes

LOAD = {"patches": Patches(size=16), "workers": 1}


@pytest.fixture
def flat(tmp_path):
    return fakes.dubai(tmp_path)


def as_released(flat, folder):
    """The same scenes in the layout and the colours of the release."""
    colours = np.array([*dubai.COLOURS, dubai.UNLABELLED[0]])
    for path in flat.rglob("*.png"):
        tile, part = path.stem.removeprefix("tile").split("_part")
        target = folder / f"Tile {tile}" / path.parent.name / f"image_part_{part}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(path))
        if path.parent.name == "masks":
            packed = colours[pixels]
            packed[:2, :2] = 0x000000
            pixels = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(target)
    return folder


class TestDubai:
    def test_classes_and_tiles(self, flat):
        scenes = data.load("dubai", flat.parent, **LOAD)
        assert scenes.classes == ("building", "land", "road", "vegetation", "water")
        assert set(scenes.groups) == {"tile1", "tile2", "tile4", "tile5"}
        for name, mask in zip(scenes.names, scenes.scenes.masks, strict=True):
            before = np.asarray(Image.open(flat / "masks" / f"{name}.png"))
            assert np.array_equal(mask, np.where(before == 5, IGNORE, before))

    @pytest.mark.parametrize("top", ["Semantic segmentation dataset", "dubai", "elsewhere"])
    def test_the_release_is_the_same_scenes(self, flat, tmp_path, top):
        released = as_released(flat, tmp_path / "new" / top)
        one, two = data.load("dubai", flat, **LOAD), data.load("dubai", released.parent, **LOAD)
        assert one.names == two.names
        assert one.split_hash == two.split_hash
        for first, second in zip(one.scenes.masks, two.scenes.masks, strict=True):
            assert np.array_equal(first[2:, 2:], second[2:, 2:])
            assert (second[:2, :2] == IGNORE).all()

    def test_zips_below_the_root_or_in_its_folder(self, flat, tmp_path):
        first = data.fingerprint("dubai", flat)
        zipped = fakes.zipped(flat, tmp_path / "one" / "dubai.zip", "dubai_landcover/")
        inside = fakes.zipped(flat, tmp_path / "two" / "dubai_landcover" / "anything.zip")
        for root in (zipped, zipped.parent, inside.parent, inside.parent.parent):
            assert data.fingerprint("dubai", root) == first

    def test_tiles_that_are_missing_are_reported_and_more_tiles_are_used(self, flat, tmp_path):
        report = data.verify("dubai", flat, workers=1)
        assert report.ok
        assert len(report.missing) == 72 - 8
        assert {"tile1_part003", "tile3_part001"} <= set(report.missing)
        fakes.dubai(tmp_path, tiles=(3, 6))
        assert set(data.load("dubai", flat, **LOAD).groups) == {f"tile{n}" for n in range(1, 7)}

    def test_another_folder_of_scenes_is_not_taken_for_it(self, tmp_path):
        fakes.own_scenes(tmp_path)
        with pytest.raises(InputError, match=r"dataset 'dubai': .*scenes: has no images/tile1_part001\.jpg"):
            data.load("dubai", tmp_path)


class TestInria:
    @pytest.fixture
    def root(self, tmp_path):
        folder = fakes.aerial(tmp_path, ("austin", "vienna", "tyrol-w"), 4)
        (folder / "test" / "images").mkdir(parents=True)
        fakes.picture(9, (48, 48)).save(folder / "test" / "images" / "sfo1.tif")
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "cities"),
        [
            ("inria", {"austin"}),
            ("inria:vienna", {"vienna"}),
            ("inria:tyrol-w", {"tyrol-w"}),
            ("inria:all", {"austin", "vienna", "tyrol-w"}),
        ],
    )
    def test_cities(self, root, name, cities):
        scenes = data.load(name, root, **LOAD)
        assert {scene.rstrip("0123456789") for scene in scenes.names} == cities
        assert len(scenes.names) == 4 * len(cities)
        assert scenes.classes == ("background", "building")
        assert scenes.groups == scenes.names
        before = np.asarray(Image.open(root / "AerialImageDataset" / "train" / "gt" / f"{scenes.names[0]}.tif"))
        assert np.array_equal(scenes.scenes.mask(0), before // 255)
        assert len(data.verify(name, root, workers=1).missing) == (36 * (5 if name == "inria:all" else 1)) - len(
            scenes.names
        )

    def test_places(self, root):
        first = data.fingerprint("inria", root)
        for place in (root / "AerialImageDataset", root / "AerialImageDataset" / "train"):
            assert data.fingerprint("inria", place) == first

    def test_a_city_that_is_not_there(self, root):
        with pytest.raises(InputError, match=r"dataset 'inria:kitsap': .*has no train/images/kitsap1\.tif"):
            data.load("inria:kitsap", root)
        with pytest.raises(InputError, match=r"unknown dataset 'inria:wien'\. Did you mean 'inria:vienna'"):
            data.load("inria:wien", root)

    def test_a_mask_that_is_not_binary(self, root):
        path = root / "AerialImageDataset" / "train" / "gt" / "austin2.tif"
        Image.fromarray(np.full((48, 48), 1, np.uint8)).save(path)
        with pytest.raises(InputError, match=r"austin2\.tif: has the value 1, .*allowed: 0, 255"):
            data.load("inria", root)


def tiled_tiff(pixels, tile=16):
    """An uncompressed TIFF of tiles, as geographic tools write them: uint8 [H, W, 3], sides of multiples of `tile`."""
    height, width, _ = pixels.shape
    tiles = [
        pixels[r : r + tile, c : c + tile].tobytes() for r in range(0, height, tile) for c in range(0, width, tile)
    ]
    start, count, size = 8 + 2 + 12 * 10 + 4, len(tiles), tile * tile * 3
    after = start + 6 + 8 * count
    offsets = [after + size * index for index in range(count)]
    tags = [  # tag, type (3: 16 bits, 4: 32 bits), count, value or offset
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3),
        (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, start + 6), (325, 4, count, start + 6 + 4 * count),
    ]  # fmt: skip
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little")
    for tag, kind, number, value in tags:
        head += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + number.to_bytes(4, "little")
        head += value.to_bytes(4, "little")
    arrays = np.array([8, 8, 8], "<u2").tobytes() + np.array(offsets + [size] * count, "<u4").tobytes()
    return head + bytes(4) + arrays + b"".join(tiles)


def test_tiled_tiffs(tmp_path):
    folder = fakes.own_scenes(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    (folder / "images" / "2.png").unlink()
    (folder / "images" / "2.tif").write_bytes(tiled_tiff(pixels))
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(folder / "masks" / "2.png")
    scenes = data.load("segmentation_folder:scenes", tmp_path, **LOAD)
    assert np.array_equal(scenes.scenes.image(2), pixels)


def test_scenes_above_pillows_limit_are_read_and_the_limit_is_kept_for_others(tmp_path, monkeypatch):
    fakes.own_scenes(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    scenes = data.load("segmentation_folder:scenes", tmp_path, patches=Patches(size=16), workers=2)
    assert len(scenes.names) == 5
    assert Image.MAX_IMAGE_PIXELS == 100
    with large_images():
        with large_images():
            assert Image.MAX_IMAGE_PIXELS is None
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS == 100
