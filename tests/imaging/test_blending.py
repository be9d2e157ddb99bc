"""rssearch.imaging.blending: columns of a scene give what the whole scene gives, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rssearch.imaging.blending import Tiles, blended
from rssearch.imaging.georaster import Window

TILES = Tiles(8, 3, 2)


def run(tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits that depend on where in a tile a pixel is."""
    ramp = np.arange(8, dtype=np.float32)
    return np.stack([tiles[:, 0] * ramp, tiles[:, 0] + ramp[:, None] * tiles.mean(axis=(1, 2, 3))[:, None, None]], 1)


def whole(
    pixels: npt.NDArray[np.float32], width: int | None, lost: npt.NDArray[np.bool_] | None = None
) -> list[npt.NDArray[Any] | None]:
    def read(rows: slice, columns: slice) -> Window:
        return Window(pixels[:, rows, columns], None if lost is None else lost[rows, columns])

    shape = (pixels.shape[1], pixels.shape[2])
    columns: dict[int, list[npt.NDArray[np.float32]]] = {}
    masks: dict[int, list[npt.NDArray[np.bool_]]] = {}
    for strip in blended(read, run, shape, TILES, width=width):
        columns.setdefault(strip.column, []).append(strip.logits)
        if strip.lost is not None:
            masks.setdefault(strip.column, []).append(strip.lost)
    logits = np.concatenate([np.concatenate(parts, 1) for parts in columns.values()], 2)
    found = np.concatenate([np.concatenate(parts) for parts in masks.values()], 1) if masks else None
    return [logits, found]


@pytest.mark.parametrize("shape", [(30, 41), (8, 8), (5, 20), (20, 5), (3, 2), (1, 33)])
@pytest.mark.parametrize("width", [4, 7, 16, 1000])
def test_columns_give_what_the_whole_gives(shape: tuple[int, int], width: int) -> None:
    pixels = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    expected, _ = whole(pixels, None)
    found, _ = whole(pixels, width)
    assert expected is not None
    assert expected.shape == (2, *shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(30, 41), (5, 20), (3, 2)])
def test_what_is_lost_stays_in_its_place(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels, lost = rng.random((1, *shape), dtype=np.float32), rng.random(shape) < 0.3
    expected, _ = whole(pixels, None)
    logits, found = whole(pixels, 16, lost)
    np.testing.assert_array_equal(found, lost)
    np.testing.assert_array_equal(logits, expected)  # no tile is without any data


def test_tiles_without_data_are_not_computed() -> None:
    pixels, lost = np.ones((1, 8, 40), np.float32), np.zeros((8, 40), np.bool_)
    lost[:, 10:] = True
    seen = []

    def counted(tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        seen.append(len(tiles))
        return run(tiles)

    (strip,) = blended(lambda r, c: Window(pixels[:, r, c], lost[r, c]), counted, (8, 40), TILES)
    assert sum(seen) == 2  # those that begin at 0 and 5
    (full,) = blended(lambda r, c: Window(pixels[:, r, c], None), run, (8, 40), TILES)
    np.testing.assert_array_equal(strip.logits[:, ~lost], full.logits[:, ~lost])


def test_a_long_scene_needs_the_memory_of_a_few_rows() -> None:
    height, tiles = 20_000, Tiles(64, 16, 8)
    logits = np.zeros((1, 8, 64, 64), np.float32)
    tracemalloc.start()
    strips = blended(
        lambda rows, columns: Window(np.zeros((1, rows.stop - rows.start, columns.stop - columns.start)), None),
        lambda found: np.repeat(logits, len(found), 0),
        (height, 256),
        tiles,
    )
    assert sum(strip.logits.shape[1] for strip in strips) == height
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # all logits are 164 MB
