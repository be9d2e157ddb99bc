"""Content-addressed artifacts: baselines, scores, checkpoints, models.

An artifact is a few files under ``<storage>/store/<kind>/<key>/`` and a manifest with their sha256. Files get the
beginning of their hash into their names and are written first, the manifest is replaced last: a reader sees the old
artifact or the new one, never half of one, also when the writer is killed in between or the disk is full.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from rssearch.storage import location as places
from rssearch.storage import scratch
from rssearch.storage.location import Location, Remote, locate, write_atomic
from rssearch.storage.lock import lock

Files = dict[str, bytes]

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


class Store:
    """The artifacts below one storage. Cheap to make; processes and nodes share the storage, not the object."""

    def __init__(self, storage: str | Path | Remote) -> None:
        self.root: Location = locate(storage) / "store"

    def path(self, kind: str, key: str) -> Location:
        """The folder of an artifact."""
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Whether an artifact has been written (its content is not checked)."""
        return (self.path(kind, key) / _MANIFEST).is_file()

    def keys(self, kind: str) -> list[str]:
        """The keys of all artifacts of a kind."""
        return sorted(path.parent.name for path in (self.root / kind).glob(f"*/{_MANIFEST}"))

    def get(self, kind: str, key: str, names: Collection[str] | None = None) -> Files | None:
        """The files of an artifact, checked against their sha256.

        Args:
            kind: of the artifact.
            key: of the artifact.
            names: which of its files; the default is all. Names that it does not have are left out.

        Returns:
            None where there is no artifact. A corrupt one is moved to ``store/corrupt`` with a warning, and counts as
            none.
        """
        folder = self.path(kind, key)
        for _ in range(3):
            try:
                manifest = json.loads((folder / _MANIFEST).read_text())
                listed = {n: entry for n, entry in manifest["files"].items() if names is None or n in names}
                files = {name: (folder / entry["file"]).read_bytes() for name, entry in listed.items()}
                wrong = [n for n, e in listed.items() if hashlib.sha256(files[n]).hexdigest() != e["sha256"]]
            except FileNotFoundError as error:
                if not self.has(kind, key):
                    return None
                # Another process may have replaced the artifact between our two reads: look again.
                problem = f"{Path(error.filename).name} is missing"
                time.sleep(0.05)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problem = f"its manifest is damaged ({error})"
                break
            else:
                if not wrong:
                    return files
                problem = f"sha256 of {', '.join(wrong)} does not match"
                break
        self._set_aside(kind, key, problem)
        return None

    def put(self, kind: str, key: str, files: Mapping[str, bytes]) -> None:
        """Write an artifact, in place of an older one with the same key.

        Raises:
            OSError: it cannot be written, as on a full disk; the older one is as it was.
        """
        folder = self.path(kind, key)
        entries = {}
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            stem, dot, suffix = name.rpartition(".")
            entries[name] = {"file": f"{stem or suffix}-{digest[:12]}{dot}{suffix if stem else ''}", "sha256": digest}
        current = {entry["file"] for entry in entries.values()} | {_MANIFEST}
        before = places.names(folder)
        try:
            for name, data in files.items():
                write_atomic(folder / entries[name]["file"], data)
            write_atomic(folder / _MANIFEST, json.dumps({"kind": kind, "key": key, "files": entries}, indent=1))
        except OSError:
            places.remove(folder, current.difference(before))  # no manifest names them, and the disk may be full
            raise
        places.remove(folder, (name for name in before if name not in current))

    def clear_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed while they wrote."""
        if isinstance(self.root, Path):
            for folder in self.root.glob("*/*/"):
                scratch.clear_files(folder, lambda _: True)

    def remove(self, kind: str, key: str) -> None:
        """Forget an artifact; one that does not exist is no error."""
        folder = self.path(kind, key)
        if isinstance(folder, Remote) and not folder.names():  # most trials leave nothing
            return
        (folder / _MANIFEST).unlink(missing_ok=True)
        places.remove_tree(folder)

    def get_or_build(self, kind: str, key: str, build: Callable[[], Files]) -> Files:
        """The artifact, built once however many processes ask for it at the same time.

        The others wait. If the builder dies, its lock is freed and the next one builds, see `rssearch.storage.lock`.
        """
        files = self.get(kind, key)
        if files is not None:
            return files
        with lock(self.root / kind / f"{key}.lock"):
            files = self.get(kind, key)
            if files is None:
                files = build()
                self.put(kind, key, files)
        return files

    def _set_aside(self, kind: str, key: str, problem: str) -> None:
        target = self.root / "corrupt" / f"{kind}-{key}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        try:
            places.move(self.path(kind, key), target)
        except FileNotFoundError:  # another process has just done it
            return
        _log.warning("%s %s is corrupt: %s; set aside as %s, to be built again", kind, key, problem, target)
