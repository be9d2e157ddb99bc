"""Predictions as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rssearch.errors import InputError, cut
from rssearch.escaping import csv_cell
from rssearch.storage.location import check_folder, expand

__all__ = ["Table", "opened"]


class Table(Protocol):
    """Takes one prediction after the other."""

    def __call__(self, found: Mapping[str, Any]) -> None:
        """Write a row: `image`, `mask` where there is one, and `classes`, the value of each class."""
        ...


@contextmanager
def opened(path: Path, classes: Sequence[str], *, masks: bool, threshold: float | None = None) -> Iterator[Table]:
    """A new CSV file: ``file``, then ``class``, ``probability`` and ``probability:NAME`` of each class.

    With a `threshold`, where images may have several classes: ``file``, ``classes`` (those of at least the threshold,
    with ``;`` between them) and ``probability:NAME``. For segmentation (`masks`): ``file``, ``mask`` and
    ``share:NAME``, the share of the pixels of each class. Each row is written at once, so that what was predicted
    before an interruption is kept. A file without a row is removed.

    Raises:
        InputError: the file is there already, or cannot be written.
    """
    place, name = expand(path), cut(str(path), 300)
    check_folder(place.parent)
    kind = "share" if masks else "probability"
    head = ["file", "mask"] if masks else ["file", "class", "probability"] if threshold is None else ["file", "classes"]
    rows = 0

    def write(found: Mapping[str, Any]) -> None:
        nonlocal rows
        values = found["classes"]
        about: Sequence[str | float]
        if masks:
            about = [found["mask"]]
        elif threshold is not None:
            about = [";".join(label for label in classes if values[label] >= threshold)]
        else:
            about = max(values.items(), key=lambda item: item[1])
        writer.writerow([_cell(cell) for cell in (found["image"], *about, *(values[label] for label in classes))])
        file.flush()
        rows += 1

    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        # What is no UTF-8 in the name of a file is shown as \udcff.
        file = place.open("x", newline="", encoding="utf-8", errors="backslashreplace")
    except FileExistsError:
        raise InputError(f"{name}: is there already; remove it, or name another file") from None
    with file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, *(csv_cell(f"{kind}:{label}") for label in classes)])
        try:
            yield write
        finally:
            if rows == 0:
                place.unlink()


def _cell(value: str | float) -> str | float:
    return csv_cell(value) if isinstance(value, str) else value
