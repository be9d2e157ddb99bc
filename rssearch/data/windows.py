"""Where patches lie in scenes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rssearch.imaging.tiling import starts


def cut(sizes: Sequence[tuple[int, int]], scenes: Iterable[int], size: int, overlap: int = 0) -> npt.NDArray[np.int64]:
    """The windows of some scenes, scene by scene and row by row.

    Args:
        sizes: height and width of every scene.
        scenes: indices of those that are cut.
        size: height and width of a window.
        overlap: pixels that neighbours have in common; the last of a row or column may have more.

    Returns:
        int64 [N, 3]: scene, and row and column of the window's upper left pixel.
    """
    found = [
        (scene, row, column)
        for scene in scenes
        for row in starts(sizes[scene][0], size, overlap)
        for column in starts(sizes[scene][1], size, overlap)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 3)
