"""A user's own images: a tree with one folder for each class, or a table of labels beside them; or a zip of either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rssearch.data.labels import TABLE, find_table, from_table
from rssearch.data.listing import Listing, from_files
from rssearch.data.split_lists import divide_listing, find_lists, read_lists
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, count_endings, scan

PREFIX = "folder:"


def open_folder(name: str, root: Path) -> Listing:
    """List ``folder:PATH``, with PATH relative to the data root.

    Raises:
        InputError: there is nothing at the path, no tree of two or more classes, or a table or a list of names that
            cannot be used.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise InputError("dataset 'folder:' needs a path, for example folder:my_images or folder:my_images.zip")
    base = root / path
    if base.is_dir() or (base.is_file() and base.suffix.lower() == ".zip"):
        return from_contents(scan(base))
    if base.exists():
        raise InputError(f"dataset {name!r}: {base} is neither a folder nor a zip archive")
    raise InputError(f"dataset {name!r}: {base} does not exist; give a folder or a zip with a folder for each class")


def from_contents(contents: Contents, *, several: bool = False) -> Listing:
    """List the images of a folder or zip by their table of labels or, without one, by their folders.

    Images that may have `several` labels need a table.

    The division is that of folders, of the table, or of lists of names (see `rssearch.data.split_lists`).

    Raises:
        InputError: as `open_folder`.
    """
    table = find_table(contents)
    lists = find_lists(contents)
    if several and table is None:
        raise InputError(f"{contents.base}: has no {TABLE}, which says the labels of each image")
    found = from_files(contents) if table is None else from_table(contents, table, several=several)
    if not lists:
        return found
    if found.fixed is None:
        return divide_listing(found, read_lists(contents, lists))
    if table is not None:
        raise InputError(
            f"{contents.base}: {table} and {', '.join(lists.values())} both give a division; one is needed"
        )
    unread = f"not read, as folders give the division: {count_endings(lists.values())}"
    return replace(found, notes=(*found.notes, unread))
