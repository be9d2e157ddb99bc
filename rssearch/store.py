"""Content-addressed artifacts: baselines, scores, checkpoints, models.

An artifact is a few files under ``<storage>/store/<kind>/<key>/`` and a manifest with their sha256. Files get the
beginning of their hash into their names and are written first, the manifest is replaced last: a reader sees the old
artifact or the new one, never half of one, also when the writer is killed in between.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock

Files = dict[str, bytes]

_log = logging.getLogger(__name__)
_MANIFEST = "manifest.json"


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that it is seen whole or not at all; its folder is made."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp makes it private; colleagues share a storage
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Store:
    """The artifacts below one storage folder. Cheap to make; processes and nodes share the folder, not the object."""

    def __init__(self, storage: str | Path) -> None:
        self.root = Path(storage) / "store"

    def path(self, kind: str, key: str) -> Path:
        """The folder of an artifact."""
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """Whether an artifact has been written (its content is not checked)."""
        return (self.path(kind, key) / _MANIFEST).is_file()

    def keys(self, kind: str) -> list[str]:
        """The keys of all artifacts of a kind."""
        return sorted(path.parent.name for path in (self.root / kind).glob(f"*/{_MANIFEST}"))

    def get(self, kind: str, key: str) -> Files | None:
        """The files of an artifact, checked against their sha256.

        Returns:
            None where there is no artifact. A corrupt one is moved to ``store/corrupt`` with a warning, and counts as
            none.
        """
        folder = self.path(kind, key)
        for _ in range(3):
            try:
                manifest = json.loads((folder / _MANIFEST).read_text())
                files = {name: (folder / entry["file"]).read_bytes() for name, entry in manifest["files"].items()}
                wrong = [n for n, e in manifest["files"].items() if hashlib.sha256(files[n]).hexdigest() != e["sha256"]]
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
        """Write an artifact, in place of an older one with the same key."""
        folder = self.path(kind, key)
        entries = {}
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            stem, dot, suffix = name.rpartition(".")
            entries[name] = {"file": f"{stem or suffix}-{digest[:12]}{dot}{suffix if stem else ''}", "sha256": digest}
            write_atomic(folder / entries[name]["file"], data)
        write_atomic(folder / _MANIFEST, json.dumps({"kind": kind, "key": key, "files": entries}, indent=1))
        current = {entry["file"] for entry in entries.values()} | {_MANIFEST}
        for path in folder.iterdir():
            if path.name not in current and not path.name.startswith("."):
                path.unlink(missing_ok=True)

    def remove(self, kind: str, key: str) -> None:
        """Forget an artifact; one that does not exist is no error."""
        folder = self.path(kind, key)
        (folder / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def get_or_build(self, kind: str, key: str, build: Callable[[], Files]) -> Files:
        """The artifact, built once however many processes ask for it at the same time.

        The others wait. If the builder dies, the operating system frees its lock and the next one builds.
        """
        files = self.get(kind, key)
        if files is not None:
            return files
        lock = self.path(kind, key).with_suffix(".lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            files = self.get(kind, key)
            if files is None:
                files = build()
                self.put(kind, key, files)
        return files

    def _set_aside(self, kind: str, key: str, problem: str) -> None:
        target = self.root / "corrupt" / f"{kind}-{key}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path(kind, key).rename(target)
        except FileNotFoundError:  # another process has just done it
            return
        _log.warning("%s %s is corrupt: %s; set aside as %s, to be built again", kind, key, problem, target)
