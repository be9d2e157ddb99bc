"""Where a study keeps its files: a folder, or a prefix of an object store such as ``s3://bucket/results``.

A folder is a `pathlib.Path`. A `Remote` is a path in an object store, by fsspec, and has those of `Path`'s methods that
this project uses; the functions below take both. Credentials and endpoint come from the environment, as the store's own
tools read them (for S3: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``~/.aws``, the role of the machine).

What is relied upon: an object appears whole or not at all, it is seen by everybody as soon as it is written, and of
several writers that want to create the same object one succeeds. S3 promises all three, as do the stores of Google and
Azure.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rssearch.errors import InputError, cut, shown, unknown
from rssearch.storage import scratch, uris

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the operating system says of a full disk
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.+)")


@dataclass(frozen=True)
class Remote:
    """A path in an object store. It can be sent to other processes, and holds no connection.

    As a text it is shown without secrets (`rssearch.storage.uris`); `url` is the address itself.

    Its methods do what those of `pathlib.Path` do. They raise FileNotFoundError for an object that does not exist, and
    InputError with one sentence where the store cannot be used (no bucket, no permission, no answer).
    """

    url: str = field(repr=False)

    def __str__(self) -> str:
        return uris.masked(self.url)

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without what follows its last dot."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> Remote:
        """Without the last part."""
        return Remote(self.url.rpartition("/")[0])

    def resolve(self) -> Remote:
        """Itself: it is absolute."""
        return self

    def is_file(self) -> bool:
        """Whether there is such an object."""
        with _in_one_sentence(self) as (files, path):
            return bool(files.isfile(path))

    def read_bytes(self) -> bytes:
        """The object's content."""
        with _in_one_sentence(self) as (files, path):
            content: bytes = files.cat_file(path)
            return content

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object's content as text."""
        return self.read_bytes().decode(encoding)

    def glob(self, pattern: str) -> Iterator[Remote]:
        """The objects below this path that fit a pattern."""
        with _in_one_sentence(self) as (files, path):
            found = files.glob(f"{path}/{pattern}")
        return iter([self._sibling(files, name) for name in sorted(found)])

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object. S3 does not tell whether there was one."""
        with _in_one_sentence(self) as (files, path):
            try:
                files.rm_file(path)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def write(self, content: bytes) -> None:
        """Write an object, in place of an older one."""
        with _in_one_sentence(self, writes=True) as (files, path):
            files.pipe_file(path, content)

    def create(self, content: bytes) -> bool:
        """Write an object unless there is one (a conditional put); False where there is."""
        try:
            with _in_one_sentence(self, writes=True) as (files, path):
                files.pipe_file(path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def tree(self) -> dict[Remote, bytes]:
        """The content of every object below this path, in the order of the names; read side by side."""
        with _in_one_sentence(self) as (files, path):
            found = files.find(path)
            contents = files.cat(found) if found else {}
        return {self._sibling(files, name): contents[name] for name in sorted(contents)}

    def names(self) -> list[str]:
        """The names of all objects below this path, relative to it."""
        with _in_one_sentence(self) as (files, path):
            return sorted(str(name).removeprefix(f"{path}/") for name in files.find(path))

    def remove(self, names: Iterable[str]) -> None:
        """Remove some of the objects below this path, with as few requests as the store allows."""
        listed = list(names)
        with _in_one_sentence(self) as (files, path):
            try:
                if listed:
                    files.rm([f"{path}/{name}" for name in listed])
            except FileNotFoundError:  # such as when another process was faster: one after another
                for name in listed:
                    (self / name).unlink(missing_ok=True)

    def copy(self, target: Remote) -> None:
        """Copy every object below this path, within the store."""
        with _in_one_sentence(self) as (files, path):
            for name in files.find(path):
                files.cp_file(name, f"{target._at()[1]}/{str(name).removeprefix(f'{path}/')}")

    def _at(self) -> tuple[Any, str]:
        """The file system, which fsspec makes once in a process, and the path in it."""
        import fsspec

        files, path = fsspec.url_to_fs(self.url, use_listings_cache=False)  # others write there, too
        return files, path

    def _sibling(self, files: Any, name: str) -> Remote:
        """The path of a name that the file system gave."""
        return Remote(f"{self.url.partition('://')[0]}://{files._strip_protocol(name).lstrip('/')}")


Location = Path | Remote


@contextmanager
def _in_one_sentence(remote: Remote, *, writes: bool = False) -> Iterator[tuple[Any, str]]:
    """The file system and the path of an object; what goes wrong there is told as `Remote` promises."""
    try:
        yield remote._at()
    except FileNotFoundError as error:
        if writes:
            raise InputError(f"storage {remote}: cannot be written: {_said(error, remote)}") from None
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(remote)) from error
    except FileExistsError:
        raise
    except PermissionError as error:
        raise InputError(f"storage {remote}: permission denied: {_said(error, remote)}") from None
    except Exception as error:  # noqa: BLE001  # the boundary: every store has errors of its own
        raise InputError(f"storage {remote}: the store cannot be used: {_said(error, remote)}") from None


def _said(error: Exception, remote: Remote) -> str:
    text = uris.hidden(str(error).strip(), remote.url) or "no reason given"
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def expand(path: str | Path) -> Path:
    """A path of this machine, with ``~`` and ``~user`` replaced.

    Raises:
        InputError: no system can have such a path, or there is no such user.
    """
    if "\0" in str(path):
        raise InputError(f"{shown(str(path))}: a path cannot contain a NUL character")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        raise InputError(f"{cut(str(path))}: there is no home folder of the user {user.removeprefix('~')!r}") from None


def absolute(path: str | Path) -> Path:
    """The same path, absolute and without symbolic links. Raises InputError, also for links that go in a circle."""
    expanded = expand(path)
    try:
        found = expanded.resolve()
        found.exists()  # refuses a name that is too long, or a folder that may not be looked into
    except (OSError, RuntimeError) as error:
        raise InputError(f"{cut(str(path))}: {getattr(error, 'strerror', None) or error}") from None
    return found


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made where it does not exist; nothing is left in it.

    Raises:
        InputError: one sentence, with what the system says.
    """
    present = absolute(folder)
    while not present.exists():
        present = present.parent
    try:
        if not present.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        Path(tempfile.mkdtemp(dir=present, prefix=".probe-")).rmdir()
    except OSError as error:
        at = "" if present == absolute(folder) else f" ({present})"
        raise InputError(f"{cut(str(folder), 300)}: cannot be written: {error.strerror}{at}") from None


def locate(storage: str | Path | Remote) -> Location:
    """The place that a storage names: a folder (also as ``file://``), or a prefix of an object store.

    Raises:
        InputError: the protocol is not known, its package is not installed, or secrets of the address are masked.
    """
    if isinstance(storage, Remote):
        return storage
    uris.check_whole(str(storage), "storage", "--storage")
    found = _URL.fullmatch(str(storage))
    if found is None:
        return expand(storage)
    protocol, rest = found.groups()
    if protocol == "file":
        return expand(rest)
    try:
        import fsspec

        if protocol not in fsspec.available_protocols():
            raise unknown("protocol of the storage", f"{protocol}://", [f"{p}://" for p in ("file", "gs", "s3")])
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = "pip install 'rssearch[s3]'" if protocol in ("s3", "s3a") else str(error)
        raise InputError(
            f"storage {uris.masked(str(storage))}: a package for {protocol}:// is not installed: {package}"
        ) from None
    return Remote(str(storage).rstrip("/"))


def address(place: Location) -> str:
    """What `locate` makes the same place of, in another process."""
    return place.url if isinstance(place, Remote) else str(place)


def check_writable(storage: Location) -> None:
    """Write into a storage and take it away again, before anything is trained.

    Raises:
        InputError: it cannot be read and written, or ignores conditions, so that two drivers could run one study.
    """
    if isinstance(storage, Path):
        check_folder(storage)
        return
    probe = storage / f".probe-{uuid.uuid4().hex}"
    if probe.create(b"1") and probe.create(b"2"):
        raise InputError(f"storage {storage}: the store does not support conditional writes (If-None-Match)")
    try:
        probe.read_bytes()
    finally:
        probe.unlink(missing_ok=True)


def write_atomic(path: Location, content: bytes | str) -> None:
    """Write a file so that it is seen whole or not at all; its folder is made.

    Raises:
        OSError: the disk is full, for example; an older file is as it was.
        InputError: an object store cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, Remote):
        path.write(data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = scratch.file(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)  # it was made private; colleagues share a storage
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write to an open file does not know it
        raise


def names(folder: Location) -> list[str]:
    """The names of the files in a folder, without hidden ones; empty where there is none."""
    if isinstance(folder, Remote):
        found = folder.names()
    else:
        found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [name for name in found if not name.startswith(".")]


def remove(folder: Location, listed: Iterable[str]) -> None:
    """Remove files of a folder by their names; one that does not exist is no error."""
    if isinstance(folder, Remote):
        folder.remove(listed)
        return
    for name in listed:
        (folder / name).unlink(missing_ok=True)


def remove_tree(folder: Location) -> None:
    """Remove a folder and all in it; one that does not exist is no error."""
    if isinstance(folder, Remote):
        folder.remove(folder.names())
    else:
        shutil.rmtree(folder, ignore_errors=True)


def move(source: Location, target: Location) -> None:
    """Give a file or folder another name in the same storage.

    In an object store everything is copied first and removed then: who is killed in between leaves both.

    Raises:
        FileNotFoundError: there is none.
    """
    if isinstance(source, Remote) and isinstance(target, Remote):
        source.copy(target)
        remove_tree(source)
    elif isinstance(source, Path) and isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    else:
        raise TypeError(f"{source} and {target} are not in the same storage")


@contextmanager
def local_copies(files: Iterable[Location]) -> Iterator[list[Path]]:
    """Files of this machine with the same names and contents: themselves, or copies that live as long as the block."""
    with scratch.folder("rssearch-copies-") as folder:
        copies = []
        for path in files:
            if isinstance(path, Remote):
                copies.append(folder / path.name)
                copies[-1].write_bytes(path.read_bytes())
            else:
                copies.append(path)
        yield copies
