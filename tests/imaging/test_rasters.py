import io
import struct

import numpy as np
import pytest
import rasterio

from rssearch.imaging import rasters
from rssearch.imaging.rasters import Options, Raster
from tests.support.rasters import values, write

KINDS = {
    "plain": {},
    "tiled": {"tiled": True, "blockxsize": 16, "blockysize": 16},
    "BigTIFF": {"BIGTIFF": "YES"},
    "big-endian": {"ENDIANNESS": "BIG"},
    "by pixel": {"interleave": "pixel"},
    "by band": {"interleave": "band"},
    "deflate": {"compress": "deflate", "predictor": 2},
    "LZW": {"compress": "lzw"},
    "zstd": {"compress": "zstd"},
    "LZMA": {"compress": "lzma"},
    "COG": {"driver": "COG"},
}


@pytest.mark.parametrize("dtype", rasters.TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_is_read_as_rasterio_reads_it(tmp_path, kind, dtype):
    pixels = values(dtype)
    options = KINDS[kind] | ({"predictor": 3} if dtype == "float32" and "predictor" in KINDS[kind] else {})
    data = write(tmp_path / "image.tif", pixels, **options)
    with rasterio.open(tmp_path / "image.tif") as file:
        expected = file.read()
    assert np.array_equal(expected, pixels)
    found = rasters.read(data)
    assert found.pixels.dtype == dtype
    assert np.array_equal(found.pixels, expected)
    about = rasters.layout(data)
    assert (about.bands, about.height, about.width, about.dtype) == (*pixels.shape, dtype)


@pytest.mark.parametrize(
    ("name", "options", "dtype", "shape"),
    [
        ("a.tif", {"compress": "lerc", "max_z_error": 0}, "float32", (2, 20, 24)),
        ("a.jp2", {"driver": "JP2OpenJPEG", "reversible": "YES", "quality": 100}, "uint16", (5, 40, 48)),
        ("a.png", {"driver": "PNG", "crs": None, "transform": None}, "uint16", (3, 20, 24)),
        ("a.png", {"driver": "PNG", "crs": None, "transform": None}, "uint16", (1, 20, 24)),
    ],
)
def test_other_formats(tmp_path, name, options, dtype, shape):
    pixels = values(dtype, shape)
    data = write(tmp_path / name, pixels, **{key: value for key, value in options.items() if value is not None})
    with rasterio.open(tmp_path / name) as file:
        expected = file.read()
    assert np.array_equal(rasters.read(data).pixels, expected)


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "<i2", "float32", ">f4"])
def test_arrays(dtype):
    pixels = np.arange(3 * 5 * 6).reshape(3, 5, 6).astype(dtype)
    found = rasters.read(npy(pixels), Options(bands=(3, 1))).pixels
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(found, pixels[[2, 0]])
    assert rasters.read(npy(np.asfortranarray(pixels[0]))).pixels.shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy(np.zeros((8, 8, 3), np.uint8)), "last axis seems to be the bands"),
        (npy(np.zeros(8, np.uint8)), r"its shape is \(8,\)"),
        (npy(np.zeros((2, 8, 8))), "its values are float64; read are uint8, int8, uint16, int16, uint32, float32"),
        (npy(np.array([None]), allow_pickle=True), "its values are object"),
        (npy(np.zeros((1, 8, 8), np.uint8))[:-1], "it claims .* values of uint8, but holds 63 bytes"),
        (npy(np.zeros((1, 8, 8), np.uint8)).replace(b"(1, 8, 8)", b"(9, 9**9)"), "its header is damaged"),
        (
            npy(np.zeros((1, 8, 8), np.uint8)).replace(b"(1, 8, 8)", b"(True,8,8" + b")"),
            r"header is damaged: its shape is \(True, 8, 8\)",
        ),
        (b"", "it is empty"),
        (b"no raster", "no raster that is read"),
    ],
)
def test_what_is_no_raster(data, reason):
    for look in (rasters.layout, rasters.read):
        with pytest.raises(ValueError, match=reason):
            look(data)


def test_bands_by_number_and_by_name(tmp_path):
    pixels = values("int16")
    data = write(tmp_path / "a.tif", pixels, ("B02", "B03", "B04", "B08"))
    for bands in ((4, 3, 1), ("B08", "B04", "B02"), (4, "B04", 1)):
        assert np.array_equal(rasters.read(data, Options(bands=bands)).pixels, pixels[[3, 2, 0]])
    renamed = Options(bands=("nir",), names=("blue", "green", "red", "nir"))
    assert np.array_equal(rasters.read(data, renamed).pixels, pixels[3:])
    for options, reason in [
        (Options(bands=(5,)), "4 bands of int16, but no band 5; bands are counted from 1"),
        (Options(bands=(0,)), "no band 0"),
        (Options(bands=("B8A",)), "the names B02, B03, B04, B08, but no band 'B8A'"),
        (Options(bands=("B04", 3)), "bands B04, 3: one of them stands there twice"),
        (Options(names=("a", "b")), "it has 4 bands of int16, but band_names has 2 names"),
    ]:
        with pytest.raises(ValueError, match=reason):
            rasters.read(data, options)
    unnamed = write(tmp_path / "b.tif", pixels)
    with pytest.raises(ValueError, match="no names of bands, but no band 'B02'"):
        rasters.read(unnamed, Options(bands=("B02",)))


def test_wide_values_stay_what_they_are(tmp_path):
    pixels = (np.arange(2628, dtype=np.uint16) * 7).reshape(1, 36, 73)
    data = write(tmp_path / "a.tif", pixels)
    assert len(np.unique(rasters.read(data).pixels)) == 2628


def test_pixels_without_data(tmp_path):
    pixels = values("int16")
    data = write(tmp_path / "a.tif", pixels, nodata=-9999)
    assert rasters.read(data).nodata == -9999
    assert rasters.read(data, Options(nodata=7.0)).nodata == 7
    assert rasters.read(data, Options(nodata="none")).nodata is None
    assert rasters.read(write(tmp_path / "b.tif", values("uint8"), nodata=None)).nodata is None
    # A value that no pixel can have marks none.
    assert rasters.layout(data, Options(nodata=1e6)).nodata is None
    assert rasters.layout(data, Options(nodata=0.5)).nodata is None


def test_a_mask_of_its_own_needs_a_word(tmp_path):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        write(tmp_path / "a.tif", values("uint16"))
        with rasterio.open(tmp_path / "a.tif", "r+") as file:
            file.write_mask(np.arange(480).reshape(20, 24) > 40)
    data = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(ValueError, match=r"a mask says .* give settings\.nodata"):
        rasters.read(data)
    assert np.array_equal(rasters.read(data, Options(nodata="none")).pixels, values("uint16"))


def test_refused_for_what_they_are(tmp_path):
    palette = write(tmp_path / "a.tif", values("uint8", (1, 8, 8)), photometric="palette")
    with pytest.raises(ValueError, match="indices into a palette"):
        rasters.read(palette)
    for dtype in ("float64", "complex64", "int32"):
        data = write(tmp_path / "b.tif", np.zeros((1, 8, 8), dtype))
        with pytest.raises(ValueError, match=f"its values are {dtype}"):
            rasters.read(data)
    vrt = b'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    with pytest.raises(ValueError, match="no raster that is read"):
        rasters.read(vrt)


def test_a_bomb_and_a_lying_header(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=13, height=30_000, width=30_000, dtype="uint16", SPARSE_OK=True,
        tiled=True,
    ):  # fmt: skip
        pass
    bomb = (tmp_path / "a.tif").read_bytes()
    assert len(bomb) < 3_000_000
    for look in (rasters.layout, rasters.read):
        with pytest.raises(ValueError, match="it claims 13 bands of 30000x30000 pixels"):
            look(bomb)
    data = bytearray(write(tmp_path / "b.tif", values("uint16")))
    for cut in (9, len(data) // 2, len(data) - 5):
        with pytest.raises(ValueError, match="it is damaged"):
            rasters.read(bytes(data[:cut]))


def test_directories_in_a_circle(tmp_path):
    data = bytearray(write(tmp_path / "a.tif", values("uint8")))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)  # the next directory is this one
    assert np.array_equal(rasters.read(bytes(data)).pixels, values("uint8"))


def test_scaling_keeps_type_and_range():
    pixels = np.full((2, 30, 40), 40_000, np.uint16)
    assert np.array_equal(rasters.resampled(Raster(pixels, None), 8).pixels, pixels[:, :8, :8])
    extreme = np.full((1, 9, 9), 2**32 - 1, np.uint32)
    assert rasters.resampled(Raster(extreme, None), 3).pixels.tolist() == extreme[:, :3, :3].tolist()
    negative = np.full((1, 9, 9), -128, np.int8)
    assert rasters.resampled(Raster(negative, None), 3).pixels.tolist() == negative[:, :3, :3].tolist()
    whole = Raster(pixels, None)
    assert rasters.resampled(whole, None) is whole


@pytest.mark.parametrize(("dtype", "nodata"), [("int16", -9999.0), ("float32", None)])
def test_pixels_without_data_give_nothing_to_others(dtype, nodata):
    empty = np.nan if nodata is None else nodata
    pixels = np.full((1, 16, 16), 100, dtype)
    pixels[0, :, :7] = empty
    found = rasters.resampled(Raster(pixels, nodata), 8).pixels[0]
    known = found[np.isfinite(found) & (found != -9999)]
    assert set(known.tolist()) == {100}
    lost = ~np.isfinite(found) if nodata is None else found == nodata
    assert lost[:, :3].all()
    assert not lost[:, 4:].any()


def test_tiles_that_are_far_larger_than_their_picture(tmp_path):
    """GDAL would decode 1 GB for 16 x 16 pixels."""
    data = bytearray(write(tmp_path / "a.tif", values("uint8", (1, 16, 16)), tiled=True, blockxsize=16, blockysize=16))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, entry)[0] in (322, 323):  # width and height of the tiles
            struct.pack_into("<HII", data, entry + 2, 4, 1, 2**15)
    for look in (rasters.layout, rasters.read):
        with pytest.raises(ValueError, match="its 16x16 pixels are in blocks of 32768x32768"):
            look(bytes(data))


def test_pages_are_no_bands(tmp_path):
    from PIL import Image

    pages = [Image.fromarray(values("uint16", (1, 8, 8), seed)[0]) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="it holds 3 pictures, but one is read"):
        rasters.read((tmp_path / "a.tif").read_bytes())
    data = write(tmp_path / "b.tif", np.zeros((2, 2048, 1024), np.uint8), driver="COG")  # with an overview
    assert rasters.layout(data).bands == 2


@pytest.mark.parametrize("data", [b"no raster", npy(np.zeros((1, 8, 8), np.uint8)).replace(b"(1, 8, 8)", b"(9, f(9))")])
def test_a_reason_is_the_same_each_time(data):
    said = set()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"it is damaged|header is damaged") as caught:
            rasters.read(data)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "vsimem" not in said.pop()


@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_names_that_are_alike(tmp_path, ending):
    pixels = values("uint16", (4, 8, 8))
    data = npy(pixels) if ending == "npy" else write(tmp_path / "a.tif", pixels)
    with pytest.raises(ValueError, match="band_names a, b, a, c: two bands have one name"):
        rasters.read(data, Options(names=("a", "b", "a", "c")))


def test_arrays_have_the_value_without_data_that_is_asked_for():
    data = npy(values("uint16", (4, 8, 8)))
    for asked, value in ((0, 0), (70_000, None), (0.5, None), ("none", None)):
        for found in (rasters.layout(data, Options(nodata=asked)), rasters.read(data, Options(nodata=asked))):
            assert found.nodata == value
