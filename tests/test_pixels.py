"""rssearch.pixels: decoding, cutting and scaling."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rssearch.pixels import decode, factors, reason
from tests.data.fakes import encoded, picture


def test_decode_keeps_the_pixels_of_lossless_files() -> None:
    image = picture(0)
    expected = np.asarray(image).transpose(2, 0, 1)
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(decode(encoded(image, kind), None), expected)
        assert np.array_equal(decode(encoded(image, kind), 16), expected)


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


def test_sixteen_bit_images_are_refused() -> None:
    deep = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    with pytest.raises(ValueError, match="8 bits"):
        decode(encoded(deep), None)


def test_factors_give_mean_0_and_deviation_1() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30), dtype=np.uint8)
    mean, std = (value.astype(np.float32) for value in ((pixels / 255).mean((1, 2)), (pixels / 255).std((1, 2))))
    factor, offset = factors(mean, std)
    assert factor.dtype == offset.dtype == np.float32
    scaled = pixels.astype(np.float32) * factor + offset
    np.testing.assert_allclose(scaled.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((1, 2)), 1, atol=1e-5)


def test_reasons_are_for_people() -> None:
    with pytest.raises(OSError, match="cannot identify") as found:
        decode(b"no image", None)
    assert reason(found.value) == "it is no image of a known format"
    assert reason(EOFError()) == "EOFError"
