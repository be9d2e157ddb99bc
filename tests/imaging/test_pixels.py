"""rssearch.imaging.pixels: decoding, cutting and scaling."""

from __future__ import annotations

import io
import re
import resource
import struct

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rssearch.imaging.pixels import DECODE_ERRORS, check_length, decode, factors, reason, upright_size
from tests.support.fakes import encoded, picture
from tests.support.files import chunk, plain_png, png, tiff


def test_decode_keeps_the_pixels_of_lossless_files() -> None:
    image = picture(0)
    expected = np.asarray(image).transpose(2, 0, 1)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(decode(encoded(image, kind), None), expected)
        assert np.array_equal(decode(encoded(image, kind), 16), expected)


@pytest.mark.parametrize("bits", [2, 4])
def test_packed_bitmaps_with_a_grey_palette_are_refused(bits: int) -> None:
    """Pillow takes a byte of them for one pixel."""
    palette = b"".join(bytes([i] * 3) + b"\0" for i in range(4))
    head = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, bits, 0, 8, 0, 0, 4, 0)
    data = b"BM" + struct.pack("<IHHI", 78, 0, 0, 70) + head + palette + b"\x01\x02\0\0\x03\x00\0\0"
    with pytest.raises(DECODE_ERRORS):
        decode(data, None)


def test_tags_that_are_signed_numbers_are_not_overlooked() -> None:
    data = tiff(np.zeros((4, 4), np.uint16))
    tag = data.index(struct.pack("<HH", 258, 3))
    with pytest.raises(DECODE_ERRORS):
        decode(data[:tag] + struct.pack("<HH", 258, 8) + data[tag + 4 :], None)


@pytest.mark.parametrize(("length", "held"), [(2**27, 100), (2**40, 4096)])
def test_files_of_which_nearly_nothing_is_stored_are_refused(length: int, held: int) -> None:
    check_length(2**20, 10)
    check_length(2**31, 2**29)
    with pytest.raises(ValueError, match="bytes long, but only"):
        check_length(length, held)


def test_scaling_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = decode(encoded(Image.fromarray(stripes)), 16)
    assert np.abs(small[:, :, 1:-1].astype(int) - 100).max() <= 2  # nearest neighbours would give 0 or 200


def test_oblong_images_are_cut_to_the_central_square() -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255
    assert (decode(encoded(Image.fromarray(wide)), 20) == 255).all()


def test_large_jpeg_decodes_to_about_the_same_as_png() -> None:
    image = picture(0, (512, 512))
    jpeg, png = decode(encoded(image, "JPEG", quality=98), 32), decode(encoded(image), 32)
    assert np.abs(jpeg.astype(int) - png).mean() < 2


WEDGE = np.arange(70, dtype=np.uint8).reshape(7, 10)  # every pixel differs, and so does every turn of it
TURNED = {
    1: WEDGE, 2: WEDGE[:, ::-1], 3: WEDGE[::-1, ::-1], 4: WEDGE[::-1], 5: WEDGE.T, 6: np.rot90(WEDGE, -1),
    7: WEDGE[::-1, ::-1].T, 8: np.rot90(WEDGE),
}  # fmt: skip


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "late", "xmp"])
def test_images_are_read_upright(kind: str, tag: int) -> None:
    image = Image.fromarray(WEDGE.repeat(3, 1).reshape(7, 10, 3))
    exif = Image.Exif()
    exif[0x0112] = tag
    if kind == "late":
        data = png(np.asarray(image), 2, 8, behind=chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    elif kind == "xmp":
        data = encoded(image, "WEBP", lossless=True, xmp=f'<x tiff:Orientation="{tag}"/>'.encode())
    else:
        data = encoded(image, kind, **({"lossless": True, "exif": exif} if kind == "WEBP" else {"exif": exif}))
    found = decode(data, None)
    assert np.array_equal(found[0], TURNED[tag])
    assert upright_size(io.BytesIO(data)) == found.shape[1:]


def test_a_jpeg_is_turned_before_its_square_is_cut() -> None:
    halves = np.zeros((64, 128, 3), np.uint8)
    halves[:32] = 250
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(halves), "JPEG", quality=95, exif=exif)
    found = decode(data, 16)[0]
    assert (found[:, :7] < 9).all()
    assert (found[:, 9:] > 241).all()
    assert upright_size(io.BytesIO(data)) == (128, 64)


@pytest.mark.parametrize("tag", [0, 9, 300])
def test_orientations_that_do_not_exist_turn_nothing(tag: int) -> None:
    assert np.array_equal(decode(tiff(WEDGE, tags={274: [tag]}), None)[0], WEDGE)


GREY = np.arange(56, dtype=np.uint8).reshape(7, 8)
COLOUR = np.arange(168, dtype=np.uint8).reshape(7, 8, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(COLOUR, 2, 8), COLOUR),
        (png(np.dstack([COLOUR, GREY]), 6, 8), COLOUR),
        (png(np.dstack([GREY, GREY[::-1]]), 4, 8), GREY),
        (png(GREY % 2, 0, 1), GREY % 2 * 255),
        (png(GREY % 4, 0, 2), GREY % 4 * 85),
        (png(GREY % 16, 0, 4), GREY % 16 * 17),
        (png(GREY % 2, 3, 1, palette=bytes([7, 7, 7, 9, 9, 9])), GREY % 2 * 2 + 7),
        (tiff(COLOUR, 2), COLOUR),
        (tiff(COLOUR, 2, planar=True), COLOUR),
        (tiff(COLOUR, 2, order=">"), COLOUR),
        (tiff(COLOUR, 2, big=True), COLOUR),
        (tiff(GREY), GREY),
        (tiff(GREY % 2, bits=1), GREY % 2 * 255),
        (tiff(GREY % 16, bits=4), GREY % 16 * 17),
        (tiff(np.dstack([COLOUR, np.full_like(GREY, 255)]), 2, tags={338: [2]}), COLOUR),
        (tiff(np.dstack([COLOUR, GREY % 2 * 255]), 2, tags={338: [2]}), COLOUR),
        (tiff([COLOUR, COLOUR[::2, ::2]], 2, subfiles=[0, 1]), COLOUR),  # an overview
        (tiff([COLOUR, GREY % 2], 2, subfiles=[0, 4]), COLOUR),  # a mask of what is transparent
        (encoded(Image.fromarray(GREY), "PPM"), GREY),
        (encoded(Image.fromarray(COLOUR), "GIF"), COLOUR),
    ],
)
def test_what_is_read(data: bytes, expected: npt.NDArray[np.uint8]) -> None:
    if expected.ndim == 2:
        expected = np.stack([expected] * 3, 2)
    assert np.array_equal(decode(data, None), expected.transpose(2, 0, 1))
    assert upright_size(io.BytesIO(data)) == (7, 8)


def _alpha(*kinds: int) -> dict[int, list[int]]:
    return {338: list(kinds)}


DEEP = COLOUR.astype(np.uint16)
BANDS = np.dstack([COLOUR, COLOUR])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(DEEP[..., 0], 0, 16), "one band of 16 bits (grey)"),
        (png(DEEP, 2, 16), "3 bands of 16 bits (RGB)"),
        (png(DEEP[..., :2], 4, 16), "2 bands of 16 bits (grey with alpha)"),
        (png(np.dstack([DEEP, DEEP[..., 0]]), 6, 16), "4 bands of 16 bits (RGB with alpha)"),
        (tiff(DEEP, 2), "3 bands of 16 bits (RGB)"),
        (tiff(DEEP[..., 0]), "one band of 16 bits (grey)"),
        (tiff(DEEP[..., 0], 3, tags={320: [0] * 3 * 2**16}), "one band of 16 bits (palette)"),
        (tiff(np.dstack([DEEP, DEEP[..., 0]]), 2, tags=_alpha(2)), "4 bands of 16 bits (RGB with alpha)"),
        (tiff(GREY.astype(np.int8)), "one band of 8 bits, signed (grey)"),
        (tiff(COLOUR.astype(np.int8), 2), "3 bands of 8 bits, signed (RGB)"),
        (tiff(GREY.astype(np.float32)), "one band of 32 bits, float (grey)"),
        (tiff(COLOUR.astype(np.float64), 2), "3 bands of 64 bits, float (RGB)"),
        (tiff(GREY.astype(np.uint32)), "one band of 32 bits (grey)"),
        (tiff(GREY, tags={339: [4]}), "one band of 8 bits, undefined or complex (grey)"),
        (tiff(GREY, 0), "one band of 8 bits (grey, 0 is white)"),
        (tiff(GREY % 2, 0, bits=1), "one band of 1 bit (grey, 0 is white)"),
        (tiff(GREY, None), "one band of 8 bits (of no stated meaning)"),
        (tiff(BANDS[..., :2]), "2 bands of 8 bits (grey and 1 more)"),
        (tiff(BANDS[..., :2], tags=_alpha(0)), "2 bands of 8 bits (grey and 1 more)"),
        (tiff(BANDS[..., :3]), "3 bands of 8 bits (grey and 2 more)"),
        (tiff(BANDS[..., :4], 2), "4 bands of 8 bits (RGB and 1 more)"),
        (tiff(BANDS[..., :4], 2, planar=True, tags=_alpha(0)), "4 bands of 8 bits (RGB and 1 more)"),
        (tiff(BANDS[..., :4], 2, tags=_alpha(1)), "4 bands of 8 bits (RGB with premultiplied alpha)"),
        (tiff(BANDS[..., :5], 2, tags=_alpha(0, 0)), "5 bands of 8 bits (RGB and 2 more)"),
        (tiff(BANDS, 2, tags=_alpha(2, 0, 0)), "6 bands of 8 bits (RGB and 3 more)"),
        (tiff(BANDS[..., :4], 5), "4 bands of 8 bits (CMYK)"),
        (tiff(COLOUR, 6), "3 bands of 8 bits (YCbCr)"),
        (tiff(COLOUR, 8), "3 bands of 8 bits (CIELab)"),
        (tiff(COLOUR, 32803), "3 bands of 8 bits (PhotometricInterpretation 32803)"),
        (tiff(COLOUR, 2, tags={258: [8, 8, 5]}), "3 bands of 8 bits (bands of different kinds)"),
        (tiff(COLOUR, 2, order=">", big=True), "3 bands of 8 bits (RGB, big-endian BigTIFF)"),
        (encoded(Image.fromarray(BANDS[..., :4], "CMYK"), "JPEG"), "4 bands of 8 bits (CMYK)"),
        (encoded(Image.fromarray(GREY), "JPEG").replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"),
         "one band of 12 bits (grey)"),
        (b"P6 2 1 65535\n" + bytes(12), "3 bands of 16 bits (RGB)"),
        (b"P5 2 1 15\n" + bytes(2), "one band of 4 bits (grey, levels 0 to 15)"),
        (b"P4 8 1\n" + bytes(1), "one band of 1 bit (grey, 0 is white)"),
    ],
)  # fmt: skip
def test_what_would_be_reinterpreted_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"it has {message}, but images of 8 bits are read")):
        decode(data, None)


@pytest.mark.parametrize("bands", [2, 4])
def test_a_band_that_is_called_alpha_may_be_another(bands: int) -> None:
    near_infrared = tiff(BANDS[..., :bands], {2: 1, 4: 2}[bands], tags=_alpha(2))
    with pytest.raises(ValueError, match=f"it has {bands} bands .* values of its last band are not 0 and 255 alone"):
        decode(near_infrared, None)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_files_of_several_pictures_are_refused(kind: str) -> None:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    with pytest.raises(ValueError, match=r"it holds (several|2) pictures, but one is read"):
        decode(encoded(first, kind, save_all=True, append_images=[second]), None)


def test_a_preview_in_a_jpeg_is_no_picture_of_its_own() -> None:
    image = picture(0, (64, 48))
    data = encoded(image, "MPO", quality=95, save_all=True, append_images=[image.resize((16, 12))])
    assert np.abs(decode(data, None).astype(int) - np.asarray(image).transpose(2, 0, 1)).mean() < 2


def test_small_files_of_huge_images_are_refused_before_they_are_decoded() -> None:
    data = plain_png(13000, 13000)
    assert len(data) < 500_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (None, 64):
        with pytest.raises(ValueError, match=r"it claims 13000x13000 pixels in \d+,\d+ bytes; a file for more than"):
            decode(data, size)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; its pixels would take 660,000
    assert upright_size(io.BytesIO(data)) == (13000, 13000)


def test_large_images_are_read_from_files_that_can_hold_them() -> None:
    data = plain_png(8200, 8200)
    with pytest.raises(ValueError, match=r"67,108,864 pixels needs a byte for each 64"):
        decode(data, 16)
    assert (decode(data + bytes(8200**2 // 64), 16) == 0).all()  # what follows the end of a PNG is not read


def test_factors_give_mean_0_and_deviation_1() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30), dtype=np.uint8)
    mean, std = (value.astype(np.float32) for value in ((pixels / 255).mean((1, 2)), (pixels / 255).std((1, 2))))
    factor, offset = factors(mean, std)
    assert factor.dtype == offset.dtype == np.float32
    scaled = pixels.astype(np.float32) * factor + offset
    np.testing.assert_allclose(scaled.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"no image", r"it is no image of a known format \(JPEG, PNG, TIFF, BMP, WebP, GIF, PPM\)"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is no image of a known format"),
        (b"\x89PNG\r\n\x1a\n", "its header is damaged or cut off; it begins as PNG"),
        (b"II*\0\x08\0\0\0\xff", "its header is damaged or cut off; it begins as TIFF"),
        (b"\xff\xd8\xff\xe0\0\x10", "its header is damaged or cut off; it begins as JPEG"),
        (tiff(GREY, tags={273: [0], 279: [0]}), "it is sparse: some of its strips or tiles are not in the file"),
        (b"P6 2 x", "its header is damaged or cut off; it begins as PPM"),
        (b"BM" + bytes(40), "its header is damaged or cut off; it begins as BMP"),
        (
            png(GREY, 0, 8).replace(b"IDAT", b"IDOT"),
            "it is damaged, or a PNG of a kind that is not read: one band of 8 b",
        ),
    ],
)
def test_reasons_are_for_people(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        decode(data, None)
    assert reason(found.value) == str(found.value)


def test_errors_without_a_text_have_their_name() -> None:
    assert reason(EOFError()) == "EOFError"
    assert reason(MemoryError()) == "there is not enough memory for it"
