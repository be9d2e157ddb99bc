"""The files of front members and of their baselines, and what becomes of each class, in the study's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rssearch.front import gains
from rssearch.report import per_class
from rssearch.report.members import KEPT
from rssearch.storage import scratch
from rssearch.storage.artifacts import Store
from rssearch.storage.location import Location, names, remove, remove_tree, write_atomic
from rssearch.storage.records import TrialRecord
from rssearch.trial.interface import MEMBERS

__all__ = ["clear", "write", "write_per_class"]


def write(folder: Location, store: Store, records: Iterable[TrialRecord]) -> dict[str, list[Location]]:
    """Put the files of measured trials and of their baselines from the store into the study's folder.

    Those of other trials leave it.

    Args:
        folder: the study's.
        store: where workers have left them.
        records: of the members of the front.

    Returns:
        The paths by key: of trials, and of baselines (``baseline-...``).
    """
    found: dict[str, list[Location]] = {}
    for key in dict.fromkeys(_keys(records)):
        place, files = folder / MEMBERS / key, store.get(MEMBERS, key) or {}
        for name in (name for name in KEPT if name in files):
            if not _is(place / name, files[name]):
                write_atomic(place / name, files[name])
            found.setdefault(key, []).append(place / name)
    for name in {listed.partition("/")[0] for listed in names(folder / MEMBERS)} - found.keys():
        remove_tree(folder / MEMBERS / name)
    return found


def write_per_class(folder: Location, rows: Sequence[Mapping[str, Any]]) -> list[Location]:
    """Write ``per_class.csv`` of the front's members and baselines; the paths, empty where nothing is counted."""
    path = folder / per_class.FILE
    content = per_class.table(rows)
    if content is None:
        remove(folder, [per_class.FILE])
        return []
    write_atomic(path, content)
    return [path]


def clear(folder: Location) -> None:
    """Remove the temporary files of sessions that were killed while they wrote."""
    if isinstance(folder, Path):
        for place in (folder / MEMBERS).glob("*/"):
            scratch.clear_files(place, lambda name: name in KEPT)


def _keys(records: Iterable[TrialRecord]) -> Iterator[str]:
    for record in records:
        if record.measured:
            yield record.key
            baseline = record.measured.get(f"{gains.BEFORE}key")
            if isinstance(baseline, str) and Path(baseline).name == baseline:
                yield baseline


def _is(path: Location, content: bytes) -> bool:
    """Whether a file of this machine has this content."""
    return isinstance(path, Path) and path.is_file() and path.read_bytes() == content
