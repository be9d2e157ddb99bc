"""Drawn aerial scenes with masks of their buildings: a segmentation dataset that needs no download.

Roofs of many colours and sizes stand along roads, between gardens, fields and woods. Car parks, terraces and pools have
the colours of roofs, so that shapes and shadows must tell, and crowns of trees hide parts of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssearch.data.brushes import Floats, Sheet, box, disc
from rssearch.data.family import Family
from rssearch.data.scenes import RawScene, SceneListing
from rssearch.data.synthetic import ASPHALT, CROPS, GRASS, METAL, SOIL, TILES, TREES, finish
from rssearch.imaging.pixels import Pixels

VERSION = 1  # raise it whenever a scene changes: results on other scenes must not share a cache
SEED = 0
SCENES = 24
SIZE = 128
METRES = (120.0, 165.0)
CLASSES = ("background", "building")
ROOFS = (*TILES, *METAL, (196, 184, 164), (92, 102, 92), (112, 120, 136))


def _ground(sheet: Sheet) -> None:
    """Gardens and open land, with parcels here and there."""
    sheet.canvas[:] = sheet.colour(*GRASS, *GRASS, *SOIL)
    sheet.shade(1 + 0.5 * sheet.texture())
    parcels = sheet.cells(sheet.uniform(34, 60), sheet.uniform(28, 50))
    tilled = (sheet.each(parcels) < sheet.uniform(0.1, 0.5)).astype(np.float32)
    crop = np.where(sheet.each(parcels)[:, None] < 0.5, sheet.colour(*CROPS, spread=14), sheet.colour(*SOIL, spread=14))
    along = np.where(sheet.each(parcels) < 0.5, sheet.x, sheet.y)
    furrows = 0.12 * np.sin(along * (2 * np.pi / sheet.uniform(4.5, 9)))
    sheet.paint(tilled, crop * (1 + furrows + 0.2 * sheet.texture())[:, None])


def _roads(sheet: Sheet, across: Floats, along: Floats) -> None:
    """A grid of streets with cars, and a car park in some blocks."""
    cells = sheet.cells(across, along)
    asphalt = sheet.colour(*ASPHALT) * (1 + 0.08 * sheet.texture())[:, None]
    lot = (sheet.each(cells) < sheet.uniform(0, 0.25)).astype(np.float32)
    sheet.paint(lot * sheet.cover(box(cells.x, cells.y, across * 0.3, along * 0.25)), asphalt)
    edge = np.minimum(across / 2 - np.abs(cells.x), along / 2 - np.abs(cells.y))
    width = sheet.uniform(2.5, 4.5)
    sheet.paint(sheet.cover(edge - width), asphalt)
    spots = sheet.cells(sheet.uniform(6, 9), sheet.uniform(3, 4))
    car = (sheet.each(spots) < sheet.uniform(0.05, 0.35)) * np.maximum(lot, sheet.cover(edge - width + 0.5))
    paint = np.where(sheet.each(spots)[:, None] < 0.5, sheet.colour((220, 220, 220)), sheet.colour((70, 50, 56)))
    inside = sheet.cover(box(cells.x, cells.y, across * 0.28, along * 0.23)) + sheet.cover(edge - width + 1.2)
    body = sheet.cover(box(spots.x, spots.y, np.full_like(spots.x, 2.2), np.ones_like(spots.x)))
    sheet.paint(car * np.minimum(inside, 1) * body, paint)


def _yards(sheet: Sheet, plot: Floats) -> None:
    """Round places, terraces and pools in the colours of roofs, but flat: neither ridge nor shadow."""
    cells = sheet.cells(plot * sheet.uniform(0.8, 1.3), plot, shift=0.5)
    there = (sheet.each(cells) < sheet.uniform(0.1, 0.45)).astype(np.float32)
    kind = sheet.each(cells)
    size = plot * (0.16 + 0.2 * sheet.each(cells))
    shape = np.where(kind < 0.5, disc(cells.x, cells.y, size), box(cells.x, cells.y, size * 1.2, size * 0.4))
    pick = sheet.each(cells)[:, None]
    first, second, pool = sheet.colour(*ROOFS), sheet.colour(*ROOFS), sheet.colour((92, 160, 186))
    colour = np.where(pick < 0.45, first, np.where(pick < 0.85, second, pool))
    sheet.paint(there * sheet.cover(shape), colour * (0.95 + 0.15 * sheet.texture())[:, None])


def _buildings(sheet: Sheet, plot: Floats, across: Floats, along: Floats) -> Floats:
    """Houses of one or two wings on this share of the plots, away from the streets; returns what they cover."""
    cells, blocks = sheet.cells(plot, plot), sheet.cells(across, along)
    half_width = plot * (0.24 + 0.17 * sheet.each(cells))
    half_height = plot * (0.2 + 0.2 * sheet.each(cells))
    x = cells.x + 0.12 * plot * (sheet.each(cells) - 0.5)
    y = cells.y + 0.12 * plot * (sheet.each(cells) - 0.5)
    wing = np.where(sheet.each(cells) < 0.35, np.float32(0.45), np.float32(1))  # of the half that stands back

    def shape(x: Floats, y: Floats) -> Floats:
        back = np.maximum(np.maximum(-half_width - x, x - half_width * (2 * wing - 1)), np.abs(y) - half_height)
        front = np.maximum(np.abs(x) - half_width, np.maximum(-half_height - y, y))
        distance: Floats = np.minimum(back, front)
        return distance

    # A house is drawn whole or not at all: its plot's centre decides whether it keeps clear of the streets.
    gap = np.minimum(across / 2 - np.abs(blocks.x - cells.x), along / 2 - np.abs(blocks.y - cells.y))
    there = ((sheet.each(cells) < sheet.uniform(0.45, 0.85)) & (gap > 0.45 * plot)).astype(np.float32)
    height = 2 + 3 * sheet.each(cells)
    dx, dy = (height * s for s in sheet.shadow)
    shadow = np.maximum(sheet.cover(shape(x - dx, y - dy)), sheet.cover(shape(x - dx / 2, y - dy / 2)))
    sheet.paint(0.65 * there * shadow, sheet.colour((34, 36, 42), spread=4))
    kind = sheet.each(cells)[:, None]
    first, second, third = (sheet.colour(*ROOFS) for _ in range(3))
    side = np.where(half_width > half_height, np.sign(y) * sheet.shadow[1], np.sign(x) * sheet.shadow[0])
    pitch = 0.1 * (sheet.each(cells) < 0.7)  # the others are flat
    roof = np.where(kind < 0.4, first, np.where(kind < 0.75, second, third))
    roof = roof * (0.9 + 0.2 * sheet.each(cells) - pitch * side + 0.06 * sheet.texture())[:, None]
    cover: Floats = there * sheet.cover(shape(x, y))
    sheet.paint(cover, roof)
    return cover


def _crowns(sheet: Sheet) -> Floats:
    """Trees with shadows, in clumps; returns what they cover."""
    pitch = sheet.uniform(5.5, 9)
    cells = sheet.cells(pitch, pitch)
    radius = pitch * (0.24 + 0.16 * sheet.each(cells))
    x = cells.x + 0.4 * pitch * (sheet.each(cells) - 0.5)
    y = cells.y + 0.4 * pitch * (sheet.each(cells) - 0.5)
    clumps = np.clip(6 * (sheet.noise(6) + sheet.uniform(-0.22, 0.02)), 0, 1) > 0.5
    there = ((sheet.each(cells) < 0.8) & clumps).astype(np.float32)
    dx, dy = (0.5 * radius * s for s in sheet.shadow)
    sheet.paint(0.5 * there * sheet.cover(disc(x - dx, y - dy, radius)), sheet.colour((24, 32, 28), spread=4))
    light = np.clip(1 - 0.9 * (x * dx + y * dy) / (radius * radius), 0.6, 1.5)
    cover: Floats = there * sheet.cover(disc(x, y, radius))
    sheet.paint(cover, sheet.colour(*TREES) * light[:, None])
    return cover


def draw(index: int, size: int = SIZE, seed: int = SEED) -> tuple[Pixels, Pixels]:
    """Draw one scene.

    Args:
        index: its number; a scene depends on (seed, number, size) alone.
        size: pixels of a side.
        seed: of the dataset.

    Returns:
        The image uint8 [size, size, 3] and its mask uint8 [size, size], 1 where a building is seen.
    """
    sheet = Sheet(seed, np.array([index]), size, METRES, rich=2)
    plot = sheet.uniform(13, 26)
    across, along = plot * 2, plot * 4
    _ground(sheet)
    _yards(sheet, plot)
    _roads(sheet, across, along)
    built = _buildings(sheet, plot, across, along)
    seen = built * (1 - _crowns(sheet))
    return np.ascontiguousarray(finish(sheet)[0].transpose(1, 2, 0)), (seen[0] > 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Drawings:
    """Scenes that are generated when they are read."""

    count: int = SCENES

    def __len__(self) -> int:
        return self.count

    def size(self, index: int) -> tuple[int, int]:  # noqa: ARG002 - all have the same
        """Height and width."""
        return SIZE, SIZE

    def read(self, index: int) -> RawScene:
        """Draw a scene."""
        return RawScene(*draw(index), str(index))

    def stamp(self) -> str:
        """The version of the drawing."""
        return str(VERSION)


def _open(_root: Path) -> SceneListing:
    parameters = f"synthetic_buildings {VERSION} {SEED} {SCENES} {SIZE} {METRES} {CLASSES}"
    names = tuple(f"{index:05d}" for index in range(SCENES))
    return SceneListing(
        where="generated in memory",
        classes=CLASSES,
        names=names,
        groups=names,
        fingerprint=hashlib.sha256(parameters.encode()).hexdigest(),
        source=Drawings(),
    )


FAMILY = Family(
    name="synthetic_buildings",
    summary=f"{SCENES} synthetic aerial scenes, {SIZE}x{SIZE}, with masks: background, building",
    source="generated by rssearch",
    open=_open,
    licence="generated by rssearch, under its licence (Apache-2.0).",
    task="segmentation",
)
