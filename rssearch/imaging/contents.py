"""What lies in a folder or, in place, in a zip: every file is an image that is read, or is counted as left out."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rssearch.errors import InputError, cut

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm"})
# Made by systems and file servers, beside names that begin with a dot: bins, resource forks, thumbnails.
SYSTEM_NAMES = frozenset(
    {
        "__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "thumbs.db",
        "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip
# A folder that holds nothing else tells of the images and is no class of them.
DOCUMENTS = frozenset(
    {
        ".txt", ".md", ".rst", ".pdf", ".doc", ".docx", ".odt", ".htm", ".html", ".css", ".csv", ".tsv", ".xls",
        ".xlsx", ".json", ".jsonl", ".geojson", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log", ".py",
        ".ipynb", ".sh", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".md5", ".sha256", ".pt", ".pth",
        ".onnx", ".safetensors", ".db", ".sqlite", ".lnk", ".url",
    }
)  # fmt: skip
SHOWN = 3  # files that a message names


@dataclass
class Contents:
    """The files of a folder or zip, by paths below it with forward slashes.

    Attributes:
        base: the folder or the zip.
        images: path and size in bytes of each image.
        unread: other files: their endings are not read.
        hidden: files and folders (these with a slash at the end) of systems and file servers, and hidden ones.
        loops: links to a folder that they lie in, which are not followed.
        folders: folders that are not hidden, each with a slash at the end.
        endings: of the files that are images.
    """

    base: Path
    images: list[tuple[str, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    loops: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    endings: frozenset[str] = EXTENSIONS

    def add(self, path: str, size: int) -> None:
        """Sort a file in by its name."""
        parts = path.split("/")
        plain = _plain_depth(parts)
        if plain < len(parts):
            self.hidden.add("/".join(parts[: plain + 1]) + ("/" if plain < len(parts) - 1 else ""))
        elif ending(path) in self.endings:
            self.images.append((path, size))
        else:
            self.unread.append(path)

    def notes(self) -> tuple[str, ...]:
        """What is left out, counted by ending."""
        found = []
        if self.unread:
            found.append(f"left out, as these endings are not read: {count_endings(self.unread)}")
        if self.hidden:
            found.append(f"left out, as hidden or made by a file server: {count_endings(self.hidden)}")
        if self.loops:
            found.append(
                f"not followed, as they lead back up the tree: {len(self.loops)} links ({name_some(self.loops)})"
            )
        return tuple(found)

    def note_outside(self, taken: Collection[str], why: str) -> tuple[str, ...]:
        """A note on the images that a listing does not take, if there are any."""
        paths = {path for path, _ in self.images}.difference(taken)
        return (f"left out, as they are {why}: {len(paths)} images ({name_some(paths)})",) if paths else ()

    def children(self, prefix: str) -> list[str]:
        """Names of the folders directly below a folder; `prefix` is its path with a slash at the end, or empty."""
        inner = (folder.removeprefix(prefix) for folder in self.folders if folder.startswith(prefix))
        return sorted({name.partition("/")[0] for name in inner if name})

    def check_empty(self, prefix: str, full: Collection[str], known: Collection[str] = ()) -> tuple[str, ...]:
        """Look at the folders directly below a folder in which there is no image.

        Args:
            prefix: path of the folder, with a slash at the end, or empty.
            full: names of the folders in which there are images.
            known: names of folders that may be empty.

        Returns:
            a note on those that hold documents alone.

        Raises:
            InputError: one has lost all its files, or has none.
        """
        documents: dict[str, list[str]] = {}
        for name in self.children(prefix):
            if name in full:
                continue
            top = f"{prefix}{name}/"
            files = [path for path in self.unread if path.startswith(top)]
            lost = [path for path in files if ending(path) not in DOCUMENTS]
            lost += [path for path in self.hidden if path.startswith(top) and ending(path) in self.endings]
            lost += [path for path in self.loops if path.startswith(top)]
            if not lost and not files and name in known:
                continue
            if lost or not files:
                held = f"of its files none is read: {count_endings({*lost, *files})}" if lost else "it is empty"
                raise InputError(
                    f"{self.base}/{shown(top)}: a folder without an image is no class and no split; {held}. Remove it, "
                    f"or convert its files (read are {' '.join(sorted(self.endings))})"
                )
            documents[name] = files
        return tuple(
            f"the folder {shown(name)} is no class: it holds no image ({count_endings(files)})"
            for name, files in documents.items()
        )


def without_image(place: str, notes: Iterable[str], endings: Iterable[str] = EXTENSIONS) -> InputError:
    """The error for a folder or zip in which there is no image; the notes say what there is."""
    found = "".join(f"; {note}" for note in notes)
    return InputError(f"{cut(shown(place), 300)}: has no image (read are {' '.join(sorted(endings))}){found}")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _plain_depth(parts: list[str]) -> int:
    """How many parts of a path come before the first that is hidden."""
    return next((number for number, part in enumerate(parts) if is_hidden(part)), len(parts))


def ending(path: str) -> str:
    """The ending of a file's name in lower case, with its dot. Its name where it has none; a folder's with a slash."""
    name = path.rstrip("/").rpartition("/")[2]
    if path.endswith("/"):
        return f"{name}/"
    return os.path.splitext(name)[1].lower() or name


def count_endings(paths: Iterable[str]) -> str:
    """For example ``.jp2 (24), .txt (1)``, the most frequent first."""
    counts = sorted(Counter(map(ending, paths)).items(), key=lambda item: (-item[1], item[0]))
    more = f" and {sum(n for _, n in counts[10:])} others" if len(counts) > 10 else ""
    return ", ".join(f"{shown(name)} ({count})" for name, count in counts[:10]) + more


def name_some(paths: Iterable[str]) -> str:
    """The first of some paths, for messages."""
    found = sorted(paths)
    return ", ".join(map(shown, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")


def shown(path: str) -> str:
    r"""A path for people: bytes that are not UTF-8, and control characters, as ``\xdf``."""
    text = readable(path)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def readable(path: str) -> str:
    r"""A path as text that can be written: bytes that are not UTF-8 become ``\xdf``. Other paths stay as they are."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_zip(base: Path) -> bool:
    """Whether files lie in an archive, by its name; a folder may be called so, too."""
    return base.suffix.lower() == ".zip" and not base.is_dir()


def scan(base: Path, endings: frozenset[str] = EXTENSIONS) -> Contents:
    """List a folder or a zip.

    Args:
        base: the folder or the zip.
        endings: of the files that are images.

    Raises:
        InputError: it cannot be read, images in a zip are encrypted, or their paths are not plain ones.
    """
    found = Contents(base, endings=endings)
    if is_zip(base):
        _scan_zip(base, found)
    else:
        _scan_folder(base, found)
    return found


def open_zip(base: Path) -> zipfile.ZipFile:
    """Open a zip. Names that do not say their encoding are UTF-8 where they can be (macOS), else code page 437.

    Raises:
        InputError: it is no zip.
    """
    try:
        try:
            return zipfile.ZipFile(base, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            return zipfile.ZipFile(base)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError(f"{base}: cannot be read as a zip archive: {error}") from None


def _scan_zip(base: Path, found: Contents) -> None:
    with open_zip(base) as archive:
        members = archive.infolist()
    for info in members:
        path = info.filename.rstrip("/") if info.is_dir() else info.filename
        parts = path.split("/")
        inner = len(parts) if info.is_dir() else len(parts) - 1
        found.folders.update("/".join(parts[:n]) + "/" for n in range(1, min(inner, _plain_depth(parts)) + 1))
        if not info.is_dir():
            found.add(path, info.file_size)
    paths = [path for path, _ in found.images]
    if strange := [path for path in _image_paths(members, found.endings) if _is_strange(path)]:
        raise InputError(f"{base}/{shown(strange[0])}: is no plain path below the archive; pack its folder again")
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise InputError(f"{base}/{shown(twice[0])}: is in the archive more than once")
    secret = {info.filename for info in members if info.flag_bits & 1}
    if closed := [path for path in paths if path in secret]:
        raise InputError(
            f"{base}/{shown(closed[0])}: is encrypted, as are {len(closed)} of {len(paths)} images; pack them without "
            "a password"
        )


def _image_paths(members: Iterable[zipfile.ZipInfo], endings: frozenset[str]) -> Iterator[str]:
    """Paths of the images in a zip, hidden ones too: what begins with ``..`` is no hidden file."""
    return (info.filename for info in members if not info.is_dir() and ending(info.filename) in endings)


def _is_strange(path: str) -> bool:
    """Whether a path in a zip is absolute, leads out of it, or goes by detours."""
    return posixpath.normpath(path) != path or path.startswith(("/", "../"))


def _scan_folder(base: Path, found: Contents) -> None:
    """Follow links to folders, but for those that lead to a folder on the way to them."""
    top = base.resolve()
    way = frozenset(map(_identity, (top, *top.parents)))
    waiting = [(base, "", way)]
    while waiting:
        folder, prefix, way = waiting.pop()
        try:
            with os.scandir(folder) as items:
                listed = sorted(items, key=lambda item: item.name)
        except OSError as error:
            raise InputError(f"{shown(str(folder))}: cannot be read: {error.strerror or error}") from None
        for item in listed:
            path = prefix + item.name
            if not _is_folder(item):
                found.add(path, _size(item))
            elif is_hidden(item.name):
                found.hidden.add(f"{path}/")
            elif (identity := _identity(item.path)) in way:
                found.loops.append(path)
            else:
                found.folders.add(f"{path}/")
                waiting.append((Path(item.path), f"{path}/", way | {identity}))


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _size(item: os.DirEntry[str]) -> int:
    try:
        return item.stat().st_size
    except OSError:  # a dangling link: listed, so that decoding names it
        return -1


def open_regular(path: Path) -> int:
    """A descriptor of a file to read from.

    Raises:
        OSError: it cannot be opened, or is a pipe, a socket or a device, on which reading could wait for ever.
    """
    # Without O_NONBLOCK the mere opening of a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError("is a pipe, a socket or a device, not a file")
    return descriptor


def by_top(images: Iterable[tuple[str, int]], prefix: str) -> Counter[str]:
    """How many images lie below each folder directly below a folder; those directly in it count for the name ""."""
    counts: Counter[str] = Counter()
    for path, _ in images:
        if path.startswith(prefix):
            name, slash, _ = path.removeprefix(prefix).partition("/")
            counts[name if slash else ""] += 1
    return counts
