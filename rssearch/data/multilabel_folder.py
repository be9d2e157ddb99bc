"""A user's own images with several labels each: ``labels.csv`` with ``forest;water`` in its column of labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rssearch.data.folder import from_contents
from rssearch.data.listing import Listing
from rssearch.data.reading import Rasters
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, scan
from rssearch.imaging.rasters import ENDINGS

__all__ = ["PREFIX", "RASTERS", "open_folder", "open_rasters"]

PREFIX, RASTERS = "multilabel_folder:", "multilabel_raster_folder:"


def open_folder(name: str, root: Path) -> Listing:
    """List ``multilabel_folder:PATH``, with PATH relative to the data root.

    Raises:
        InputError: there is nothing at the path, or no table of labels that can be used.
    """
    base = _base(name, PREFIX, root)
    return _listed(name, scan(base))


def open_rasters(name: str, root: Path) -> Listing:
    """As `open_folder`, of rasters of any bands and type: ``multilabel_raster_folder:PATH``."""
    base = _base(name, RASTERS, root)
    return replace(_listed(name, scan(base, ENDINGS)), reader=Rasters())


def _listed(name: str, contents: Contents) -> Listing:
    try:
        return from_contents(contents, several=True)
    except InputError as error:
        raise InputError(f"dataset {name!r}: {error}") from None


def _base(name: str, prefix: str, root: Path) -> Path:
    path = name.removeprefix(prefix)
    if not path:
        raise InputError(f"dataset {name!r} needs a path, for example {prefix}my_images or {prefix}my_images.zip")
    base = root / path
    if base.is_dir() or (base.is_file() and base.suffix.lower() == ".zip"):
        return base
    if base.exists():
        raise InputError(f"dataset {name!r}: {base} is neither a folder nor a zip archive")
    raise InputError(f"dataset {name!r}: {base} does not exist; give a folder or a zip with images and a labels.csv")
