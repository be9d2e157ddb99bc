"""Classes of a large scene, tile by tile: a coarse raster of a pixel for each, and their footprints as GeoJSON."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.bundle.footprints import footprints
from rssearch.bundle.predict import Network, logits_of, softmax
from rssearch.bundle.scenes import MEMORY, Source, chances_content, mask_content, source
from rssearch.errors import InputError, cut
from rssearch.imaging.georaster import Place
from rssearch.imaging.geowrite import written
from rssearch.imaging.pixels import Floats, scale
from rssearch.imaging.tiling import axis

__all__ = ["FOOTPRINTS", "RASTER", "Found", "classify", "named"]

BATCH = 32  # tiles that go through the network together
RASTER, FOOTPRINTS, CHANCES = ".grid.tif", ".grid.geojson", ".grid.probabilities.tif"  # how names of files end


class Found(NamedTuple):
    """What was found in a scene.

    Attributes:
        classes: the share of each class in the tiles with data.
        nodata: the share of the tiles without data in all.
        tiles: how many there are.
        footprints: whether they could be written: the scene has a CRS.
    """

    classes: dict[str, float]
    nodata: float
    tiles: int
    footprints: bool


class _Row(NamedTuple):
    """Tiles beside one another: probabilities float32 [K, W], and the share of each that has data, float32 [W]."""

    chances: Floats
    valid: Floats


def classify(
    network: Network, path: str | Path, stem: Path, *, tile: int | None = None, probabilities: bool = False
) -> Found:
    """Classify a scene in tiles that lie side by side; those at its right and lower border are continued by reflection.

    Writes ``STEM.grid.tif``, a pixel for each tile: its class, and the largest value of the type where no pixel of the
    tile has data. ``STEM.grid.geojson`` has the footprints of the tiles with data, if the scene has a CRS.

    Args:
        network: for classification.
        path: the scene.
        stem: where files go; they are replaced.
        tile: the side of a tile in pixels of the scene, which is scaled to the network's input; None: as large as that.
        probabilities: of every class: ``STEM.grid.probabilities.tif``, a band for each, and in the footprints.

    Raises:
        InputError: the scene cannot be read, its place is given by control points, or a file cannot be written.
    """
    _, height, width = network.about["input_shape"]
    if tile is not None and height != width:
        raise InputError(f"--tile: this network takes images of {width}x{height}, which tiles cannot be scaled to")
    size = (height, width) if tile is None else (tile, tile)
    counts = np.zeros(len(network.classes) + 1, dtype=np.int64)
    with source(network, path) as scene, ExitStack() as stack:
        rows, columns = (-(-length // side) for length, side in zip(scene.shape, size, strict=True))
        place = _coarse(scene.place, size, str(path))
        content = mask_content(network, (rows, columns))
        into = stack.enter_context(written(named(stem, RASTER), place, content))
        chances = shapes = None
        if probabilities:
            about = chances_content(network, (rows, columns))
            chances = stack.enter_context(written(named(stem, CHANCES), place, about))
        if scene.place is not None and scene.place.crs is not None:
            shapes = stack.enter_context(footprints(named(stem, FOOTPRINTS), scene.place, scene.shape, size))
        for number in range(rows):
            row = _row(network, scene, size, number)
            labels = np.where(row.valid > 0, row.chances.argmax(0), len(network.classes))
            counts += np.bincount(labels, minlength=len(counts))
            values = np.where(row.valid > 0, labels, int(content.nodata)).astype(content.dtype)
            into.add(values[None, None], 0)
            if chances is not None:
                chances.add(np.where(row.valid > 0, row.chances, np.float32(np.nan))[:, None], 0)
            if shapes is not None:
                shapes(number, _properties(network, row, number, every=probabilities))
    total = max(1, int(counts[:-1].sum()))
    shares = dict(zip(network.classes, (counts[:-1] / total).tolist(), strict=True))
    return Found(shares, float(counts[-1] / counts.sum()), int(counts.sum()), shapes is not None)


def named(stem: Path, ending: str) -> Path:
    """A file beside others of the same scene."""
    return stem.with_name(stem.name + ending)


def _properties(network: Network, row: _Row, number: int, *, every: bool) -> dict[int, dict[str, Any]]:
    """What the footprints of a row's tiles with data say."""
    found = {}
    for column in np.flatnonzero(row.valid > 0).tolist():
        chances = row.chances[:, column].round(6).tolist()
        best = int(row.chances[:, column].argmax())
        found[column] = {
            "class": network.classes[best],
            "index": best,
            "probability": chances[best],
            "row": number,
            "column": column,
            "with_data": round(float(row.valid[column]), 6),
            **({"probabilities": dict(zip(network.classes, chances, strict=True))} if every else {}),
        }
    return found


def _coarse(place: Place | None, size: tuple[int, int], name: str) -> Place | None:
    """The place of a raster whose pixels are tiles."""
    if place is None:
        return None
    if place.gcps[0] or (place.rpcs is not None and place.crs is None):
        raise InputError(
            f"{cut(name, 300)}: its place is given by control points or RPCs, which tiles have none of; warp it first: "
            "gdalwarp"
        )
    (height, width), (a, b, c, d, e, f) = size, place.transform[:6]
    return replace(
        place, transform=type(place.transform)(a * width, b * height, c, d * width, e * height, f), rpcs=None
    )


def _row(network: Network, scene: Source, size: tuple[int, int], number: int) -> _Row:
    """The tiles of a row, read some at a time."""
    (H, W), (height, width) = scene.shape, size
    down = slice(number * height, min(H, (number + 1) * height))
    together = max(1, MEMORY // (8 * network.bands.count * height * width))
    chances, valid = [], []
    for begin in range(0, W, together * width):
        columns = slice(begin, min(W, begin + together * width))
        window = scene.read(down, columns)
        tiles = []
        for first in range(0, columns.stop - begin, width):
            last = min(first + width, columns.stop - begin)
            pixels = window.pixels[:, :, first:last]
            lost = 0 if window.lost is None else np.count_nonzero(window.lost[:, first:last])
            valid.append((pixels.shape[1] * pixels.shape[2] - lost) / (height * width))
            tiles.append(_fitted(pixels, size, network.about["input_shape"][1:]))
        for start in range(0, len(tiles), BATCH):
            chances.append(softmax(logits_of(network, np.stack(tiles[start : start + BATCH]))))
    return _Row(np.concatenate(chances).T, np.array(valid, np.float32))


def _fitted(pixels: npt.NDArray[Any], size: tuple[int, int], wanted: list[int]) -> npt.NDArray[Any]:
    """A tile as the network takes it: whole, and scaled as an image is."""
    down, across = (axis(length, side, 0).positions for length, side in zip(pixels.shape[1:], size, strict=True))
    if pixels.shape[1:] != size:
        pixels = pixels[:, down[:, None], across]
    if list(size) == wanted:
        return pixels
    if pixels.dtype == np.uint8 and len(pixels) == 3:
        picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        return np.asarray(scale(picture, wanted[0])).transpose(2, 0, 1)
    return np.stack([np.asarray(scale(Image.fromarray(band.astype(np.float32)), wanted[0])) for band in pixels])
