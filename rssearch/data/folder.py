"""A user's own images: a tree with one folder for each class, or a zip of one."""

from __future__ import annotations

from pathlib import Path

from rssearch.data.listing import Listing, from_files
from rssearch.errors import InputError
from rssearch.imaging.contents import scan

PREFIX = "folder:"


def open_folder(name: str, root: Path) -> Listing:
    """List ``folder:PATH``, with PATH relative to the data root.

    Raises:
        InputError: there is nothing at the path, or no tree of two or more classes.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise InputError("dataset 'folder:' needs a path, for example folder:my_images or folder:my_images.zip")
    base = root / path
    if base.is_dir() or (base.is_file() and base.suffix.lower() == ".zip"):
        return from_files(scan(base))
    if base.exists():
        raise InputError(f"dataset {name!r}: {base} is neither a folder nor a zip archive")
    raise InputError(f"dataset {name!r}: {base} does not exist; give a folder or a zip with a folder for each class")
