import numpy as np

from rssearch.data.windows import cut


def test_cut_goes_scene_by_scene_and_row_by_row():
    windows = cut([(4, 4), (2, 9), (5, 4)], [2, 1], 4)
    assert windows.dtype == np.int64
    assert windows.tolist() == [[2, 0, 0], [2, 1, 0], [1, 0, 0], [1, 0, 4], [1, 0, 5]]
    assert cut([(4, 4)], [], 4).shape == (0, 3)
