"""rssearch.imaging.tiling: every pixel is in a tile, and the weights are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from rssearch.errors import InputError
from rssearch.imaging.tiling import axis, starts


@pytest.mark.parametrize(
    ("length", "size", "overlap", "expected"),
    [
        (128, 128, 0, [0]),
        (100, 128, 0, [0]),
        (1, 128, 64, [0]),
        (129, 128, 0, [0, 1]),
        (256, 128, 0, [0, 128]),
        (300, 128, 0, [0, 128, 172]),
        (256, 128, 64, [0, 64, 128]),
        (257, 128, 64, [0, 64, 128, 129]),
        (10, 4, 3, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_starts(length: int, size: int, overlap: int, expected: list[int]) -> None:
    assert starts(length, size, overlap) == expected


@pytest.mark.parametrize("overlap", range(7))
@pytest.mark.parametrize("length", [*range(1, 30)])
def test_every_pixel_is_covered_and_neighbours_overlap_as_asked(length: int, overlap: int) -> None:
    found = starts(length, 7, overlap)
    covered = {start + offset for start in found for offset in range(7)}
    assert covered >= set(range(length))
    assert found == sorted(set(found))
    assert all(step == 7 - overlap for step in np.diff(found)[:-1])
    assert all(1 <= step <= 7 - overlap for step in np.diff(found))
    assert length < 7 or found[-1] == length - 7


def test_an_axis_by_hand() -> None:
    found = axis(5, 4, 2)
    assert found.firsts == [0, 1]
    assert found.positions.tolist() == [0, 1, 2, 3, 4]
    third = np.float32(1 / 3)
    assert found.ramp.tolist() == [third, 2 * third, 2 * third, third]
    assert found.sums.tolist() == [third, 2 * third + third, 4 * third, third + 2 * third, third]


@pytest.mark.parametrize(("length", "expected"), [(1, [0] * 8), (3, [0, 1, 2, 1, 0, 1, 2, 1]), (8, [*range(8)])])
def test_a_short_axis_is_mirrored(length: int, expected: list[int]) -> None:
    assert axis(length, 8, 0).positions.tolist() == expected


@pytest.mark.parametrize("length", [5, 8, 20, 26])
def test_regular_neighbours_sum_to_one(length: int) -> None:
    found = axis(length, 8, 2)
    inner = slice(2, len(found.sums) - 2)  # the outer borders have no neighbour
    if length <= 8 or (length - 8) % 6 == 0:
        np.testing.assert_allclose(found.sums[inner], 1, rtol=1e-6)
    assert (found.sums > 0).all()


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_tiles_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InputError, match=f"tiles of {size} pixels cannot overlap by {overlap}"):
        axis(20, size, overlap)
