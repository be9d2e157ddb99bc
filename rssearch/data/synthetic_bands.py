"""Drawn scenes as a multispectral sensor sees them: a dataset of six bands that needs no download.

The scenes are those of `rssearch.data.synthetic`, drawn by the same code. What is drawn in a colour has a spectrum, by
what it is: plants are bright in near infrared, water is dark there, soil is bright in short-wave infrared. Three pairs
of classes are drawn alike in blue, green and red, and only the other bands tell them apart: stressed from healthy
forests (the "green attack" of bark beetles), dry from fresh meadows, and irrigated from dry fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Scale
from rssearch.data import synthetic as scenes
from rssearch.data.brushes import Sheet
from rssearch.data.family import Family
from rssearch.data.listing import Listing

__all__ = ["BANDS", "CLASSES", "FAMILY", "draw", "draw_all"]

Reflectance = npt.NDArray[np.uint16]

VERSION = 1  # raise it whenever a scene changes: results on other scenes must not share a cache
SEED = 1
BANDS = (
    "B02",
    "B03",
    "B04",
    "B05",
    "B08",
    "B11",
)  # Sentinel-2: blue, green, red, red edge, near and short-wave infrared
LEVEL = 10  # of reflectance x 10,000 for a grey level: 255 are 0.255, about what is white in its true-colour images
VARIETY = 0.12  # relative, of each infrared band from scene to scene

# Grey levels of the red edge, near and short-wave infrared of what a scene is made of.
INFRARED = {
    "grass": (120.0, 330.0, 190.0),
    "dry grass": (130.0, 260.0, 260.0),
    "crop": (125.0, 320.0, 200.0),
    "irrigated crop": (115.0, 340.0, 120.0),
    "tree": (85.0, 280.0, 120.0),
    "stressed tree": (95.0, 210.0, 170.0),
    "straw": (170.0, 240.0, 290.0),
    "wet straw": (150.0, 220.0, 190.0),
    "soil": (180.0, 230.0, 320.0),
    "water": (30.0, 18.0, 10.0),
    "asphalt": (115.0, 125.0, 140.0),
    "tile": (150.0, 175.0, 210.0),
    "metal": (180.0, 190.0, 200.0),
    "panel": (48.0, 52.0, 60.0),
    "shadow": (30.0, 45.0, 20.0),
    "cloud": (200.0, 195.0, 150.0),
}
GREEN_CROPS = ((78, 108, 52), (98, 120, 62))
MATERIALS: dict[tuple[int, int, int], str] = {
    colour: material
    for material, colours in (
        ("soil", ((196, 178, 146), *scenes.SOIL)),
        ("grass", scenes.GRASS),
        ("straw", ((150, 138, 96), *scenes.CROPS)),
        ("crop", GREEN_CROPS),
        ("tree", scenes.TREES),
        ("water", scenes.WATER),
        ("asphalt", scenes.ASPHALT),
        ("tile", scenes.TILES),
        ("metal", scenes.METAL),
        ("panel", scenes.PANEL),
        ("shadow", ((24, 32, 28), (34, 34, 38), (44, 44, 44))),
        ("cloud", ((196, 204, 212),)),
    )
    for colour in colours
}


class Kind(NamedTuple):
    """A class: how its scenes are drawn, and what stands in them for other materials."""

    scene: Callable[[Sheet], None]
    instead: Mapping[str, str] = {}


CLASSES: dict[str, Kind] = {
    "bare_land": Kind(scenes.bare_land),
    "dry_meadow": Kind(scenes.meadow, {"grass": "dry grass"}),
    "fields": Kind(scenes.fields),
    "forest": Kind(scenes.forest),
    "highway": Kind(scenes.highway),
    "industrial": Kind(scenes.industrial),
    "irrigated_fields": Kind(scenes.fields, {"crop": "irrigated crop", "straw": "wet straw"}),
    "lake": Kind(scenes.lake),
    "meadow": Kind(scenes.meadow),
    "river": Kind(scenes.river),
    "sparse_houses": Kind(scenes.sparse_houses),
    "stressed_forest": Kind(scenes.forest, {"tree": "stressed tree"}),
}


class SpectralSheet(Sheet):
    """Scenes with a canvas of `BANDS`; `instead` names the materials that stand for others."""

    def __init__(self, indices: npt.NDArray[np.int64], size: int, seed: int, instead: Mapping[str, str]) -> None:
        super().__init__(seed, indices, size, scenes.METRES, rich=2, bands=len(BANDS))
        self.instead = instead

    def spectrum(self, colour: tuple[int, int, int]) -> tuple[float, ...]:
        """A colour in each band: itself in the visible ones, and what its material is in the others."""
        red, green, blue = colour
        material = MATERIALS.get(colour, "metal")  # the paint of cars and marks, and stored goods
        return blue, green, red, *INFRARED[self.instead.get(material, material)]


def draw(label: int, indices: npt.NDArray[np.int64], size: int = scenes.SIZE, seed: int = SEED) -> Reflectance:
    """Draw scenes of one class.

    Args:
        label: the class, an index into `CLASSES`.
        indices: number of each scene; a scene depends on (seed, number, class, size) alone.
        size: pixels of a side.
        seed: of the dataset.

    Returns:
        uint16 [B, 6, size, size], reflectance x 10,000 in each of `BANDS`.
    """
    kind = list(CLASSES.values())[label]
    sheet = SpectralSheet(indices, size, seed, kind.instead)
    kind.scene(sheet)
    infrared = [sheet.uniform(-VARIETY, VARIETY) for _ in BANDS[3:]]
    sheet.canvas[:, 3:] *= 1 + np.stack(infrared, axis=1)
    result: Reflectance = np.clip(LEVEL * scenes.sensed(sheet) + 0.5, 0, 10_000).astype(np.uint16)
    return result


def draw_all(size: int | None = None, *, seed: int = SEED, workers: int | None = None) -> Reflectance:
    """Draw the whole dataset: uint16 [12 * 250, 6, size, size], class after class.

    Raises:
        InputError: fewer than 16 or more than 512 pixels are asked for.
    """
    size = scenes.checked_size(FAMILY.name, size)
    images = np.empty((len(CLASSES) * scenes.PER_CLASS, len(BANDS), size, size), np.uint16)
    scenes.fill(images, lambda label, indices: draw(label, indices, size, seed), workers)
    return images


def _open(_root: Path) -> Listing:
    classes = tuple(CLASSES)
    parameters = f"{FAMILY.name} {VERSION} {SEED} {scenes.PER_CLASS} {scenes.METRES} {classes} {BANDS}"
    return scenes.listed(classes, parameters, draw_all, bands=BANDS, dtype="uint16", scale=Scale(divide=10_000))


FAMILY = Family(
    name="synthetic_bands",
    summary=(
        f"{len(CLASSES) * scenes.PER_CLASS:,} synthetic scenes of {len(BANDS)} bands of 16 bits, "
        f"{scenes.SIZE}x{scenes.SIZE} or any input_size, {len(CLASSES)} classes"
    ),
    source="generated by rssearch",
    open=_open,
    licence="generated by rssearch, under its licence (Apache-2.0).",
)
