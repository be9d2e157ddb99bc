"""The logits of a scene of any size, from tiles that overlap: in strips, so that only a few rows are in memory.

NumPy alone, so that a bundle predicts as the network was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rssearch.imaging.georaster import Window
from rssearch.imaging.pixels import Floats
from rssearch.imaging.tiling import Axis, axis

__all__ = ["Strip", "Tiles", "blended"]

BATCH = 8  # tiles that go through the network together, and
PIXELS = 2**16  # the most that they may have: larger tiles gain no speed together, and take memory

Read = Callable[[slice, slice], Window]
Run = Callable[[npt.NDArray[Any]], Floats]


class Tiles(NamedTuple):
    """How a scene is cut.

    Attributes:
        size: of a tile, in pixels.
        overlap: of neighbours, in pixels.
        classes: that the network tells apart.
    """

    size: int
    overlap: int
    classes: int


class Strip(NamedTuple):
    """Rows of a scene, which follow on those of the strip before.

    Attributes:
        column: the first.
        logits: float32 [K, H, W].
        lost: bool [H, W], the pixels without data, whose logits mean nothing; None: there are none.
    """

    column: int
    logits: Floats
    lost: npt.NDArray[np.bool_] | None


def blended(read: Read, run: Run, shape: tuple[int, int], tiles: Tiles, *, width: int | None = None) -> Iterator[Strip]:
    """The logits of a scene from top to bottom, in one column after the other.

    Args:
        read: gives a window of the scene, by its rows and columns.
        run: the network: pixels [B, C, size, size] to logits float32 [B, K, size, size].
        shape: height and width of the scene.
        tiles: that the network sees.
        width: of a column, in pixels; None: of the whole scene. Tiles on the borders of columns are computed twice.

    Yields:
        each strip as soon as no other tile reaches into it; those of a column together have the height of the scene.
    """
    vertical, horizontal = (axis(length, tiles.size, tiles.overlap) for length in shape)
    for begin in range(0, shape[1], width or shape[1]):
        yield from _column(
            read, run, (vertical, horizontal), tiles, shape[0], begin, min(shape[1], begin + (width or shape[1]))
        )


def _column(
    read: Read, run: Run, axes: tuple[Axis, Axis], tiles: Tiles, height: int, begin: int, end: int
) -> Iterator[Strip]:
    """The strips between two columns of pixels."""
    (vertical, horizontal), size = axes, tiles.size
    firsts = [first for first in horizontal.firsts if first < end and first + size > begin]
    left, right = firsts[0], firsts[-1] + size
    window = vertical.ramp[:, None] * vertical.ramp
    carried: Floats | None = None  # of the tiles above, what lies in the rows of this one
    for row, following in pairwise([*vertical.firsts, len(vertical.positions)]):
        seen = _window(read, vertical.positions[row : row + size], horizontal.positions[left:right])
        total = np.zeros((tiles.classes, size, right - left), dtype=np.float32)
        if carried is not None:
            total[:, : carried.shape[1]] = carried
        for column, logits in _tiles(run, seen, [first - left for first in firsts], size):
            total[:, :, column : column + size] += logits * window
        done = following - row
        carried = total[:, done:]
        inner = slice(begin - left, end - left)
        rows = min(done, height - row)
        sums = vertical.sums[row : row + rows, None], horizontal.sums[begin:end]
        logits = total[:, :rows, inner] / sums[0] / sums[1]
        yield Strip(begin, logits, None if seen.lost is None else seen.lost[:rows, inner])


def _window(read: Read, down: npt.NDArray[np.int64], across: npt.NDArray[np.int64]) -> Window:
    """The pixels at some rows and columns: neighbours, or, of a scene smaller than a tile, reflected ones."""
    rows, columns = (slice(int(places.min()), int(places.max()) + 1) for places in (down, across))
    found = read(rows, columns)
    if (rows.stop - rows.start, columns.stop - columns.start) == (len(down), len(across)):
        return found
    down, across = (down - rows.start)[:, None], across - columns.start
    return Window(found.pixels[:, down, across], None if found.lost is None else found.lost[down, across])


def _tiles(run: Run, seen: Window, firsts: list[int], size: int) -> Iterator[tuple[int, Floats]]:
    """The logits of the tiles of a row, but for those without any data."""
    if seen.lost is not None:
        lost = seen.lost
        firsts = [first for first in firsts if not lost[:, first : first + size].all()]
    together = max(1, min(BATCH, PIXELS // size**2))
    for begin in range(0, len(firsts), together):
        chosen = firsts[begin : begin + together]
        yield from zip(chosen, run(np.stack([seen.pixels[:, :, f : f + size] for f in chosen])), strict=True)
