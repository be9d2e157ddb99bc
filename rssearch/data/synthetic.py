"""Drawn aerial scenes: a dataset that needs no download, for tests, tutorials and quick starts.

Twelve land-use classes seen from above, with the confusions of the real ones: rivers and highways cross the same
country, orchards thin out like forests, houses stand dense or sparse in the same materials.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rssearch.data.brushes import Floats, Sheet, box, disc
from rssearch.data.decode import available_cpus
from rssearch.data.family import Family
from rssearch.data.listing import Listing
from rssearch.errors import InputError
from rssearch.imaging.pixels import Pixels

VERSION = 1  # raise it whenever a scene changes: results on other scenes must not share a cache
SEED = 0
PER_CLASS = 250
SIZE = 32
METRES = (44.0, 72.0)
CHUNK = 50  # scenes on a sheet: its arrays stay within the processor's cache at 32 pixels

GRASS = ((88, 112, 62), (104, 122, 70), (122, 126, 80), (74, 98, 58))
CROPS = ((78, 108, 52), (128, 132, 72), (158, 138, 96), (136, 110, 82), (98, 120, 62), (176, 160, 104))
SOIL = ((150, 122, 92), (172, 148, 114), (128, 106, 84), (184, 166, 132))
TREES = ((42, 66, 38), (52, 76, 44), (60, 80, 48), (36, 58, 40))
WATER = ((36, 60, 84), (44, 74, 92), (66, 88, 86), (28, 46, 62))
ASPHALT = ((104, 104, 106), (124, 122, 120), (88, 88, 92), (146, 142, 136))
TILES = ((152, 92, 72), (136, 82, 68), (122, 116, 112), (96, 90, 88), (168, 150, 132))
METAL = ((186, 190, 194), (160, 164, 168), (206, 204, 198), (128, 142, 158), (150, 120, 108))
PANEL = ((40, 48, 76), (52, 58, 84), (34, 38, 58))


def _plain(sheet: Sheet, *colours: tuple[int, int, int], contrast: float) -> None:
    """Open ground in one tint, mottled."""
    sheet.canvas[:] = sheet.colour(*colours)
    sheet.shade(1 + contrast * sheet.texture())


def _parcels(sheet: Sheet, mask: Floats, furrows: float) -> None:
    """Cultivated parcels, each with its crop and the direction of its furrows."""
    cells = sheet.cells(sheet.uniform(28, 75), sheet.uniform(22, 60))
    crop = sheet.each(cells)[:, None]
    first, second, third = (sheet.colour(*CROPS, spread=14) for _ in range(3))
    colour = np.where(crop < 0.34, first, np.where(crop < 0.67, second, third))
    along = np.where(sheet.each(cells) < 0.5, sheet.x, sheet.y)
    wave = np.sin(along * (2 * np.pi / sheet.uniform(4.5, 10)) + 6 * sheet.each(cells))
    depth = furrows * sheet.uniform(0.4, 1) * (0.3 + 0.7 * sheet.each(cells))
    colour = colour * (1 + depth * wave + 0.2 * sheet.texture())[:, None]
    sheet.paint(mask, colour)


def _trees(sheet: Sheet, pitch: Floats, *, jitter: float, share: Floats, mask: Floats | float = 1.0) -> None:
    """A tree in this share of the cells, with its shadow."""
    cells = sheet.cells(pitch, pitch)
    radius = pitch * (0.26 + 0.14 * sheet.each(cells))
    x = cells.x + jitter * pitch * (sheet.each(cells) - 0.5)
    y = cells.y + jitter * pitch * (sheet.each(cells) - 0.5)
    there = (sheet.each(cells) < share) * mask
    dx, dy = (0.3 * radius * s for s in sheet.shadow)
    sheet.paint(0.55 * there * sheet.cover(disc(x - 2 * dx, y - 2 * dy, radius)), sheet.colour((24, 32, 28), spread=4))
    crown = sheet.colour(*TREES)
    light = 1 - 0.35 * (x * dx + y * dy) / (radius * radius * 0.3)
    light = np.clip(light + 0.25 * (sheet.each(cells) - 0.5), 0.6, 1.5)
    sheet.paint(there * sheet.cover(disc(x, y, radius)), crown * light[:, None])


def _country(sheet: Sheet) -> None:
    """What rivers, lakes and roads lie in: meadows or parcels, with woods here and there."""
    _plain(sheet, *GRASS, contrast=0.5)
    _parcels(sheet, sheet.chance(0.4), furrows=0.2)
    woods = np.clip(6 * (sheet.noise(5) + sheet.uniform(-0.3, 0.05)), 0, 1)
    _trees(sheet, sheet.uniform(5, 8), jitter=0.4, share=sheet.uniform(0.6, 1), mask=woods)


def _course(sheet: Sheet, bend: float) -> Floats:
    """Distance from a line that winds through the scene; `bend` is its steepest slope."""
    turn = np.float32(2 * np.pi) / sheet.uniform(60, 150)
    slope = sheet.uniform(0, bend)
    middle = sheet.y.mean((1, 2), keepdims=True) + sheet.uniform(-18, 18)
    wave = np.sin(sheet.x * turn) + 0.3 * np.sin(2.3 * sheet.x * turn + 1)
    incline = slope * np.cos(sheet.x * turn)
    distance: Floats = (sheet.y - middle - slope / turn * wave) / np.sqrt(1 + incline**2)
    return distance


def _houses(
    sheet: Sheet, plot: Floats, *, share: Floats, fill: tuple[float, float], roofs: tuple[tuple[int, int, int], ...]
) -> None:
    """A pitched roof on this share of the plots, with its shadow."""
    cells = sheet.cells(plot, plot * sheet.uniform(0.8, 1.25))
    low, high = fill
    half_width = plot * (low + (high - low) * sheet.each(cells)) / 2
    half_height = plot * (low + (high - low) * sheet.each(cells)) / 2
    x = cells.x + 0.2 * plot * (1 - high) * (sheet.each(cells) - 0.5)
    y = cells.y + 0.2 * plot * (1 - high) * (sheet.each(cells) - 0.5)
    there = (sheet.each(cells) < share).astype(np.float32)
    dx, dy = (2.2 * s for s in sheet.shadow)
    night = sheet.colour((34, 34, 38), spread=4)
    sheet.paint(0.7 * there * sheet.cover(box(x - dx, y - dy, half_width, half_height)), night)
    kind = sheet.each(cells)[:, None]
    first, second = sheet.colour(*roofs), sheet.colour(*roofs)
    side = np.where(half_width > half_height, np.sign(y) * dy, np.sign(x) * dx) / 2.2
    roof = np.where(kind < 0.6, first, second) * (0.92 + 0.16 * sheet.each(cells) - 0.16 * side)[:, None]
    sheet.paint(there * sheet.cover(box(x, y, half_width, half_height)), roof)


def _streets(sheet: Sheet, across: Floats, along: Floats, width: Floats) -> None:
    """A grid of streets."""
    cells = sheet.cells(across, along)
    edge = np.minimum(across / 2 - np.abs(cells.x), along / 2 - np.abs(cells.y))
    sheet.paint(sheet.cover(edge - width / 2), sheet.colour(*ASPHALT))


def bare_land(sheet: Sheet) -> None:
    """Sand, gravel or soil with ripples, tracks and a few shrubs."""
    _plain(sheet, *SOIL, contrast=0.9)
    ripples = np.sin((sheet.x + 8 * sheet.noise(6)) * (2 * np.pi / sheet.uniform(8, 20)))
    sheet.shade(1 + sheet.uniform(0, 0.07) * ripples)
    track = np.abs(_course(sheet, 1.0)) - sheet.uniform(1, 3)
    sheet.paint(sheet.chance(0.5) * 0.6 * sheet.cover(track), sheet.colour((196, 178, 146)))
    _trees(sheet, sheet.uniform(7, 12), jitter=0.5, share=sheet.uniform(0, 0.2))


def dense_houses(sheet: Sheet) -> None:
    """Rows of houses wall to wall along streets."""
    _plain(sheet, *ASPHALT, *SOIL[:2], contrast=0.3)
    plot = sheet.uniform(11, 18)
    _trees(sheet, plot * 0.6, jitter=0.4, share=sheet.uniform(0, 0.35))
    _houses(sheet, plot, share=sheet.uniform(0.75, 1), fill=(0.55, 0.85), roofs=TILES)
    _streets(sheet, plot * 2, plot * 6, sheet.uniform(3, 6))


def fields(sheet: Sheet) -> None:
    """Cultivated parcels with furrows."""
    _plain(sheet, *SOIL, contrast=0.3)
    _parcels(sheet, np.ones_like(sheet.x), furrows=0.8)
    _trees(sheet, sheet.uniform(8, 14), jitter=0.5, share=sheet.uniform(0, 0.08))
    road = np.abs(_course(sheet, 0.15)) - sheet.uniform(0.8, 2)
    sheet.paint(sheet.chance(0.3) * sheet.cover(road), sheet.colour(*SOIL, *ASPHALT))


def forest(sheet: Sheet) -> None:
    """Crowns close together, with glades."""
    _plain(sheet, *TREES, *GRASS, contrast=0.5)
    glade = np.clip(5 * (sheet.noise(5) + sheet.uniform(0.05, 0.5)), 0, 1)
    pitch = sheet.uniform(5, 10)
    for _ in range(2):
        sheet.x, sheet.y = sheet.x + pitch * 0.5, sheet.y + pitch * 0.43
        _trees(sheet, pitch, jitter=0.45, share=sheet.uniform(0.65, 1), mask=glade)


def highway(sheet: Sheet) -> None:
    """Two carriageways with marks and cars, straight or in a wide bend."""
    _country(sheet)
    width = sheet.uniform(3.5, 8)
    away = _course(sheet, 0.35)
    sheet.paint(sheet.cover(np.abs(away) - width - 2), sheet.colour(*GRASS, *SOIL))
    sheet.paint(sheet.cover(np.abs(away) - width), sheet.colour(*ASPHALT))
    strip = sheet.uniform(0.4, 1.4)
    sheet.paint(sheet.chance(0.7) * sheet.cover(np.abs(away) - strip), sheet.colour(*GRASS, (200, 200, 192)))
    cells = sheet.cells(sheet.uniform(8, 20), width)
    lane = np.abs(np.abs(away) - width * 0.55)
    car = sheet.cover(np.maximum(np.abs(cells.x) - 2.4, lane - 1.1)) * (sheet.each(cells) < sheet.uniform(0.1, 0.6))
    paint = np.where(sheet.each(cells)[:, None] < 0.5, sheet.colour((220, 220, 220)), sheet.colour((60, 50, 56)))
    sheet.paint(car, paint)


def industrial(sheet: Sheet) -> None:
    """Large flat halls between yards."""
    _plain(sheet, *ASPHALT, *SOIL, contrast=0.3)
    plot = sheet.uniform(24, 46)
    _houses(sheet, plot, share=sheet.uniform(0.7, 1), fill=(0.5, 0.92), roofs=METAL + TILES[2:])
    _streets(sheet, plot, plot * 2, sheet.uniform(3, 7))
    cells = sheet.cells(sheet.uniform(3.4, 6), sheet.uniform(3, 5))
    goods = sheet.cover(box(cells.x, cells.y, sheet.uniform(0.8, 1.6), sheet.uniform(0.8, 1.2)))
    goods = goods * (sheet.each(cells) < sheet.uniform(0.0, 0.25))
    sheet.paint(goods, np.where(sheet.each(cells)[:, None] < 0.5, sheet.colour((212, 210, 204)), sheet.colour(*TILES)))


def lake(sheet: Sheet) -> None:
    """A pond, a lake or a stretch of shore."""
    _country(sheet)
    x = sheet.x - sheet.x.mean((1, 2), keepdims=True) + sheet.uniform(-30, 30)
    y = sheet.y - sheet.y.mean((1, 2), keepdims=True) + sheet.uniform(-30, 30)
    shore = disc(x, y * sheet.uniform(0.6, 1.5), sheet.uniform(20, 70)) + 40 * sheet.noise(5) + 14 * sheet.noise(9)
    sheet.paint(sheet.cover(shore - sheet.uniform(0, 5)), sheet.colour(*SOIL, *GRASS))
    water = sheet.colour(*WATER) * (1 + 0.2 * sheet.texture() + 0.03 * np.sin(sheet.x * 1.3))[:, None]
    sheet.paint(sheet.cover(shore), water)


def meadow(sheet: Sheet) -> None:
    """Grassland with bushes and paths."""
    _plain(sheet, *GRASS, *GRASS, (150, 138, 96), contrast=0.6)
    _parcels(sheet, 0.6 * sheet.chance(0.3), furrows=0.1)
    path = np.abs(_course(sheet, 1.0)) - sheet.uniform(0.6, 1.6)
    sheet.paint(sheet.chance(0.4) * 0.7 * sheet.cover(path), sheet.colour(*SOIL))
    _trees(sheet, sheet.uniform(7, 13), jitter=0.5, share=sheet.uniform(0, 0.25))


def orchard(sheet: Sheet) -> None:
    """Trees in rows, with gaps, in one or more parcels."""
    _plain(sheet, *GRASS, *SOIL, contrast=0.35)
    pitch = sheet.uniform(6.5, 10.5)
    cells = sheet.cells(sheet.uniform(40, 110), sheet.uniform(40, 110))
    planted = (sheet.each(cells) < 0.95).astype(np.float32)
    _trees(sheet, pitch, jitter=0.08, share=sheet.uniform(0.8, 1), mask=planted)


def river(sheet: Sheet) -> None:
    """Flowing water with banks."""
    _country(sheet)
    away = np.abs(_course(sheet, 1.1) + 5 * sheet.noise(6))
    width = sheet.uniform(2.5, 13)
    sheet.paint(sheet.cover(away - width - sheet.uniform(0, 5)), sheet.colour(*SOIL, *GRASS, *TREES))
    sheet.paint(sheet.cover(away - width), sheet.colour(*WATER) * (1 + 0.25 * sheet.texture())[:, None])


def solar_farm(sheet: Sheet) -> None:
    """Rows of dark panels."""
    _plain(sheet, *GRASS, *SOIL, contrast=0.35)
    row, block = sheet.uniform(5, 9), sheet.uniform(24, 70)
    cells = sheet.cells(block, row)
    plots = sheet.cells(block, row * 6)
    built = (sheet.each(plots) < sheet.uniform(0.75, 1)).astype(np.float32)
    half = row * sheet.uniform(0.2, 0.34)
    shape = functools.partial(box, cells.x, half_width=block / 2 - sheet.uniform(0.5, 3), half_height=half)
    sheet.paint(0.6 * built * sheet.cover(shape(cells.y - 1.2 * sheet.shadow[1])), sheet.colour((44, 44, 44)))
    sheet.paint(built * sheet.cover(shape(cells.y)), sheet.colour(*PANEL) * (0.9 + 0.2 * sheet.each(cells))[:, None])


def sparse_houses(sheet: Sheet) -> None:
    """Single houses in gardens."""
    _plain(sheet, *GRASS, *GRASS, *SOIL, contrast=0.45)
    plot = sheet.uniform(17, 32)
    _trees(sheet, sheet.uniform(6, 9), jitter=0.5, share=sheet.uniform(0.05, 0.5))
    _houses(sheet, plot, share=sheet.uniform(0.4, 0.9), fill=(0.3, 0.55), roofs=TILES[:2] + TILES[4:])
    _streets(sheet, plot * 2, plot * 5, sheet.uniform(2.5, 5))


SCENES: dict[str, Callable[[Sheet], None]] = {
    scene.__name__: scene
    for scene in (
        bare_land, dense_houses, fields, forest, highway, industrial,
        lake, meadow, orchard, river, solar_farm, sparse_houses,
    )
}  # fmt: skip


def finish(sheet: Sheet) -> Pixels:
    """A sheet as uint8 images: light, haze, clouds and the sensor."""
    result: Pixels = np.clip(sensed(sheet) + 0.5, 0, 255).astype(np.uint8)
    return result


def sensed(sheet: Sheet) -> Floats:
    """What a sensor measures of a sheet: float32 [B, C, S, S], in grey levels that may be below 0 or above 255."""
    sheet.shade(sheet.uniform(0.85, 1.12) + 0.2 * sheet.noise(3))
    sheet.canvas *= 1 + np.stack([sheet.uniform(-0.04, 0.04) for _ in range(sheet.bands)], axis=1)
    veil = sheet.colour((196, 204, 212), spread=12)
    clouds = np.clip(4 * (sheet.noise(4) - 0.18), 0, 0.8) * sheet.chance(0.08)
    sheet.paint(np.maximum(clouds, sheet.uniform(0, 0.18)), veil)
    softness = sheet.uniform(0, 0.5)[:, None]
    padded = np.pad(sheet.canvas, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    blurred = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
    image: Floats = sheet.canvas + softness * (blurred - sheet.canvas) + sheet.uniform(1, 5)[:, None] * sheet.grain
    return image


def draw(label: int, indices: npt.NDArray[np.int64], size: int = SIZE, seed: int = SEED) -> Pixels:
    """Draw scenes of one class.

    Args:
        label: the class, an index into `SCENES`.
        indices: number of each scene; a scene depends on (seed, number, class, size) alone.
        size: pixels of a side.
        seed: of the dataset.

    Returns:
        uint8 [B, 3, size, size].
    """
    sheet = Sheet(seed, indices, size, METRES)
    list(SCENES.values())[label](sheet)
    return finish(sheet)


def draw_all(size: int | None = None, *, seed: int = SEED, workers: int | None = None) -> Pixels:
    """Draw the whole dataset: uint8 [12 * 250, 3, size, size], class after class.

    Raises:
        InputError: fewer than 16 or more than 512 pixels are asked for.
    """
    size = checked_size("synthetic_scenes", size)
    images = np.empty((len(SCENES) * PER_CLASS, 3, size, size), np.uint8)
    fill(images, lambda label, indices: draw(label, indices, size, seed), workers)
    return images


def checked_size(name: str, size: int | None) -> int:
    """Pixels of a side of generated scenes; None: the usual ones. Raises InputError for what cannot be drawn."""
    if size is not None and not 16 <= size <= 512:
        raise InputError(f"{name}: input_size {size} is not allowed; scenes are generated with 16 to 512 pixels")
    return SIZE if size is None else size


def fill(
    images: npt.NDArray[Any], scenes: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[Any]], workers: int | None
) -> None:
    """Draw a dataset into an array [N, C, S, S], `PER_CLASS` images of each class, in threads.

    Args:
        images: to be filled.
        scenes: draws those of a class by its number and theirs.
        workers: threads; None takes the CPUs of this process.
    """
    size = images.shape[-1]
    step = max(1, CHUNK * SIZE * SIZE // (size * size))

    def work(start: int) -> None:
        label = start // PER_CLASS
        stop = min(start + step, (label + 1) * PER_CLASS)
        images[start:stop] = scenes(label, np.arange(start, stop))

    starts = [first + s for first in range(0, len(images), PER_CLASS) for s in range(0, PER_CLASS, step)]
    with ThreadPoolExecutor(workers or available_cpus(), thread_name_prefix="draw") as pool:
        list(pool.map(work, starts))


def listed(
    classes: tuple[str, ...], parameters: str, pixels: Callable[[int | None], npt.NDArray[Any]], **more: Any
) -> Listing:
    """The listing of a generated set with `PER_CLASS` scenes of each class.

    Args:
        classes: their names.
        parameters: all that the pixels depend on: its hash is the fingerprint.
        pixels: draws them.
        **more: other fields of the listing.
    """
    labels = np.repeat(np.arange(len(classes)), PER_CLASS)
    return Listing(
        where="generated in memory",
        classes=classes,
        names=tuple(f"{classes[label]}/{index:05d}" for index, label in enumerate(labels)),
        labels=labels.astype(np.int64),
        fixed=None,
        fingerprint=hashlib.sha256(parameters.encode()).hexdigest(),
        pixels=pixels,
        **more,
    )


def _open(_root: Path) -> Listing:
    classes = tuple(SCENES)
    return listed(classes, f"synthetic_scenes {VERSION} {SEED} {PER_CLASS} {METRES} {classes}", draw_all)


FAMILY = Family(
    name="synthetic_scenes",
    summary=(
        f"{len(SCENES) * PER_CLASS:,} synthetic aerial scenes, {SIZE}x{SIZE} or any input_size, {len(SCENES)} classes"
    ),
    source="generated by rssearch",
    open=_open,
    licence="generated by rssearch, under its licence (Apache-2.0).",
)
