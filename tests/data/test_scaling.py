import numpy as np
import pytest

from rssearch.data.scaling import image_sums, moments
from rssearch.imaging.pixels import EIGHT_BITS, Scaling


def test_sums_are_exact_up_to_16_bits():
    image = np.array([[[1, 2], [3, 255]]], np.uint8)
    assert image_sums(image).tolist() == [[261], [1 + 4 + 9 + 65025], [4]]
    deep = np.full((2, 300, 300), 65535, np.uint16)
    assert image_sums(deep).dtype == np.int64
    assert image_sums(deep).tolist() == [[65535 * 90_000] * 2, [65535**2 * 90_000] * 2, [90_000] * 2]


def test_pixels_without_data_are_in_no_sum():
    image = np.array([[[1, 2], [-9, 4]], [[5, 6], [7, -9]]], np.int16)
    assert image_sums(image, -9).tolist() == [[7, 18], [21, 110], [3, 3]]
    undefined = np.array([[[1, np.nan], [np.inf, 4]]], np.float32)
    assert image_sums(undefined).tolist() == [[5], [17], [2]]
    assert image_sums(undefined, 4).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize("scaling", [Scaling((0.0,) * 2, (10.0,) * 2, -9), Scaling((2.0, 1.0), (6.0, 9.0), -9)])
def test_moments_are_those_of_the_scaled_pixels_with_data(scaling):
    image = np.array([[[1, 2], [-9, 4]], [[5, 6], [7, -9]]], np.int16)
    mean, std = moments(image_sums(image, -9)[None], scaling)
    for band, known in enumerate(([1, 2, 4], [5, 6, 7])):
        scaled = (np.array(known) - scaling.low[band]) / (scaling.high[band] - scaling.low[band])
        assert mean[band] == pytest.approx(scaled.mean(), rel=1e-6)
        assert std[band] == pytest.approx(scaled.std(), rel=1e-6)


def test_a_constant_band_has_half_a_grey_level():
    _, std = moments(image_sums(np.full((1, 4, 4), 7, np.uint8))[None], EIGHT_BITS)
    assert std[0] == np.float32(0.5 / 255)
