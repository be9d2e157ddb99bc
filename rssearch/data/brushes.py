"""Vectorised drawing of many aerial scenes at once: coordinates on the ground, textures, and antialiased shapes.

A sheet holds B scenes. Distances are in metres on the ground, so that a scene keeps its content when it has
more pixels. Every scene has its own random numbers, so that it does not depend on the others of the sheet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32 throughout

UNIFORMS = 96  # single draws a scene may use
TABLES = 24  # 16x16 tables of draws, for the cells of a pattern and the knots of a texture
KNOTS = 16


@dataclass
class Cells:
    """A pattern of rectangles on the ground, each with draws of its own.

    Attributes:
        x: position from the cell's centre in metres, [B, S, S].
        y: likewise, across.
        key: flat index of each pixel's cell into a table, [B, S, S].
    """

    x: Floats
    y: Floats
    key: npt.NDArray[np.intp]


class Sheet:
    """B scenes in the making.

    Args:
        seed: of the dataset.
        indices: number of each scene in the dataset.
        size: pixels of a side, S.
        metres: smallest and largest side of a scene on the ground.
        rich: a scene may use so many times as many draws.
        bands: C, of the canvas; those of red, green and blue are three.
    """

    def __init__(
        self,
        seed: int,
        indices: npt.NDArray[np.int64],
        size: int,
        metres: tuple[float, float],
        rich: int = 1,
        bands: int = 3,
    ) -> None:
        B, S = len(indices), size
        self.bands = bands
        self._uniforms = np.empty((B, rich * UNIFORMS), np.float32)
        self._tables = np.empty((B, rich * TABLES, KNOTS, KNOTS), np.float32)
        self.grain = np.empty((B, bands, S, S), np.float32)
        for row, index in enumerate(indices):
            rng = np.random.default_rng([seed, int(index)])
            rng.random(out=self._uniforms[row], dtype=np.float32)
            rng.random(out=self._tables[row], dtype=np.float32)
            rng.standard_normal(out=self.grain[row], dtype=np.float32)
        self._uniform = self._table = 0
        self.size = size
        self.canvas = np.zeros((B, bands, S, S), np.float32)
        side = self.uniform(*metres)
        self.pixel = side / np.float32(S)
        axis = (np.arange(S, dtype=np.float32) + 0.5) / S - 0.5
        east, north = axis[None, None, :] * side, axis[None, :, None] * side
        angle = self.uniform(0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        self.x = east * c - north * s + self.uniform(0, 400)
        self.y = east * s + north * c + self.uniform(0, 400)
        sun = self.uniform(0, 2 * np.pi)
        self.shadow = np.cos(sun), np.sin(sun)

    def uniform(self, low: float, high: float) -> Floats:
        """One draw for each scene: [B, 1, 1]."""
        column = self._uniforms[:, self._uniform]
        self._uniform += 1
        return (low + (high - low) * column)[:, None, None]

    def chance(self, probability: float) -> Floats:
        """1 in this share of the scenes, else 0: [B, 1, 1]."""
        return (self.uniform(0, 1) < probability).astype(np.float32)

    def colour(self, *choices: tuple[int, int, int], spread: float = 8) -> Floats:
        """One of the colours (red, green, blue) for each scene in all bands, somewhat changed: [B, C, 1, 1]."""
        pick = (self.uniform(0, len(choices) - 1e-3)).astype(np.int64)[:, 0, 0]
        colour = np.array([self.spectrum(choice) for choice in choices], np.float32)[pick][:, :, None, None]
        common = self.uniform(-spread, spread)[:, None]
        own = np.stack([self.uniform(-spread / 2, spread / 2) for _ in range(self.bands)], axis=1)
        return colour + common + own

    def spectrum(self, colour: tuple[int, int, int]) -> tuple[float, ...]:
        """What a colour (red, green, blue) is in each band: here itself."""
        return colour

    def _next_table(self) -> Floats:
        table = self._tables[:, self._table]
        self._table += 1
        return table

    def noise(self, knots: int) -> Floats:
        """Smooth noise about 0, with deviation near 0.3, that changes over 1 / `knots` of the scene: [B, S, S]."""
        grid = self._next_table()[:, :knots, :knots] - np.float32(0.5)
        position = np.linspace(0, knots - 1, self.size, dtype=np.float32)
        ramp = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(knots, dtype=np.float32)))
        weights = (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
        field: Floats = weights @ grid @ weights.T
        return field

    def texture(self) -> Floats:
        """Noise of three scales, in about [-0.6, 0.6]: [B, S, S]."""
        field: Floats = 0.5 * self.noise(4) + 0.35 * self.noise(9) + 0.3 * self.noise(16)
        return field

    def cells(self, width: Floats, height: Floats, shift: float = 0.0) -> Cells:
        """Divide the ground into rectangles of `width` x `height` metres."""
        x, y = self.x / width + np.float32(shift), self.y / height + np.float32(shift)
        column, row = np.floor(x), np.floor(y)
        key = (row.astype(np.intp) % KNOTS) * KNOTS + column.astype(np.intp) % KNOTS
        key += np.arange(len(self.x), dtype=np.intp)[:, None, None] * (KNOTS * KNOTS)
        return Cells((x - column - 0.5) * width, (y - row - 0.5) * height, key)

    def each(self, cells: Cells) -> Floats:
        """A draw from [0, 1) for each cell, at its pixels: [B, S, S]."""
        return np.ascontiguousarray(self._next_table()).reshape(-1).take(cells.key)

    def cover(self, distance: Floats) -> Floats:
        """How much of each pixel a shape covers, from the signed distance to its edge (negative: inside)."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def paint(self, mask: Floats, colour: Floats) -> None:
        """Lay a colour [B, C, 1, 1] or [B, C, S, S] over the canvas where the mask [B, S, S] says so."""
        self.canvas += mask[:, None] * (colour - self.canvas)

    def shade(self, factor: Floats) -> None:
        """Multiply the canvas by a factor [B, S, S] or [B, 1, 1]."""
        self.canvas *= factor[:, None]


def disc(x: Floats, y: Floats, radius: Floats) -> Floats:
    """Signed distance to a circle."""
    return np.sqrt(x * x + y * y) - radius


def box(x: Floats, y: Floats, half_width: Floats, half_height: Floats) -> Floats:
    """Signed distance to a rectangle, exact inside and along its sides."""
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)
