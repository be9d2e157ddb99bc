"""Divisions as files: what a study writes, and what `settings.split` says beside shares.

A table has the columns path and split, and label where images have one. Written by one study it gives another the
same division, to the last image.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from rssearch.config.settings import Split
from rssearch.data.blocks import NEEDS, blocks
from rssearch.data.imageset import ImageSet
from rssearch.data.listing import Files, Listing
from rssearch.data.multilabel import SEPARATOR, is_multiple, joined_names
from rssearch.data.names import NameIndex
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.data.sceneset import AnySet
from rssearch.data.split import SPLITS, joined
from rssearch.data.split_folders import split_of
from rssearch.data.split_lists import told
from rssearch.data.tables import Row, read_table
from rssearch.errors import InputError, cut
from rssearch.escaping import csv_cell, csv_text
from rssearch.imaging.contents import name_some, open_regular, shown

__all__ = ["SplitFile", "as_settings_say", "digest_of", "read", "text"]

Found = Listing | SceneListing
LONGEST = 2**29  # bytes of a table: several million images


@dataclass(frozen=True)
class SplitFile:
    """A table of splits.

    Attributes:
        path: of the file, for messages.
        rows: the line of each image, by the name that it has there.
        labelled: whether lines have labels.
        sha256: over names and splits: the same for other orders, separators and columns.
    """

    path: str
    rows: Mapping[str, Row]
    labelled: bool
    sha256: str


def read(path: str) -> SplitFile:
    """Read a table of splits; again when its time or size has changed.

    Raises:
        InputError: it cannot be read, names an image twice, or has another split than train, val and test.
    """
    place = Path(path).expanduser()
    try:
        stat = place.stat()
        return _read(place, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"settings.split.file: {cut(path, 300)}: cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=8)
def _read(path: Path, *_: int) -> SplitFile:
    table = read_table(str(path), _content(path), ("path", "split"), ("label",))
    rows: dict[str, Row] = {}
    for row in table.rows:
        name, split = csv_text(row.get("path")), row.get("split")
        if name in rows:
            raise InputError(f"{row.place}: {shown(name)} is there twice: it is in {rows[name].place}, too")
        if (side := split_of(split)) is None:
            raise InputError(f"{row.place}: split: {shown(split)!r} is none of {', '.join(SPLITS)}")
        cells = {column: csv_text(cell) for column, cell in row.cells.items()}
        rows[name] = replace(row, cells=cells | {"split": side})
    sides = {row.cells["split"] for row in rows.values()}
    if "train" not in sides or len(sides) < 2:
        raise InputError(f"{path}: is no division: it has {', '.join(sorted(sides))} alone")
    digest = hashlib.sha256(told(list(rows), [row.cells["split"] for row in rows.values()]).encode()).hexdigest()
    return SplitFile(str(path), rows, "label" in table.columns, digest)


def _content(path: Path) -> bytes:
    """The bytes of a file; a pipe or a device, which may never end, is an OSError, and so is one that is no table."""
    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise OSError(f"it is longer than {LONGEST:,} bytes")
    return content


def digest_of(split: Split) -> str | None:
    """The digest of the table that a division is read from, as the study began with it; None: it is from no table."""
    if split.file is None:
        return None
    return split.sha256.get(split.file) or read(split.file).sha256


def as_settings_say(found: Found, split: Split) -> Found:
    """A listing with the division of a table, or with the places that a rule or the georeference gives.

    Shares are for later: `rssearch.data.split`.

    Raises:
        InputError: the table, the rule or the blocks do not go with the images; it names the line, or the image.
    """
    if split.file is not None:
        return _by_file(found, _checked(split))
    if split.group is not None:
        places = tuple(_place(found, name, re.compile(split.group)) for name in found.names)
        return _in_places(found, places, f"settings.split.group: {split.group!r}")
    if split.by is not None:
        assert split.size is not None
        return _in_places(found, blocks(_files(found), split.size), "settings.split.by: block")
    return found


def _checked(split: Split) -> SplitFile:
    """The table, unless it is another one than the study began with."""
    assert split.file is not None
    table = read(split.file)
    if (said := split.sha256.get(split.file, table.sha256)) != table.sha256:
        raise InputError(f"settings.split.sha256: the file {split.file} has {table.sha256}, not {said}")
    return table


def _by_file(found: Found, table: SplitFile) -> Found:
    """The images that a table names, in its splits."""
    files = _raw_files(found)
    index = NameIndex(found.names, files.members if files is not None else ())
    splits: dict[int, str] = {}
    lines: dict[int, Row] = {}
    for name, row in table.rows.items():
        number = index.find(row.place, name)
        if number in lines:
            raise InputError(f"{row.place}: {shown(name)} is there twice: it is in {lines[number].place}, too")
        splits[number], lines[number] = row.cells["split"], row
        if table.labelled:
            _check_label(found, number, row)
    kept = sorted(splits)
    left = [name for number, name in enumerate(found.names) if number not in splits]
    note = f"left out, as they are not in {table.path}: {len(left)} images ({name_some(left)})"
    part = found.part(kept) if left else found
    return replace(
        part,
        fixed=tuple(splits[number] for number in kept),
        notes=(*part.notes, *([note] if left else [])),
    )


def _check_label(found: Found, number: int, row: Row) -> None:
    """Refuse a label that the dataset does not have, or has not for this image."""
    label = row.cells["label"]
    if not isinstance(found, SceneListing) and is_multiple(found.labels):
        true = joined_names(found.classes, found.labels[number])
        if sorted(label.split(SEPARATOR)) != sorted(true.split(SEPARATOR)):
            raise InputError(f"{row.place}: label: {shown(label)!r}, but the image's labels are {true!r}")
        return
    if isinstance(found, SceneListing):
        if label:
            raise InputError(f"{row.place}: label: {shown(label)!r}: a scene has a mask, and no label")
        return
    if label not in found.classes:
        raise InputError(f"{row.place}: label: {shown(label)!r} is none of the classes {', '.join(found.classes)}")
    if (true := found.classes[found.labels[number]]) != label:
        raise InputError(f"{row.place}: label: {shown(label)!r}, but the image's label is {true!r}")


def _place(found: Found, name: str, rule: re.Pattern[str]) -> str:
    match = rule.search(name)
    if match is None or not match.group(1):
        raise InputError(f"settings.split.group: {rule.pattern!r} finds nothing in {shown(name)!r} of {found.where}")
    return match.group(1)


def _in_places(found: Found, places: tuple[str, ...], why: str) -> Found:
    """A listing whose images are of these places as well; places that share a group of the dataset are one."""
    groups = places if found.groups is None else joined(places, found.groups)
    if found.fixed is not None:
        first: dict[str, int] = {}
        for number, group in enumerate(groups):
            other = first.setdefault(group, number)
            if found.fixed[other] != found.fixed[number]:
                raise InputError(
                    f"{why}: {found.where} comes divided, with {shown(found.names[other])} in {found.fixed[other]} and "
                    f"{shown(found.names[number])} in {found.fixed[number]}, which are of one place: {shown(group)}"
                )
    return replace(found, groups=groups)


def _raw_files(found: Found) -> Files | None:
    if isinstance(found, SceneListing):
        return found.source.images if isinstance(found.source, Pairs) else None
    return found.pixels if isinstance(found.pixels, Files) else None


def _files(found: Found) -> Files:
    files = _raw_files(found)
    if files is None:
        raise InputError(f"{found.where}: {NEEDS}; this dataset is not read from single files")
    return files


def text(images: AnySet) -> str | None:
    """The division of a set as a table: path, label (not of scenes) and split; None for a set without names."""
    rows: list[tuple[str, ...]] = []
    if not images.names:
        return None
    if isinstance(images, ImageSet):
        names, classes, labels = images.names, images.classes, images.labels

        def called(image: int) -> str:
            return joined_names(classes, labels[image]) if is_multiple(labels) else classes[labels[image]]

        for split, members in images.indices.items():
            rows += [(names[i], called(i), split) for i in members.tolist()]
    else:
        for split, windows in images.indices.items():
            scenes = np.unique(images.windows[windows, 0]).tolist()
            rows += [(images.names[i], split) for i in scenes]
    head = ("path", "label", "split") if isinstance(images, ImageSet) else ("path", "split")
    written = io.StringIO()
    lines = ([csv_cell(cell) for cell in row] for row in sorted(rows))
    csv.writer(written, lineterminator="\n").writerows([head, *lines])
    return written.getvalue()
