"""The images that paths, folders and patterns on a command line name."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from rssearch.errors import InputError, cut
from rssearch.imaging.contents import scan, shown, without_image
from rssearch.storage.location import expand

__all__ = ["MASK", "find"]

MASK = ".mask.png"  # how the names of written masks end, those of images that do not say where they are
WRITTEN = (MASK, ".mask.tif", ".probabilities.tif", ".grid.tif")  # and those of all files that a prediction writes


def find(paths: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The images that some paths name, each once, in the order of the paths.

    Args:
        paths: a file is taken whatever its ending; of a folder, and of the folders in it, every image; a pattern
            (``tiles/*.tif``, ``tiles/**/*_rgb.tif``) stands for what it matches, unless there is a file of that name.

    Returns:
        image -> where it lies below the folder that was named (for a file its name alone), and sentences on what of
        folders is left out: files with other endings, hidden ones, and the files that an earlier prediction wrote.

    Raises:
        InputError: there is nothing at a path, nothing matches a pattern, or a folder has no image.
    """
    found: dict[str, Path] = {}
    notes: list[str] = []
    for path in (match for given in paths for match in _matches(given)):
        place = expand(path)
        if place.is_dir():
            members, said = _members(path, place)
            notes += said
            for member in members:
                found.setdefault(str(Path(path) / member), Path(member))
        else:
            found.setdefault(path, Path(place.name))
    return found, notes


def _matches(given: str) -> list[str]:
    """What a path stands for: itself, or what matches it as a pattern."""
    place = expand(given)
    if place.exists() or place.is_symlink():
        return [given]
    if not glob.has_magic(given):
        raise InputError(f"{cut(given, 300)}: cannot be read: No such file or directory")
    matches = sorted(glob.glob(str(place), recursive=True))
    if not matches:
        raise InputError(f"{cut(given, 300)}: there is no such file, and no file fits this pattern")
    return matches


def _members(path: str, folder: Path) -> tuple[list[str], list[str]]:
    """The images of a folder, and what is left out."""
    contents = scan(folder)
    images = sorted(name for name, _ in contents.images if not name.endswith(WRITTEN))
    notes = [f"{shown(path)}: {note}" for note in contents.notes()]
    if masks := len(contents.images) - len(images):
        notes.append(f"{shown(path)}: left out, as predictions wrote them: {masks}")
    if not images:
        raise without_image(path, notes)
    return images, notes
