"""Spatial blocks: squares of the ground that images lie in, by the georeference of their files (extra ``geo``)."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rssearch.config.settings import block_metres
from rssearch.data.listing import Files
from rssearch.errors import InputError
from rssearch.imaging.contents import is_zip, readable, shown
from rssearch.imaging.georaster import SETTINGS, reason
from rssearch.imaging.pixels import DECODE_ERRORS

__all__ = ["blocks"]

NEEDS = "settings.split.by: block needs images with a georeference"
DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG", "JPEG", "BMP", "WEBP"]  # formats that name no other file
DEGREE = 111_195.0  # metres of a degree of latitude on a sphere of 6371 km


class Centre(NamedTuple):
    """Where an image lies: its reference system as WKT, its middle, and its longer side on the ground in metres."""

    crs: str
    x: float
    y: float
    extent: float


def blocks(files: Files, size: str) -> tuple[str, ...]:
    """The block of each image: that of its middle.

    Where all images have one projected reference system, blocks are squares of its coordinates, counted from 0.
    Otherwise (degrees, several zones of UTM, Web Mercator, whose metres are none on the ground) they are squares on
    the sphere: rows of equal latitude, in which columns begin at the Greenwich meridian.

    Args:
        files: georeferenced images.
        size: side of a block, such as ``10km``.

    Raises:
        InputError: rasterio is not installed, a file cannot be read or has no georeference, or an image is larger
            than a block.
    """
    side = block_metres(size)
    found = centres(files.base, files.members)
    for index, centre in enumerate(found):
        if centre.extent > side:
            raise InputError(
                f"settings.split.size: {size} is less than the extent of {files.location(index)}, {centre.extent:,.0f} "
                "m: blocks hold whole images"
            )
    projected = _one_projected({centre.crs for centre in found})
    if projected is not None:
        return tuple(_square(centre.x * projected, centre.y * projected, side) for centre in found)
    return tuple(_on_sphere(longitude, latitude, side) for longitude, latitude in _geographic(found))


@lru_cache(maxsize=4)
def centres(base: Path, members: tuple[str, ...]) -> tuple[Centre, ...]:
    """Where each image lies. Raises InputError as `blocks`."""
    try:
        import rasterio
    except ImportError:
        raise InputError("settings.split.by: block needs rasterio: pip install 'rssearch[geo]'") from None
    files = Files(base, members)
    return tuple(_centre(files, index, rasterio) for index in range(len(files)))


@contextmanager
def _raster(files: Files, index: int, rasterio: Any) -> Iterator[Any]:
    """The open file, and no neighbour of it. Read whole is what lies in a zip, or has a name that GDAL cannot have."""
    path = files.base / files.members[index]
    with rasterio.Env(**SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        if is_zip(files.base) or readable(str(path)) != str(path):
            with rasterio.io.MemoryFile(files.read(index)) as memory, memory.open(driver=DRIVERS) as opened:
                yield opened
        else:
            files.open(index).close()  # GDAL would wait on a pipe for ever
            with rasterio.io.DatasetReader(str(path.absolute()), driver=DRIVERS) as opened:
                yield opened


def _centre(files: Files, index: int, rasterio: Any) -> Centre:
    place = files.location(index)
    try:
        with _raster(files, index, rasterio) as image:
            crs, transform, width, height = image.crs, image.transform, image.width, image.height
            points = bool(image.gcps[0])
    except (rasterio.errors.RasterioError, *DECODE_ERRORS) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else reason(error)
        raise InputError(f"{place}: its georeference cannot be read: {why}") from None
    if crs is None or transform.is_identity:
        what = "ground control points alone; warp it, as with gdalwarp" if points else "none"
        if crs is None and not transform.is_identity:
            what = "coordinates, but no reference system (CRS)"
        raise InputError(f"{place}: {NEEDS}, and this file has {what}")
    if not (crs.is_projected or crs.is_geographic):
        raise InputError(f"{place}: {NEEDS} in projected or geographic coordinates; {shown(str(crs)[:80])} is neither")
    x = transform.c + transform.a * width / 2 + transform.b * height / 2
    y = transform.f + transform.d * width / 2 + transform.e * height / 2
    if not (math.isfinite(x) and math.isfinite(y)) or (crs.is_geographic and not (abs(x) <= 360 and abs(y) <= 90)):
        raise InputError(f"{place}: its middle is at {x:g}, {y:g}, which is no place in its reference system")
    # The length of a row and of a column in units of the reference system.
    across, down = width * math.hypot(transform.a, transform.d), height * math.hypot(transform.b, transform.e)
    unit = DEGREE if crs.is_geographic else float(crs.linear_units_factor[1])
    across *= math.cos(math.radians(y)) if crs.is_geographic else 1
    return Centre(str(crs.to_wkt()), x, y, max(across, down) * unit)


def _one_projected(systems: set[str]) -> float | None:
    """Metres of a unit of the one projected system; None where there are several, or it is none of the ground."""
    from rasterio.crs import CRS

    if len(systems) > 1:
        return None
    crs = CRS.from_wkt(next(iter(systems)))
    if not crs.is_projected or re.search("pseudo.?mercator|mercator_1sp|mercator.*auxiliary", str(crs.to_wkt()), re.I):
        return None
    return float(crs.linear_units_factor[1])


def _geographic(found: Sequence[Centre]) -> list[tuple[float, float]]:
    """Longitude and latitude of each centre in WGS 84."""
    from rasterio.warp import transform

    result: dict[int, tuple[float, float]] = {}
    for system in sorted({centre.crs for centre in found}):
        inside = [index for index, centre in enumerate(found) if centre.crs == system]
        longitudes, latitudes = transform(
            system, "EPSG:4326", [found[i].x for i in inside], [found[i].y for i in inside]
        )
        result |= {i: (lon, lat) for i, lon, lat in zip(inside, longitudes, latitudes, strict=True)}
    return [result[index] for index in range(len(found))]


def _square(x: float, y: float, side: float) -> str:
    return f"block {math.floor(x / side)} {math.floor(y / side)}"


def _on_sphere(longitude: float, latitude: float, side: float) -> str:
    """The block in a row of equal latitude, in whose middle columns are as wide as rows are high."""
    row = math.floor(latitude * DEGREE / side)
    middle = min(max((row + 0.5) * side / DEGREE, -89.9), 89.9)
    longitude = (longitude + 180) % 360 - 180  # 190 degrees east are 170 west
    return f"block {math.floor(longitude * DEGREE * math.cos(math.radians(middle)) / side)} {row}"
