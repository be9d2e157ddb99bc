"""A user's own folder of images or scenes, looked at without decoding them: what it holds, and how it would divide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssearch.config.settings import Split
from rssearch.data import segmentation_folder
from rssearch.data.family import Task
from rssearch.data.folder import PREFIX
from rssearch.data.listing import Files, Listing
from rssearch.data.registry import listing
from rssearch.data.scene_folders import KINDS
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.data.split import divide, divide_scenes
from rssearch.errors import InputError, cut
from rssearch.imaging.contents import Contents, scan, shown, without_image
from rssearch.imaging.headers import read_header
from rssearch.imaging.pixels import DECODE_ERRORS, check_image, reason
from rssearch.storage.location import expand

__all__ = ["MOST", "Survey", "survey"]

MOST = 500  # headers that are read; the images of a folder are mostly alike


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        root: the folder or zip lies in it.
        name: of the dataset below `root`, such as ``folder:mine``.
        task: of the labels.
        classes: names in the order of the labels.
        counts: images of each class; empty for scenes.
        images: how many images or scenes there are.
        train: how many images, or pixels of scenes, the default split trains on.
        sizes: (height, width) -> how many of the `looked_at` have it.
        looked_at: images or scenes whose headers were read, spread over all.
        unreadable: locations of those that cannot be read.
        divided: whether the folder comes divided into train and test.
        notes: what is left out, and what to know of the division: a sentence each.
    """

    root: Path
    name: str
    task: Task
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    images: int
    train: int
    sizes: Counter[tuple[int, int]]
    looked_at: int
    unreadable: tuple[str, ...]
    divided: bool
    notes: tuple[str, ...]


def survey(folder: str | Path) -> Survey:
    """Look at a folder with a folder of images for each class, one with ``images/`` and ``masks/``, or a zip of either.

    Raises:
        InputError: there is no such folder, it is no dataset, none of its images can be read, or it has too few to be
            divided into training, validation and test.
    """
    path = expand(folder)
    path = path.resolve() if path.name in ("", "..") else path
    if not str(path).isprintable():
        raise InputError(f"{cut(shown(str(path)), 300)}: the name has what is no printable UTF-8; rename the folder")
    if not path.exists():
        raise InputError(f"{cut(str(folder), 300)}: there is no such folder or zip")
    scenes = (path.is_dir() or path.suffix.lower() == ".zip") and _has_masks(str(folder), scan(path))
    name = (segmentation_folder.PREFIX if scenes else PREFIX) + path.name
    found = listing(name, path.parent)
    if isinstance(found, SceneListing):
        assert isinstance(found.source, Pairs)
        headers = _headers(found.source.images, range(len(found.names)))  # all: the division depends on them
        train, counts = _train_pixels(name, found, headers), ()
    else:
        assert isinstance(found.pixels, Files)
        chosen = np.linspace(0, len(found.names) - 1, MOST).round().astype(int)
        headers = _headers(found.pixels, np.unique(chosen).tolist())
        train, counts = _train_images(name, found), tuple(np.bincount(found.labels).tolist())
    return Survey(
        root=path.parent,
        name=name,
        task="segmentation" if scenes else "classification",
        classes=found.classes,
        counts=counts,
        images=len(found.names),
        train=train,
        sizes=Counter(size for size in headers.values() if size is not None),
        looked_at=len(headers),
        unreadable=tuple(location for location, size in headers.items() if size is None),
        divided=found.fixed is not None,
        notes=found.notes,
    )


def _has_masks(folder: str, contents: Contents) -> bool:
    if not contents.images:
        raise without_image(folder, contents.notes())
    folders = {folder for path, _ in contents.images for folder in path.split("/")[:-1]}
    return folders.issuperset(KINDS)


def _headers(files: Files, chosen: Iterable[int]) -> dict[str, tuple[int, int] | None]:
    """Location of each image -> its height and width; None where it cannot be read."""
    found: dict[str, tuple[int, int] | None] = {}
    for index in chosen:
        try:
            with files.open(index) as file:
                check_image(read_header(file))
            found[files.location(index)] = files.size(index)
        except DECODE_ERRORS as error:
            found[files.location(index)], why = None, reason(error)
    if not any(found.values()):
        raise InputError(f"{files.base}: none of the {len(found)} images looked at can be read; the last: {why}")
    return found


def _train_images(name: str, found: Listing) -> int:
    """How many images the default split trains on; classes that it leaves without one are refused."""
    sides = divide(found.names, found.labels, Split(), found.fixed, places=found.groups)
    present = np.bincount(found.labels[sides["train"]], minlength=len(found.classes))
    if absent := [label for label, count in zip(found.classes, present, strict=True) if count == 0]:
        raise InputError(f"dataset {name!r}: no training image for {', '.join(absent)}")
    if len(sides["val"]) == 0:
        raise InputError(f"dataset {name!r}: no validation image; bring at least three images of each class")
    return len(sides["train"])


def _train_pixels(name: str, found: SceneListing, headers: Mapping[str, tuple[int, int] | None]) -> int:
    """How many pixels of scenes the default split trains on."""
    pixels = [0 if size is None else size[0] * size[1] for size in headers.values()]
    try:
        sides = divide_scenes(found.names, found.groups, pixels, Split(), found.fixed)
    except InputError as error:
        raise InputError(f"dataset {name!r}: {error}") from None
    return sum(pixels[index] for index in sides["train"])
