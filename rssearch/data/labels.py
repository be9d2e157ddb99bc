"""Images whose labels are in a table: ``labels.csv`` with the columns path and label, and perhaps split and group.

Paths are relative to the folder that the table lies in. Images that the table does not name are left out.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rssearch.data.listing import Files, Listing
from rssearch.data.multilabel import SEPARATOR
from rssearch.data.split_folders import NAMES, given, split_of
from rssearch.data.tables import Row, Table, read_table, relative
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, name_some, readable, shown

__all__ = ["TABLE", "find_table", "from_table", "is_whole_number"]

TABLE = "labels.csv"
REQUIRED, OPTIONAL = ("path", "label"), ("split", "group")


def find_table(contents: Contents) -> str | None:
    """The path of the table above all images, in upper or lower case; None: there is none.

    Raises:
        InputError: there are several.
    """
    found = []
    for path in contents.unread:
        folder, slash, name = path.rpartition("/")
        if name.casefold() == TABLE and all(image.startswith(folder + slash) for image, _ in contents.images):
            found.append(path)
    if len(found) > 1:
        raise InputError(
            f"{contents.base}: {' and '.join(map(shown, sorted(found)))} are tables of labels; one is read"
        )
    return found[0] if found else None


def from_table(contents: Contents, path: str, *, several: bool = False) -> Listing:
    """List the images that a table of labels names.

    Args:
        contents: of the folder or zip.
        path: of the table, as `find_table` gives it.
        several: whether an image may have several labels, with `rssearch.data.multilabel.SEPARATOR` between them.

    Raises:
        InputError: the table cannot be read, or a line of it names no image, one that another line names, no label,
            or no split; there are fewer than two classes, no training images, or a group in two splits.
    """
    place = f"{contents.base}/{shown(path)}"
    table = read_table(place, Files(contents.base, (path,)).read(0), REQUIRED, OPTIONAL)
    prefix = path.rpartition("/")[0] + "/" if "/" in path else ""
    rows = _images(table, contents, prefix)
    names = sorted(rows)
    labels = [_labels(rows[name], several=several) for name in names]
    classes = _classes(place, [label for found in labels for label in found])
    sides = [_split(rows[name]) for name in names] if "split" in table.columns else []
    groups = tuple(rows[name].get("group") for name in names) if "group" in table.columns else None
    if sides and "train" not in sides:
        raise InputError(f"{place}: no line has the split train")
    fixed = given(sides)
    if groups is not None and fixed is not None:
        _check_groups([rows[name] for name in names], groups, fixed)
    members = tuple(prefix + name for name in names)
    contents.unread = [other for other in contents.unread if other != path]
    notes = [*contents.notes(), *contents.note_outside(members, f"not in {TABLE}"), *_alike(classes)]
    if table.unread:
        notes.append(f"columns of {TABLE} that are not read: {', '.join(map(shown, table.unread))}")
    sizes = dict(contents.images)
    digest = hashlib.sha256(f"{TABLE}\n".encode())
    for number, name in enumerate(names):
        more = [fixed[number] if fixed else "", groups[number] if groups else ""]
        called = SEPARATOR.join(labels[number])
        digest.update(f"{readable(name)}\t{sizes[members[number]]}\t{called}\t{more}\n".encode())
    return Listing(
        where=str(contents.base),
        classes=classes,
        names=tuple(map(readable, names)),
        labels=_coded(labels, classes, several=several),
        fixed=fixed,
        fingerprint=digest.hexdigest(),
        pixels=Files(contents.base, members),
        notes=tuple(notes),
        groups=groups,
    )


def _images(table: Table, contents: Contents, prefix: str) -> dict[str, Row]:
    """The line of each image, by its path below the folder of the table."""
    there = {path.removeprefix(prefix) for path, _ in contents.images}
    rows: dict[str, Row] = {}
    lost: list[tuple[Row, str]] = []
    for row in table.rows:
        asked = row.get("path")
        # A name of a file may have a backslash; a path of another system has one as well.
        name = asked if asked in there else relative(row.place, asked)
        if name in rows:
            raise InputError(f"{row.place}: {shown(name)} is there twice: it is in {rows[name].place}, too")
        rows[name] = row
        if name not in there:
            lost.append((row, name))
    if lost:
        row, name = lost[0]
        others = f", nor {len(lost) - 1} others" if len(lost) > 1 else ""
        near = difflib.get_close_matches(name, sorted(there)[:10_000], n=1, cutoff=0.8)
        hint = f" Did you mean {shown(near[0])!r}?" if near else ""
        unread = f"{prefix}{name}" in contents.unread
        why = "is no image that can be read, by its ending" if unread else "does not exist"
        raise InputError(f"{row.place}: {shown(name)} {why}{others}.{hint}")
    return rows


def _labels(row: Row, *, several: bool) -> tuple[str, ...]:
    """The labels of an image, sorted."""
    label = row.get("label")
    if not label.isprintable():
        raise InputError(f"{row.place}: label: {shown(label)} has characters that cannot be printed")
    if not several:
        if SEPARATOR in label:
            raise InputError(
                f"{row.place}: label: {shown(label)!r}: an image of this kind of dataset has one label; images with "
                "several are multilabel_folder:PATH"
            )
        return (label,)
    found = [name.strip() for name in label.split(SEPARATOR)]
    if not all(found):
        raise InputError(f"{row.place}: label: {shown(label)!r} has an empty label")
    if twice := [name for name in found if found.count(name) > 1]:
        raise InputError(f"{row.place}: label: {shown(twice[0])!r} is there twice")
    return tuple(sorted(found))


def _coded(labels: Sequence[Sequence[str]], classes: Sequence[str], *, several: bool) -> npt.NDArray[np.int64]:
    """The labels as numbers: int64 [N], or [N, K] of 0 and 1 where there may be several."""
    index = {label: number for number, label in enumerate(classes)}
    if not several:
        return np.array([index[label] for (label,) in labels], dtype=np.int64)
    found = np.zeros((len(labels), len(classes)), dtype=np.int64)
    for row, names in zip(found, labels, strict=True):
        row[[index[name] for name in names]] = 1
    return found


def _classes(place: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels in order, whole numbers by their value."""
    found = set(labels)
    if len(found) < 2:
        raise InputError(f"{place}: needs two or more labels; found {', '.join(map(shown, found))}")
    if all(map(is_whole_number, found)):
        return tuple(sorted(found, key=lambda label: (int(label), label)))
    return tuple(sorted(found))


def is_whole_number(label: str) -> bool:
    """Whether a label is written as a whole number, in ASCII digits."""
    return label.isascii() and label.removeprefix("-").isdigit()


def _alike(classes: Sequence[str]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(name.casefold(), []).append(name)
    return [f"the classes {name_some(found)} differ in case alone" for found in alike.values() if len(found) > 1]


def _split(row: Row) -> str:
    split = split_of(value := row.get("split"))
    if split is None:
        raise InputError(f"{row.place}: split: {shown(value)!r} is none of {', '.join(NAMES)}")
    return split


def _check_groups(rows: Sequence[Row], groups: Sequence[str], fixed: Sequence[str]) -> None:
    """Refuse a group in two splits."""
    first: dict[str, int] = {}
    for number, group in enumerate(groups):
        other = first.setdefault(group, number)
        if fixed[other] != fixed[number]:
            raise InputError(
                f"{rows[number].place}: the group {shown(group)} is in {fixed[number]}, but in {fixed[other]} by "
                f"{rows[other].place}; a group must be in one split"
            )
