"""EuroSAT with all bands: Sentinel-2 patches of 64x64, 13 bands of 16 bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rssearch.config.settings import Scale
from rssearch.data import eurosat
from rssearch.data.family import Family
from rssearch.data.listing import Listing, from_files, locate
from rssearch.data.reading import Options, Rasters
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents
from rssearch.imaging.rasters import ENDINGS

__all__ = ["BANDS", "FAMILIES", "FAMILY", "SPATIAL"]

# As they lie in the files, where band 8A is the last.
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
FOLDERS = ("eurosat_ms", "eurosatallbands", "eurosat_allbands", "tif", "allbands")


def _open(name: str, read: Callable[[Path, Contents], Listing], root: Path) -> Listing:
    hint = f"Get it with `rssearch data fetch {name}`, or name the folder it lies in as the data root."
    found = locate(name, root, FOLDERS, eurosat.FAMILY.expected, hint, partial(read, root), ENDINGS)
    # Reflectance times 10,000, as the Copernicus programme distributes it.
    return dataclasses.replace(found, reader=Rasters(Options(names=BANDS)), scale=Scale(divide=10_000))


def _fetch(root: Path) -> None:
    try:
        from torchgeo.datasets import EuroSAT
    except ImportError:
        raise InputError("downloading eurosat_ms needs torchgeo: pip install 'rssearch[torchgeo]'") from None
    EuroSAT(str(root), download=True, checksum=True)


def _read(_root: Path, contents: Contents) -> Listing:
    return from_files(contents)


def _fetch_spatial(root: Path) -> None:
    try:
        from torchgeo.datasets import EuroSATSpatial
    except ImportError:
        raise InputError("downloading eurosat_ms_spatial needs torchgeo: pip install 'rssearch[torchgeo]'") from None
    for split in ("train", "val", "test"):
        EuroSATSpatial(str(root), split=split, download=True, checksum=True)


FAMILY = Family(
    name="eurosat_ms",
    summary="27,000 Sentinel-2 patches, 64x64, 13 bands of 16 bits, 10 land-use classes",
    source=eurosat.FAMILY.source,
    folders=FOLDERS,
    expected=eurosat.FAMILY.expected,
    stem=eurosat.FAMILY.stem,
    licence=eurosat.FAMILY.licence,
    open=partial(_open, "eurosat_ms", _read),
    fetch=_fetch,
)
SPATIAL = dataclasses.replace(
    FAMILY,
    name="eurosat_ms_spatial",
    summary="the images of eurosat_ms, divided by longitude as eurosat_spatial",
    source=eurosat.SPATIAL.source,
    open=partial(_open, "eurosat_ms_spatial", eurosat.read_spatial),
    fetch=_fetch_spatial,
)
FAMILIES = (FAMILY, SPATIAL)
