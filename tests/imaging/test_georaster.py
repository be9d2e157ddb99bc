"""rssearch.imaging.georaster: a GeoTIFF in windows, what has no data in it, and what is no GeoTIFF or means harm."""

from __future__ import annotations

import dataclasses
import random
import struct
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from rssearch.errors import InputError
from rssearch.imaging.georaster import Bands, Window, opened
from rssearch.imaging.rasters import TYPES
from tests.support.files import tiff
from tests.support.geo import geotiff, reflectance


def bands(count: int, dtype: str = "uint16", names: tuple[str, ...] | None = None, fill: float = 0) -> Bands:
    return Bands(count, dtype, names, (fill,) * count)


def read(path: Path, wanted: Bands) -> Window:
    with opened(path, wanted) as scene:
        height, width = scene.shape
        return scene.read(slice(0, height), slice(0, width))


def refused(path: Path, wanted: Bands) -> str:
    """The one line that is said of a file that is not read."""
    with pytest.raises(InputError) as caught:
        read(path, wanted)
    text = str(caught.value)
    assert text.startswith(f"{path}: cannot be read: ")
    assert "\n" not in text
    assert len(text) < 900
    return text.removeprefix(f"{path}: cannot be read: ")


@pytest.mark.parametrize("dtype", TYPES)
def test_windows_are_those_of_the_array(tmp_path: Path, dtype: str) -> None:
    pixels = (reflectance(70, 50, 5) % 120).astype(dtype)
    path = geotiff(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    with opened(path, bands(5, dtype)) as scene:
        assert scene.shape == (70, 50)
        found = scene.read(slice(13, 40), slice(5, 50))
    assert found.lost is None
    assert found.pixels.dtype == dtype
    np.testing.assert_array_equal(found.pixels, pixels[:, 13:40, 5:50])


def test_what_has_no_data_is_filled_band_by_band(tmp_path: Path) -> None:
    pixels = reflectance(4, 5, 2)
    pixels[0, 1, 1] = pixels[:, 2, 3] = 0
    found = read(geotiff(tmp_path / "a.tif", pixels, nodata=0), Bands(2, "uint16", None, (7.5, -1.0)))
    expected = pixels.astype(np.float32)
    expected[0, 1, 1], expected[:, 2, 3] = 7.5, (7.5, -1)
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.lost is not None
    assert np.argwhere(found.lost).tolist() == [[2, 3]]  # where no band has data


def test_numbers_that_are_none_are_no_data(tmp_path: Path) -> None:
    pixels = np.ones((2, 3, 3), np.float32)
    pixels[:, 0, 0], pixels[0, 1, 1], pixels[1, 2, 2] = np.nan, np.inf, -9999
    found = read(geotiff(tmp_path / "a.tif", pixels, nodata=-9999), bands(2, "float32", fill=0.5))
    assert (found.pixels[:, 0, 0] == 0.5).all()
    assert found.pixels[:, 1, 1].tolist() == [0.5, 1]
    assert found.pixels[:, 2, 2].tolist() == [1, 0.5]
    assert found.lost is not None
    assert np.argwhere(found.lost).tolist() == [[0, 0]]


def test_a_mask_within_the_file_says_what_has_data(tmp_path: Path) -> None:
    pixels = reflectance(6, 6, 2)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = geotiff(tmp_path / "a.tif", pixels)
        with rasterio.open(path, "r+") as file:
            mask = np.full((6, 6), 255, np.uint8)
            mask[2, :3] = 0
            file.write_mask(mask)
    found = read(path, bands(2, fill=3))
    assert found.lost is not None
    np.testing.assert_array_equal(found.lost, mask == 0)
    assert (found.pixels[:, 2, :3] == 3).all()
    path.with_name("a.tif.msk").write_bytes(b"")
    assert refused(path, bands(2)).startswith("a.tif.msk says which of its pixels have data")


def test_alpha_says_what_has_data_and_a_fourth_band_is_none_where_four_are_taken(tmp_path: Path) -> None:
    pixels = np.full((4, 3, 3), 9, np.uint8)
    pixels[3] = 255
    pixels[3, 0] = 0
    path = geotiff(tmp_path / "a.tif", pixels)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha  # GDAL's guess
    found = read(path, bands(3, "uint8", fill=1))
    assert found.lost is not None
    assert np.argwhere(found.lost)[:, 0].tolist() == [0, 0, 0]
    assert found.pixels[:, :, 0].tolist() == [[1, 9, 9]] * 3
    np.testing.assert_array_equal(read(path, bands(4, "uint8")).pixels, pixels)
    pixels[3, 1, 1] = 7
    assert "its last band are not 0 and 255 alone" in refused(geotiff(path, pixels), bands(3, "uint8"))


def test_grey_and_palette_are_rgb_for_a_network_of_pictures(tmp_path: Path) -> None:
    indices = np.array([[[0, 1], [2, 1]]], np.uint8)
    grey = read(geotiff(tmp_path / "g.tif", indices, nodata=2), bands(3, "uint8", fill=5))
    assert grey.pixels.tolist() == [[[0, 1], [5, 1]]] * 3
    path = geotiff(tmp_path / "p.tif", indices, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (9, 8, 7), 1: (1, 2, 3), 2: (0, 0, 255)})
    assert read(path, bands(3, "uint8")).pixels.tolist() == [[[9, 1], [0, 1]], [[8, 2], [0, 2]], [[7, 3], [255, 3]]]
    assert "has one band of 8 bits (grey), but the network takes 4 bands" in refused(tmp_path / "g.tif", bands(4))


@pytest.mark.parametrize(
    ("pixels", "profile", "message"),
    [
        (reflectance(4, 4, 3), {}, "it has 3 bands of 16 bits (grey and 2 more), but the network takes 4 bands of"),
        (reflectance(4, 4, 5), {}, "it has 5 bands of 16 bits (grey and 4 more), but the network takes 4 bands of"),
        (reflectance(4, 4).astype(np.uint8), {}, "its values are uint8, but the network takes 4 bands of uint16"),
        (reflectance(4, 4).astype(np.float64), {}, "its values are float64, but the network takes"),
        (reflectance(4, 4).astype(np.complex64), {}, "its values are complex64, but"),
        (reflectance(4, 4) % 9, {"nbits": 12}, "it has 4 bands of 12 bits"),
        (
            reflectance(4, 4),
            {"names": ["B2", "B3", "B4", "B9"]},
            "called 'B2', 'B3', 'B4', 'B9', but the network takes",
        ),
        (reflectance(4, 4), {"photometric": "cmyk"}, "it has 4 bands of 16 bits (CMYK), which is not read"),
        (reflectance(4, 4), {"photometric": "miniswhite"}, "0 is white"),
    ],
)
def test_other_bands_are_refused(tmp_path: Path, pixels: Any, profile: dict[str, Any], message: str) -> None:
    path = geotiff(tmp_path / "a.tif", pixels, **profile)
    assert message in refused(path, bands(4, names=("B4", "B3", "B2", "B8")))


def test_bands_are_found_by_their_names_in_any_order(tmp_path: Path) -> None:
    pixels = reflectance(4, 4, 5)
    path = geotiff(tmp_path / "a.tif", pixels, names=["B2", "B3", "B4", "B5", "B8"])
    found = read(path, bands(4, names=("B4", "B3", "B2", "B8")))
    np.testing.assert_array_equal(found.pixels, pixels[[2, 1, 0, 4]])
    assert "has 5 bands of 16 bits" in refused(path, bands(4))
    some = geotiff(tmp_path / "b.tif", reflectance(4, 4), names=["B4", "", "B2", "B8"])
    assert read(some, bands(4, names=("a", "b", "c", "d"))).lost is None


def test_bands_are_found_by_their_numbers_in_files_like_those_of_the_training(tmp_path: Path) -> None:
    pixels = reflectance(4, 4, 5)
    taken = dataclasses.replace(bands(2), total=5, numbers=(4, 1))
    assert np.array_equal(read(geotiff(tmp_path / "a.tif", pixels), taken).pixels, pixels[[3, 0]])
    assert np.array_equal(read(geotiff(tmp_path / "b.tif", pixels[:2]), taken).pixels, pixels[:2])


def test_files_beside_it_are_not_read(tmp_path: Path) -> None:
    pixels = reflectance(40, 40)
    path = geotiff(tmp_path / "a.tif", pixels)
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>1,2,3,4,5,6</GeoTransform>"
        '<PAMRasterBand band="1"><Description>evil</Description><NoDataValue>9</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    (tmp_path / "a.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    geotiff(tmp_path / "a.tif.ovr", np.zeros((4, 20, 20), np.uint16))
    with rasterio.open(path) as alone:
        assert len(alone.files) > 2  # GDAL by itself reads them
    with opened(path, bands(4)) as scene:
        assert scene.place.crs.to_epsg() == 32633
        assert scene.place.transform.a == 10.1
        found = scene.read(slice(0, 40), slice(0, 40))
    assert found.lost is None
    np.testing.assert_array_equal(found.pixels, pixels)


VRT = """<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize(
    "content",
    [
        VRT.format("/etc/hostname"),
        VRT.format("/vsicurl/http://127.0.0.1:9/a.tif"),
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:9</ServerUrl></Service></GDAL_WMS>',
        "GTIFF_DIR:1:/etc/hostname",
        "ENVI\nsamples = 4\n",
        "",
    ],
)
@pytest.mark.parametrize("ending", ["tif", "vrt"])
def test_files_that_name_others_are_no_images(tmp_path: Path, content: str, ending: str) -> None:
    (tmp_path / f"a.{ending}").write_text(content)
    assert refused(tmp_path / f"a.{ending}", bands(1)).startswith(("it is no image of a known format", "it is empty"))


def claiming(**tags: list[int]) -> bytes:
    """A TIFF of 4x4 pixels of 16 bits that says something else of itself."""
    numbers = {"width": 256, "height": 257, "rows": 278, "tile_width": 322, "tile_length": 323, "orientation": 274}
    return tiff(np.zeros((4, 4), np.uint16), tags={numbers[name]: value for name, value in tags.items()})


def test_claims_that_a_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    cases = [
        (claiming(width=[60_000], height=[60_000]), "it claims 60000x60000 pixels, 7,200,000,000 bytes, in a file of"),
        (claiming(orientation=[6]), "its orientation tag (6) turns it"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        assert message in refused(path, bands(1))
    geotiff(path, np.zeros((1, 1, 2**18 + 1), np.uint16), compress="deflate")
    assert "no side may be longer than 262,144 pixels" in refused(path, bands(1))
    geotiff(path, np.zeros((1, 8, 8), np.uint16), compress="deflate", tiled=True, blockxsize=16, blockysize=16)
    content = path.read_bytes()
    for tag in (322, 323):  # one tile is said to have 4 billion pixels
        place = content.index(struct.pack("<HHI", tag, 3, 1))
        content = content[: place + 8] + struct.pack("<HH", 65520, 0) + content[place + 12 :]
    path.write_bytes(content)
    assert "it is read in blocks of 65520x65520 pixels, more than 134,217,728 bytes each" in refused(path, bands(1))


def test_several_pictures_and_circles_of_them_are_refused(tmp_path: Path) -> None:
    page, path = np.zeros((4, 4), np.uint16), tmp_path / "a.tif"
    path.write_bytes(tiff([page, page]))
    assert "it holds 2 pictures, but one is read" in refused(path, bands(1))
    content = bytearray(tiff(page))
    (first,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[first : first + 2])
    content[first + 2 + 12 * count :][:4]
    content[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)  # the next one is itself
    path.write_bytes(content)
    assert "it holds 2 pictures, but one is read" in refused(path, bands(1))
    content = bytearray(tiff([page, page], subfiles=[0, 1]))  # the second is a smaller copy of the first
    link = content.rindex(struct.pack("<I", 0))
    second = struct.unpack_from("<I", content, 2 + first + 12 * struct.unpack_from("<H", content, first)[0])[0]
    assert second
    content[link : link + 4] = struct.pack("<I", second)
    path.write_bytes(content)
    assert read(path, bands(1)).pixels.shape == (1, 4, 4)  # no smaller copy is read, in whatever circle they are


def is_read(path: Path) -> bool:
    try:
        return read(path, bands(4)).pixels.shape[0] == 4
    except InputError:
        return False


def test_damage_anywhere_is_told_in_one_line(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "a.tif"
    tiles = {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16}
    content = geotiff(path, reflectance(40, 40), **tiles).read_bytes()
    damages = [content[:50], content[: len(content) // 2], content[:-9], content[:8]]
    for _ in range(60):
        place = rng.randrange(len(content) if rng.random() < 0.3 else 900)
        damages.append(content[:place] + rng.randbytes(4) + content[place + 4 :])
    said = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for damaged in damages:
            path.write_bytes(damaged)
            if is_read(path):
                continue
            refused(path, bands(4))
            said += 1
    assert said > 20


def test_without_rasterio_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(4, 4))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"GeoTIFFs needs rasterio: pip install 'rssearch\[geo\]'"):
        read(path, bands(4))
