"""Where the tiles of a scene are, as GeoJSON: RFC 7946, so longitude and latitude in WGS 84."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError
from rssearch.imaging.georaster import Place, gdal, reason
from rssearch.storage import scratch

__all__ = ["Footprints", "footprints"]

DIGITS = 8  # of a coordinate in degrees: a millimetre
Footprints = Callable[[int, Mapping[int, Mapping[str, Any]]], None]


@contextmanager
def footprints(target: Path, place: Place, shape: tuple[int, int], size: tuple[int, int]) -> Iterator[Footprints]:
    """Write the footprints of tiles, a row of them at a time. The file appears whole, or not at all.

    Args:
        target: the file, which is replaced.
        place: of the scene; it has a CRS.
        shape: height and width of the scene; tiles are cut at its borders.
        size: height and width of a tile.

    Yields:
        a function that takes the number of a row, and the properties of its tiles by their column.
    """
    with scratch.folder(f".{target.name}.", target.parent) as folder, gdal() as rasterio:
        draft = folder / "draft.geojson"
        with draft.open("w", encoding="utf-8") as file:
            file.write('{"type": "FeatureCollection", "features": [')
            separator = "\n"

            def write(number: int, tiles: Mapping[int, Mapping[str, Any]]) -> None:
                nonlocal separator
                rings = _rings(rasterio, place, shape, size, number) if tiles else []
                for column, properties in tiles.items():
                    feature = {"type": "Feature", "geometry": _geometry(rings[column]), "properties": properties}
                    file.write(separator + json.dumps(feature, ensure_ascii=False))
                    separator = ",\n"

            yield write
            file.write("\n]}\n")
        os.replace(draft, target)


def _rings(
    rasterio: Any, place: Place, shape: tuple[int, int], size: tuple[int, int], number: int
) -> list[npt.NDArray[np.float64]]:
    """The corners [4, 2] of the tiles of a row, as longitude and latitude; they are cut at the borders of the scene."""
    H, W = shape
    columns = np.array([*range(0, W, size[1]), W], dtype=np.float64)
    lines = []
    for row in (number * size[0], min(H, (number + 1) * size[0])):
        a, b, c, d, e, f = place.transform[:6]
        x, y = a * columns + b * row + c, d * columns + e * row + f
        try:
            lines.append(np.array(rasterio.warp.transform(place.crs, "EPSG:4326", x.tolist(), y.tolist())[:2]).T)
        except Exception as error:
            raise InputError(f"the tiles have no longitude and latitude: {reason(error)}") from error
    if not np.isfinite(lines).all():
        raise InputError("the tiles have no longitude and latitude: they are outside of the area of the scene's CRS")
    upper, lower = lines
    pairs = range(len(columns) - 1)
    return [np.array([upper[left], lower[left], lower[left + 1], upper[left + 1]]) for left in pairs]


def _geometry(ring: npt.NDArray[np.float64]) -> dict[str, Any]:
    """A tile as RFC 7946 wants it: counterclockwise, and cut at the antimeridian."""
    if np.ptp(ring[:, 0]) <= 180:
        return {"type": "Polygon", "coordinates": [_closed(ring)]}
    eastern = ring + np.where(ring[:, :1] < 0, [360.0, 0.0], 0.0)
    parts = [_clipped(eastern, 1), _clipped(eastern, -1) - [360.0, 0.0]]
    return {"type": "MultiPolygon", "coordinates": [[_closed(part)] for part in parts]}


def _clipped(ring: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """The part of a convex ring before (1) or behind (-1) the antimeridian, which it crosses."""
    found = []
    for (x, y), (u, v) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if side * (180 - x) >= 0:
            found.append((x, y))
        if (x - 180) * (u - 180) < 0:
            found.append((180.0, y + (v - y) * (180 - x) / (u - x)))
    return np.array(found)


def _closed(corners: npt.NDArray[np.float64]) -> list[list[float]]:
    """A closed ring, counterclockwise."""
    x, y = corners.T
    turns = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    ordered = (corners if turns >= 0 else corners[::-1]).round(DIGITS).tolist()
    return [*ordered, ordered[0]]
