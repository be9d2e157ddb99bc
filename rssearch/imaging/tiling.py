"""A scene of any size in tiles that overlap: where they lie along an axis, and how their predictions are blended.

NumPy alone, so that a bundle predicts as the network was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError
from rssearch.imaging.pixels import Floats


@dataclass(frozen=True)
class Axis:
    """The tiles along one axis of a scene.

    Attributes:
        firsts: where the tiles begin, see `starts`.
        positions: int64 [L], the pixels that they cover: all in order, and where the axis is shorter than a tile
            continued by reflection without repeating the edge.
        ramp: float32 [size], the weights of a tile: they fall linearly towards its borders, and those of neighbours sum
            to 1 where they overlap.
        sums: float32 [L], the weights of all tiles together.
    """

    firsts: list[int]
    positions: npt.NDArray[np.int64]
    ramp: Floats
    sums: Floats


def axis(length: int, size: int, overlap: int) -> Axis:
    """Lay tiles along an axis.

    Raises:
        InputError: a size or an overlap that is not allowed.
    """
    if size < 1 or not 0 <= overlap < size:
        raise InputError(
            f"tiles of {size} pixels cannot overlap by {overlap}: it must be at least 0 and less than that"
        )
    firsts = starts(length, size, overlap)
    period = 2 * (length - 1)
    positions = np.arange(max(length, size)) % max(1, period)
    nearest = np.arange(1, size + 1)
    ramp = np.minimum(np.minimum(nearest, nearest[::-1]) / (overlap + 1), 1).astype(np.float32)
    sums = np.zeros(len(positions), dtype=np.float32)
    for first in firsts:
        sums[first : first + size] += ramp
    return Axis(firsts, np.minimum(positions, period - positions), ramp, sums)


def starts(length: int, size: int, overlap: int = 0) -> list[int]:
    """Where windows of `size` begin along an axis: every pixel is in one, and the last is shifted inwards to fit.

    An axis shorter than a window has one, which begins at 0 and reaches over the end.
    """
    last = max(length - size, 0)
    return [*range(0, last, size - overlap), last]
