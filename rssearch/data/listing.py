"""What a dataset holds, known before a pixel is read, and how its bytes are found: a folder tree or a zip of it."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Scale
from rssearch.data.reading import RGB, Reader
from rssearch.data.split_folders import HOW, check_inner, given, recognise, split_of, without_labels
from rssearch.errors import InputError
from rssearch.imaging.contents import (
    EXTENSIONS,
    Contents,
    by_top,
    is_zip,
    name_some,
    open_regular,
    open_zip,
    readable,
    scan,
    shown,
)
from rssearch.imaging.pixels import check_length, upright_size

L = TypeVar("L")
# Names of splits that all releases read as they are read now: the fingerprints of such sets stay as they were.
KNOWN_BEFORE = {"train", "val", "valid", "validation", "test"}


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

    def part(self, indices: Sequence[int]) -> Files:
        """The images with these numbers."""
        return Files(self.base, tuple(self.members[index] for index in indices))

    def location(self, index: int) -> str:
        """Where an image lies, for messages; the path goes on inside a zip."""
        return f"{self.base}/{shown(self.members[index])}"

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError, or zipfile.BadZipFile where the checksum in the archive does not match."""
        with self.open(index) as file:
            if isinstance(file, zipfile.ZipExtFile):
                member = self._archive.getinfo(self.members[index])  # type: ignore[union-attr]
                check_length(member.file_size, member.compress_size)
            else:
                about = os.fstat(file.fileno())
                check_length(about.st_size, 512 * about.st_blocks)
            return file.read()

    def open(self, index: int) -> IO[bytes]:
        """The encoded image as a file, for those who need its header alone. Raises as `read`."""
        if not is_zip(self.base):
            return os.fdopen(open_regular(self.base / self.members[index]), "rb")
        with self._lock:
            # An open file's position is shared with forked children, so each process opens the archive for itself.
            if self._archive is None or self._owner != os.getpid():
                self._archive, self._owner = open_zip(self.base), os.getpid()
        return self._archive.open(self.members[index])

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image when it is upright, from its header. Raises DECODE_ERRORS."""
        with self.open(index) as file:
            # In an archive every step back would decompress it from its beginning.
            return upright_size(io.BytesIO(file.read()) if is_zip(self.base) else file)


@dataclass(frozen=True)
class Listing:
    """A dataset as found on the disk (or, for synthetic sets, as it would be generated).

    Attributes:
        where: the folder or archive, for messages.
        classes: names in the order of the labels.
        names: unique name of each image, ``class/file``; the same for a tree and for a zip of it.
        labels: int64 [N], indices into `classes`; or [N, K] of 0 and 1 where images may have several.
        fixed: ``train``, ``val`` or ``test`` of each image where the dataset comes divided, else None.
        fingerprint: sha256 of the content's listing.
        pixels: the encoded files, or a function of the wanted size (None: native) that returns [N, C, H, W].
        notes: what was left out, and what to know of the division: a sentence each.
        reader: makes pixels of the files.
        bands: names of the bands of generated images; None: red, green and blue.
        dtype: of generated images.
        scale: what is known of the values of the pixels.
        groups: the place of each image, where the dataset says it: a place is never in two splits; None: unknown.
    """

    where: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    fixed: tuple[str, ...] | None
    fingerprint: str
    pixels: Files | Callable[[int | None], npt.NDArray[Any]]
    notes: tuple[str, ...] = ()
    reader: Reader = RGB
    bands: tuple[str, ...] | None = None
    dtype: str = "uint8"
    scale: Scale | None = None
    groups: tuple[str, ...] | None = None

    def part(self, indices: Sequence[int]) -> Listing:
        """The images with these numbers as a listing, under the same fingerprint and with the same classes."""
        chosen, pixels = np.asarray(indices, dtype=np.int64), self.pixels
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            labels=self.labels[chosen],
            fixed=None if self.fixed is None else tuple(self.fixed[index] for index in indices),
            groups=None if self.groups is None else tuple(self.groups[index] for index in indices),
            pixels=pixels.part(indices) if isinstance(pixels, Files) else lambda size: pixels(size)[chosen],
        )


def from_files(contents: Contents) -> Listing:
    """List a tree ``[folders/]class/.../file`` or ``[folders/]split/class/.../file``, in a folder or in a zip.

    Folders that stand alone at the top are stepped through. A top level that is a training split with validation or
    test beside it, see `rssearch.data.split_folders`, fixes the split: ``test`` (without one: ``val``) is the test set.
    What is left out is said in the notes.

    Raises:
        InputError: there are no images, fewer than two classes, a class or split that has lost all its files, a split
            among classes, training images without a class, or a class whose name is no text.
    """
    base, prefix, counts, notes = contents.base, "", by_top(contents.images, ""), [*contents.notes()]
    while len(tops := counts.keys() - {""}) == 1:
        notes += contents.check_empty(prefix, tops)
        prefix += f"{tops.pop()}/"
        counts = by_top(contents.images, prefix)
    notes += contents.check_empty(prefix, tops)
    where = f"{base}/{shown(prefix)}".rstrip("/")
    splits = recognise(where, {name: counts[name] for name in tops})
    depth = 2 if splits else 1
    below = sorted((path.removeprefix(prefix), size) for path, size in contents.images if path.startswith(prefix))
    placed = [(path, size) for path, size in below if path.count("/") >= depth]
    owners = [path.split("/")[depth - 1] for path, _ in placed]
    sides = [splits[path.partition("/")[0]] for path, _ in placed] if splits else []
    classes = tuple(sorted(set(owners)))
    members = tuple(prefix + path for path, _ in placed)
    notes += contents.note_outside(members, "in no class folder")
    notes += without_labels(where, "a class folder", splits.values(), sides)
    notes += _check_classes(where, classes, [path for path, _ in below if "/" not in path])
    for name in splits:
        there = {path.split("/")[1] for path, _ in placed if path.startswith(f"{name}/")}
        notes += contents.check_empty(f"{prefix}{name}/", there, known=classes)
    if not splits:
        check_inner(where, (path for path, _ in placed))
    index = {name: position for position, name in enumerate(classes)}
    names, fixed = tuple(readable(path) for path, _ in placed), given(sides)
    # Earlier releases took such splits for classes, or drew no test split: what they recorded is not to be reused.
    told = f"{sorted(splits.items())}\n" if splits and (fixed is None or not splits.keys() <= KNOWN_BEFORE) else ""
    return Listing(
        where=str(base),
        classes=classes,
        names=names,
        labels=np.array([index[owner] for owner in owners], dtype=np.int64),
        fixed=fixed,
        fingerprint=_fingerprint(told, names, [size for _, size in placed]),
        pixels=Files(base, members),
        notes=tuple(notes),
    )


def _fingerprint(told: str, names: Iterable[str], sizes: Iterable[int]) -> str:
    digest = hashlib.sha256(told.encode())
    for name, size in zip(names, sizes, strict=True):
        digest.update(f"{name}\t{size}\n".encode())
    return digest.hexdigest()


def _check_classes(where: str, classes: tuple[str, ...], loose: list[str]) -> list[str]:
    """Notes on classes; those that cannot be are refused."""
    if len(classes) < 2:
        images = f", and {len(loose)} images in no folder ({name_some(loose)})" if loose else ""
        found = [shown(name) for name in classes]
        raise InputError(f"{where}: needs a folder of images for each of two or more classes; found {found}{images}")
    if strange := [name for name in classes if readable(name) != name]:
        raise InputError(f"{where}/{shown(strange[0])}: the name of a class must be UTF-8; rename the folder")
    if split := [name for name in classes if split_of(name)]:
        raise InputError(f"{where}: {split[0]} is the name of a split, and cannot be a class. {HOW}")
    alike = Counter(name.casefold() for name in classes)
    return [
        f"the classes {' and '.join(name for name in classes if name.casefold() == key)} differ in case alone"
        for key, count in alike.items()
        if count > 1
    ]


def locate(
    name: str,
    root: Path,
    folders: Iterable[str],
    known: Iterable[str],
    hint: str,
    read: Callable[[Contents], L],
    endings: frozenset[str] = EXTENSIONS,
) -> L:
    """Find a dataset at, in, or one level below a data root, as an extracted tree or as a zip.

    Args:
        name: the dataset.
        root: the data root, or the dataset's own folder or zip.
        folders: usual names of its folder or zip, in lower case.
        known: names of its inner folders: a folder that has two of them is taken whatever its name.
        hint: how to get the dataset.
        read: makes the listing of the contents of a place, as `from_files`; raises InputError where it is none.
        endings: of the files that are images.

    Raises:
        InputError: it is not there; the message names the places looked at.
    """
    wanted = [name, *(folder for folder in folders if folder != name)]
    looked: list[str] = []
    problem: InputError | None = None
    for place in _places(root, wanted, set(known)):
        looked.append(str(place))
        try:
            if (contents := scan(place, endings)).images:
                return read(contents)
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
