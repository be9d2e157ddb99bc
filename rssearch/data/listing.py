"""What a dataset holds, known before a pixel is read, and how its bytes are found: a folder tree or a zip of it."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError

L = TypeVar("L")
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm"})
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Files:
    """Encoded images in a folder or, in place, in a zip archive. Safe to read from several threads and after a fork.

    Attributes:
        base: the folder or the zip.
        members: one path below `base` for each image, with forward slashes.
    """

    base: Path
    members: tuple[str, ...]
    _archive: zipfile.ZipFile | None = field(default=None, init=False, repr=False, compare=False)
    _owner: int = field(default=0, init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.members)

    def __getstate__(self) -> dict[str, Any]:
        return {"base": self.base, "members": self.members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def location(self, index: int) -> str:
        """Where an image lies, for messages; the path goes on inside a zip."""
        return f"{self.base}/{self.members[index]}"

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError, or zipfile.BadZipFile where the checksum in the archive does not match."""
        with self.open(index) as file:
            return file.read()

    def open(self, index: int) -> IO[bytes]:
        """The encoded image as a file, for those who need its header alone. Raises as `read`."""
        if self.base.suffix.lower() != ".zip":
            return (self.base / self.members[index]).open("rb")
        with self._lock:
            # An open file's position is shared with forked children, so each process opens the archive for itself.
            if self._archive is None or self._owner != os.getpid():
                self._archive, self._owner = zipfile.ZipFile(self.base), os.getpid()
        return self._archive.open(self.members[index])


@dataclass(frozen=True)
class Listing:
    """A dataset as found on the disk (or, for drawn sets, as it would be drawn).

    Attributes:
        where: the folder or archive, for messages.
        classes: names in the order of the labels.
        names: unique name of each image, ``class/file``; the same for a tree and for a zip of it.
        labels: int64 [N], indices into `classes`.
        fixed: ``train``, ``val`` or ``test`` of each image where the dataset comes divided, else None.
        fingerprint: sha256 of the content's listing.
        pixels: the encoded files, or a function of the wanted size (None: native) that returns uint8 [N, C, H, W].
    """

    where: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    fixed: tuple[str, ...] | None
    fingerprint: str
    pixels: Files | Callable[[int | None], npt.NDArray[np.uint8]]


def scan(base: Path) -> list[tuple[str, int]]:
    """Path below `base` and size in bytes of every image file in a folder or zip, hidden ones left out.

    Raises:
        InputError: the zip cannot be read.
    """
    found: Iterable[tuple[str, int]]
    if base.suffix.lower() == ".zip" and base.is_file():
        try:
            with zipfile.ZipFile(base) as archive:
                found = [(info.filename, info.file_size) for info in archive.infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{base}: cannot be read as a zip archive: {error}") from None
    else:
        found = _walk(base)
    return [(path, size) for path, size in found if _is_image(path)]


def _walk(base: Path) -> Iterable[tuple[str, int]]:
    for folder, _, files in os.walk(base, followlinks=True):
        prefix = "" if Path(folder) == base else f"{Path(folder).relative_to(base).as_posix()}/"
        for file in files:
            try:
                size = os.stat(os.path.join(folder, file)).st_size
            except OSError:  # a dangling link: listed, so that decoding names it
                size = -1
            yield prefix + file, size


def _is_image(path: str) -> bool:
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and os.path.splitext(parts[-1])[1].lower() in EXTENSIONS


def from_files(base: Path, entries: list[tuple[str, int]] | None = None) -> Listing:
    """List a tree ``[folders/]class/.../file`` or ``[folders/]split/class/.../file``, in a folder or in a zip.

    Folders that stand alone at the top are stepped through. A top level that is ``train`` with ``val`` or ``test``
    beside it fixes the split: ``test`` (without one: ``val``) is the test set.

    Raises:
        InputError: there are no images, or fewer than two classes.
    """
    entries = scan(base) if entries is None else entries
    prefix, below = "", entries
    while len(tops := {path.partition("/")[0] for path, _ in below if "/" in path}) == 1:
        top = f"{tops.pop()}/"
        prefix += top
        below = [(path.removeprefix(top), size) for path, size in below if path.startswith(top)]
    divided = "train" in tops and tops <= SPLIT_FOLDERS.keys()
    depth = 2 if divided else 1
    below = sorted((path, size) for path, size in below if path.count("/") >= depth)
    owners = [path.split("/")[depth - 1] for path, _ in below]
    classes = tuple(sorted(set(owners)))
    if len(classes) < 2:
        raise InputError(f"{base}: needs a folder of images for each of two or more classes; found {list(classes)}")
    index = {name: position for position, name in enumerate(classes)}
    digest = hashlib.sha256()
    for path, size in below:
        digest.update(f"{path}\t{size}\n".encode())
    return Listing(
        where=str(base),
        classes=classes,
        names=tuple(path for path, _ in below),
        labels=np.array([index[owner] for owner in owners], dtype=np.int64),
        fixed=_fixed([path.partition("/")[0] for path, _ in below]) if divided else None,
        fingerprint=digest.hexdigest(),
        pixels=Files(base, tuple(prefix + path for path, _ in below)),
    )


def _fixed(folders: list[str]) -> tuple[str, ...]:
    splits = tuple(SPLIT_FOLDERS[folder] for folder in folders)
    # A set that is published with train and val alone (as ImageNet) is reported on val; ours is held out of train.
    return splits if "test" in splits else tuple("test" if split == "val" else split for split in splits)


def locate(
    name: str,
    root: Path,
    folders: Iterable[str],
    known: Iterable[str],
    hint: str,
    read: Callable[[Path, list[tuple[str, int]]], L],
) -> L:
    """Find a dataset at, in, or one level below a data root, as an extracted tree or as a zip.

    Args:
        name: the dataset.
        root: the data root, or the dataset's own folder or zip.
        folders: usual names of its folder or zip, in lower case.
        known: names of its inner folders: a folder that has two of them is taken whatever its name.
        hint: how to get the dataset.
        read: makes the listing of the files of a place, as `from_files`; raises InputError where it is none.

    Raises:
        InputError: it is not there; the message names the places looked at.
    """
    wanted = [name, *(folder for folder in folders if folder != name)]
    looked: list[str] = []
    problem: InputError | None = None
    for place in _places(root, wanted, set(known)):
        looked.append(str(place))
        try:
            if entries := scan(place):
                return read(place, entries)
        except InputError as error:  # not the dataset, perhaps a picture beside it: told if nothing better is found
            problem = problem or error
    if problem is not None:
        raise InputError(f"dataset {name!r}: {problem}")
    places = ", ".join([*looked, *(str(root / folder) + suffix for folder in wanted for suffix in ("", ".zip"))])
    state = "" if root.exists() else f" The data root {root} does not exist."
    raise InputError(f"dataset {name!r} was not found.{state} Looked at: {places}. {hint}")


def _places(root: Path, wanted: list[str], known: set[str]) -> Iterable[Path]:
    """Candidates, best first; every one exists."""
    if root.is_file():
        yield root
        return
    children = sorted(root.iterdir()) if root.is_dir() else []
    own = [root] if root.name.lower() in wanted else []
    for folder in wanted:
        here = [child for child in children if child.is_dir() and child.name.lower() == folder]
        yield from here
        yield from (child for child in children if child.name.lower() == f"{folder}.zip" and child.is_file())
        yield from (archive for parent in here for archive in _zips(parent))
    for place in [root, *children]:
        if place.is_dir() and len(known.intersection(os.listdir(place))) >= 2:
            yield place
    for place in own:
        yield place
        yield from _zips(place)


def _zips(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.suffix.lower() == ".zip" and child.is_file())
