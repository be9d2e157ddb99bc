"""Rasters that are written in windows, as Cloud Optimized GeoTIFFs at the place of the scene that they are made of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError, cut
from rssearch.imaging.georaster import Place, gdal, reason
from rssearch.storage import scratch

__all__ = ["BLOCK", "Content", "Writer", "written"]

BLOCK = 512  # pixels of a side of the tiles of a written file
_OPTIONS = {"BLOCKSIZE": str(BLOCK), "COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER"}


@dataclass(frozen=True)
class Content:
    """What a raster holds.

    Attributes:
        shape: bands, height and width.
        dtype: of its values.
        nodata: the value of pixels without data.
        names: of its bands.
        tags: texts that the file keeps.
        colours: of values, as red, green, blue and alpha; empty: it has no colours.
    """

    shape: tuple[int, int, int]
    dtype: str
    nodata: float
    names: Sequence[str]
    tags: Mapping[str, str]
    colours: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)


class Writer:
    """Takes a raster from top to bottom, in one column of tiles after the other."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name
        self._parts: list[npt.NDArray[Any]] = []
        self._row = 0

    def add(self, strip: npt.NDArray[Any], column: int) -> None:
        """Write the next rows [bands, h, w], from a column on that is a multiple of `BLOCK`.

        Rows are kept until they fill tiles, so that none is written twice.
        """
        self._parts.append(strip)
        height = self._file.height
        waiting = sum(part.shape[1] for part in self._parts)
        while waiting >= BLOCK or (waiting and self._row + waiting == height):
            rows = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)
            count = min(BLOCK, waiting)
            window = ((self._row, self._row + count), (column, column + strip.shape[2]))
            with _told(self._name):
                self._file.write(rows[:, :count], window=window)
            self._row, waiting = self._row + count, waiting - count
            self._parts = [rows[:, count:]] if waiting else []
        if self._row == height:
            self._row = 0


@contextmanager
def written(target: Path, place: Place | None, content: Content) -> Iterator[Writer]:
    """Write a Cloud Optimized GeoTIFF. It appears whole, or not at all.

    Args:
        target: the file, which is replaced.
        place: of the scene; None: nowhere.
        content: what it will hold.

    Raises:
        InputError: it cannot be written, or a GeoTIFF has no place for the scene's coordinates.
    """
    name = cut(str(target), 300)
    with gdal() as rasterio, scratch.folder(f".{target.name}.", target.parent) as folder:
        draft, cog = folder / "draft.tif", folder / "cog.tif"
        with _told(name):
            file = rasterio.open(draft, "w", **_profile(place, content))
        with file:
            with _told(name):
                _describe(file, place, content)
            yield Writer(file, name)
            with _told(name):
                file.close()
        with _told(name):
            rasterio.shutil.copy(draft, cog, driver="COG", **_OPTIONS, **_resampling(content))
            _check_place(rasterio, cog, place)
        os.replace(cog, target)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # the boundary: GDAL has an error of its own for each kind of trouble
        raise InputError(f"{name}: cannot be written: {reason(error)}") from error


def _resampling(content: Content) -> dict[str, str]:
    """How the smaller copies in a file are made: of classes, the most frequent one."""
    if content.colours:
        return {"OVERVIEW_RESAMPLING": "MODE"}
    return {"OVERVIEW_RESAMPLING": "AVERAGE", "PREDICTOR": "YES"}


def _profile(place: Place | None, content: Content) -> dict[str, Any]:
    count, height, width = content.shape
    located = {} if place is None or place.gcps[0] else {"crs": place.crs, "transform": place.transform}
    return {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": content.dtype,
        "nodata": content.nodata, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "band",
        "BIGTIFF": "IF_SAFER", **located,
    }  # fmt: skip


def _describe(file: Any, place: Place | None, content: Content) -> None:
    if place is not None:
        if place.gcps[0]:
            file.gcps = place.gcps
        if place.rpcs is not None:
            file.rpcs = place.rpcs
        file.update_tags(AREA_OR_POINT="Point" if place.point else "Area")
    file.update_tags(**content.tags)
    for number, name in enumerate(content.names, 1):
        file.set_band_description(number, name)
    if content.colours:
        file.write_colormap(1, content.colours)


def _check_place(rasterio: Any, path: Path, place: Place | None) -> None:
    """Raise InputError where a GeoTIFF has no place for what the coordinates of the scene are."""
    if place is None:
        return
    with rasterio.open(path) as file:
        if file.crs != place.crs or file.transform != place.transform:
            raise InputError(
                "the coordinates of the scene cannot be kept: read from a GeoTIFF again, its CRS or transform differs"
            )
