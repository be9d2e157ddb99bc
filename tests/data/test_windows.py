import numpy as np
import pytest

from rssearch.data.windows import cut, starts


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
def test_starts(length, size, overlap, expected):
    assert starts(length, size, overlap) == expected


@pytest.mark.parametrize("overlap", range(7))
@pytest.mark.parametrize("length", [*range(1, 30)])
def test_every_pixel_is_covered_and_neighbours_overlap_as_asked(length, overlap):
    found = starts(length, 7, overlap)
    covered = {start + offset for start in found for offset in range(7)}
    assert covered >= set(range(length))
    assert found == sorted(set(found))
    assert all(step == 7 - overlap for step in np.diff(found)[:-1])
    assert all(1 <= step <= 7 - overlap for step in np.diff(found))
    assert length < 7 or found[-1] == length - 7


def test_cut_goes_scene_by_scene_and_row_by_row():
    windows = cut([(4, 4), (2, 9), (5, 4)], [2, 1], 4)
    assert windows.dtype == np.int64
    assert windows.tolist() == [[2, 0, 0], [2, 1, 0], [1, 0, 0], [1, 0, 4], [1, 0, 5]]
    assert cut([(4, 4)], [], 4).shape == (0, 3)
