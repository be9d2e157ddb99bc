"""A user's own rasters, of any bands and type: class folders, or ``images/`` and ``masks/`` with ``classes.json``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rssearch.data import segmentation_folder
from rssearch.data.folder import from_contents
from rssearch.data.listing import Listing
from rssearch.data.reading import Rasters
from rssearch.data.scene_folders import KINDS
from rssearch.data.scenes import SceneListing
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, scan
from rssearch.imaging.rasters import ENDINGS

__all__ = ["PREFIX", "open_folder"]

PREFIX = "raster_folder:"


def open_folder(name: str, root: Path) -> Listing | SceneListing:
    """List ``raster_folder:PATH``, with PATH relative to the data root.

    Raises:
        InputError: there is nothing at the path, or it is neither a tree of classes nor scenes with masks.
    """
    contents = _contents(name, root)
    if _has_masks(contents):
        return segmentation_folder.from_contents(contents, Rasters())
    return dataclasses.replace(from_contents(contents), reader=Rasters())


def _contents(name: str, root: Path) -> Contents:
    path = name.removeprefix(PREFIX)
    if not path:
        raise InputError(f"dataset {name!r} needs a path, for example {PREFIX}my_rasters or {PREFIX}my_rasters.zip")
    base = root / path
    if base.is_dir() or (base.is_file() and base.suffix.lower() == ".zip"):
        return scan(base, ENDINGS)
    if base.exists():
        raise InputError(f"dataset {name!r}: {base} is neither a folder nor a zip archive")
    raise InputError(
        f"dataset {name!r}: {base} does not exist; give a folder or a zip with a folder for each class, or with "
        "images/, masks/ and classes.json"
    )


def _has_masks(contents: Contents) -> bool:
    folders = {folder for path, _ in contents.images for folder in path.split("/")[:-1]}
    return folders.issuperset(KINDS)
