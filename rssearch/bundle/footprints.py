"""Where the tiles of a scene are, as GeoJSON: RFC 7946, so longitude and latitude in WGS 84."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
                corners = _corners(rasterio, place, shape, size, number) if tiles else []
                for column, properties in tiles.items():
                    geometry = _geometry(rasterio, place, corners[column])
                    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
                    file.write(separator + json.dumps(feature, ensure_ascii=False))
                    separator = ",\n"

            yield write
            file.write("\n]}\n")
        os.replace(draft, target)


class _Corners(NamedTuple):
    """A tile: its ring in the scene's coordinates, and in longitude and latitude; each [4, 2]."""

    own: npt.NDArray[np.float64]
    wgs84: npt.NDArray[np.float64]


def _corners(rasterio: Any, place: Place, shape: tuple[int, int], size: tuple[int, int], number: int) -> list[_Corners]:
    """The corners of the tiles of a row, cut at the borders of the scene."""
    H, W = shape
    rows = [min(H, (number + step) * size[0]) for step in (0, 1)]
    columns = np.array([*range(0, W, size[1]), W], dtype=np.float64)
    own, wgs84 = [], []
    for row in rows:
        x, y = place.transform * (columns, np.full(len(columns), float(row)))
        own.append(np.stack([x, y], 1))
        try:
            found = rasterio.warp.transform(place.crs, "EPSG:4326", x.tolist(), y.tolist())
        except Exception as error:
            raise InputError(f"the tiles have no longitude and latitude: {reason(error)}") from error
        wgs84.append(np.array(found[:2]).T)
    if not np.isfinite(wgs84).all():
        raise InputError("the tiles have no longitude and latitude: they are outside of the area of the scene's CRS")

    def ring(lines: list[npt.NDArray[np.float64]], column: int) -> npt.NDArray[np.float64]:
        (upper, lower), following = lines, column + 1
        return np.array([upper[column], lower[column], lower[following], upper[following]])

    return [_Corners(ring(own, column), ring(wgs84, column)) for column in range(len(columns) - 1)]


def _geometry(rasterio: Any, place: Place, corners: _Corners) -> dict[str, Any]:
    """A tile as RFC 7946 wants it: counterclockwise, and cut at the antimeridian."""
    if np.ptp(corners.wgs84[:, 0]) <= 180:
        return {"type": "Polygon", "coordinates": [_ring(corners.wgs84)]}
    polygon = {"type": "Polygon", "coordinates": [[*corners.own.tolist(), corners.own[0].tolist()]]}
    found = rasterio.warp.transform_geom(place.crs, "EPSG:4326", polygon, antimeridian_cutting=True)
    parts = [found["coordinates"]] if found["type"] == "Polygon" else found["coordinates"]
    rings = [[_ring(np.array(part[0][:-1])[:, :2])] for part in parts]
    return {"type": "MultiPolygon", "coordinates": rings}


def _ring(corners: npt.NDArray[np.float64]) -> list[list[float]]:
    """A closed ring, counterclockwise."""
    x, y = corners.T
    turns = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    ordered = (corners if turns >= 0 else corners[::-1]).round(DIGITS).tolist()
    return [*ordered, ordered[0]]
