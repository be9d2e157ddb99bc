"""Names of datasets, and the way from a name to images in memory."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Patches, Split
from rssearch.data import (
    buildings,
    cifar,
    dubai,
    eurosat,
    imagenet,
    inria,
    isprs,
    landcover_ai,
    loveda,
    resisc45,
    segmentation_folder,
    synthetic,
    ucmerced,
)
from rssearch.data.copies import array_digests, crossing
from rssearch.data.decode import Progress, broken_message, common_shape, decode_all, moments, pixel_sums
from rssearch.data.family import Family, Task
from rssearch.data.folder import PREFIX, open_folder
from rssearch.data.imageset import ImageSet
from rssearch.data.listing import Files, Listing
from rssearch.data.sceneload import load_scenes
from rssearch.data.scenes import SceneListing
from rssearch.data.sceneset import AnyDataset, AnySet
from rssearch.data.split import divide, split_hash
from rssearch.data.split_file import as_settings_say
from rssearch.data.streaming import Stream, node_memory
from rssearch.errors import DataWarning, InputError, unknown
from rssearch.imaging.pixels import Pixels
from rssearch.storage.location import expand

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *cifar.FAMILIES,
        buildings.FAMILY,
        dubai.FAMILY,
        *eurosat.FAMILIES,
        imagenet.FAMILY,
        *inria.FAMILIES,
        *isprs.FAMILIES,
        *landcover_ai.FAMILIES,
        *loveda.FAMILIES,
        resisc45.FAMILY,
        synthetic.FAMILY,
        ucmerced.FAMILY,
    )
}
ALIASES = {"eurosat_rgb": "eurosat"}
FOLDERS: dict[str, tuple[Task, Callable[[str, Path], Listing | SceneListing]]] = {
    PREFIX: ("classification", open_folder),
    segmentation_folder.PREFIX: ("segmentation", segmentation_folder.open_folder),
}


def list_datasets() -> list[str]:
    """The registered names.

    ``folder:PATH``, ``segmentation_folder:PATH`` and the alias ``eurosat_rgb`` are understood as well.
    """
    return sorted(FAMILIES)


def summary() -> list[dict[str, str]]:
    """One row for each dataset: name, task, summary, source, and whether it can be downloaded."""
    rows = [
        {
            "name": family.name,
            "task": family.task,
            "summary": family.summary,
            "source": family.source,
            "download": "yes" if family.fetch else "no" if family.by_hand else "not needed",
        }
        for _, family in sorted(FAMILIES.items())
    ]
    own = {
        PREFIX: "your own images: one folder for each class, or a zip of them",
        segmentation_folder.PREFIX: "your own scenes: images/, masks/ and classes.json, or a zip of them",
    }
    for prefix, text in own.items():
        row = {"name": f"{prefix}PATH", "task": FOLDERS[prefix][0], "summary": text}
        rows.append(row | {"source": "PATH is relative to the data root", "download": "no"})
    return rows


def task(name: str) -> Task:
    """What a dataset's targets are, known from its name alone. Raises InputError for an unknown name."""
    return FOLDERS[prefix][0] if (prefix := prefix_of(name)) else find(name).task


def prefix_of(name: str) -> str | None:
    """The beginning of the name of a user's own folder, such as ``folder:``; None for registered names."""
    return next((prefix for prefix in FOLDERS if name.startswith(prefix)), None)


def find(name: str) -> Family:
    """The family of a registered name. Raises InputError with the known names."""
    family = FAMILIES.get(ALIASES.get(name, name))
    if family is None:
        raise unknown("dataset", name, [*FAMILIES, *ALIASES, *(f"{prefix}PATH" for prefix in FOLDERS)])
    return family


def listing(name: str, root: str | Path) -> Listing | SceneListing:
    """Find a dataset without reading its pixels.

    Raises:
        InputError: the name is unknown, or the dataset is not there; the message names the places looked at.
    """
    base = expand(root)
    prefix = prefix_of(name)
    return FOLDERS[prefix][1](name, base) if prefix else find(name).listing(base, name)


def divided(name: str, root: str | Path, split: Split) -> Listing | SceneListing:
    """As `listing`, with the division or the places that `settings.split` gives.

    Raises:
        InputError: as `listing`, or they do not go with the images.
    """
    found = listing(name, root)
    return as_settings_say(found, split)


def fingerprint(name: str, root: str | Path) -> str:
    """sha256 over the name and size of every file: cheap, and the same for a tree and for a zip of it.

    Raises:
        InputError: as `listing`.
    """
    return listing(name, root).fingerprint


def fetch(name: str, root: str | Path) -> str:
    """Download a dataset into a data root, unless it is there already, and say where it is.

    Raises:
        InputError: it cannot be downloaded.
    """
    if prefix_of(name):
        return listing(name, root).where
    family = find(name)
    try:
        return listing(name, root).where
    except InputError:
        if family.fetch is None:
            raise
    base = expand(root)
    try:
        base.mkdir(parents=True, exist_ok=True)
        family.fetch(base)
    except (OSError, RuntimeError) as error:  # no network, no space; a checksum that does not match
        raise InputError(f"dataset {name!r} could not be downloaded into {base}: {error}") from error
    return listing(name, root).where


def load(
    name: str,
    root: str | Path,
    *,
    input_size: int | None = None,
    split: Split = Split(),  # noqa: B008  (frozen)
    patches: Patches = Patches(),  # noqa: B008
    on_error: Literal["raise", "skip"] = "raise",
    download: bool = False,
    memory_share: float = 0.4,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AnySet:
    """Read a dataset, check every image, and divide it.

    Args:
        name: a registered name, ``folder:PATH`` or ``segmentation_folder:PATH``.
        root: the data root, or the dataset's own folder or zip.
        input_size: height and width of the images; None takes their own, which must then be the same for all. Scenes
            of segmentation sets are never scaled.
        split: shares of the images. A published test set stays the test set. Scenes are divided by group, with shares
            of their pixels.
        patches: windows that scenes are cut into.
        on_error: ``raise`` names the images that cannot be read, ``skip`` leaves them out and reports them.
        download: fetch a missing dataset into the root.
        memory_share: a set larger than this share of the node's memory is streamed from its files, scenes from
            decoded copies in the cache folder, see `rssearch.data.scenestore`.
        workers: decoding threads; None takes the CPUs of this process.
        progress: called with (images done, images in all).

    Warns:
        DataWarning: each of the result's notes: files that are left out, images that given splits have in common.

    Raises:
        InputError: unknown name, missing dataset, unreadable images, images that differ in size without
            `input_size`, an `input_size` for scenes, or a class without a training image.
    """
    if on_error not in ("raise", "skip"):
        raise unknown("on_error", on_error, ("raise", "skip"))
    check_input_size(name, input_size)
    if download:
        fetch(name, root)
    found = divided(name, root, split)
    images: AnySet
    if isinstance(found, SceneListing):
        images = load_scenes(
            name, found, split=split, patches=patches, on_error=on_error, memory_share=memory_share, workers=workers,
            progress=progress,
        )  # fmt: skip
    elif isinstance(found.pixels, Files):
        images = _from_files(
            name, found, found.pixels, input_size=input_size, split=split, on_error=on_error, memory_share=memory_share,
            workers=workers, progress=progress,
        )  # fmt: skip
    else:
        images = _from_arrays(name, found, found.pixels, input_size, split, progress)
    for note in images.notes:
        warnings.warn(f"{name}: {note}", DataWarning, stacklevel=2)
    return images


def check_input_size(name: str, input_size: int | None) -> None:
    """Raise InputError where the images of a set cannot be scaled, or its name is unknown."""
    if task(name) == "segmentation" and input_size is not None:
        raise InputError(
            f"input_size: must be null for dataset {name!r}, not {input_size}: scenes are cut into patches "
            "(settings.patches.size), never scaled"
        )


def create(
    name: str,
    root: str | Path,
    split: str,
    *,
    shares: Split = Split(),  # noqa: B008  (frozen)
    **options: Any,
) -> AnyDataset:
    """One split of a dataset as a map-style torch dataset.

    Args:
        name: a registered name, or ``folder:PATH``.
        root: the data root.
        split: ``train``, ``val`` or ``test``.
        shares: how the images are divided.
        **options: the other options of `load`.

    Raises:
        InputError: as `load`, and for another split.
    """
    if split not in ("train", "val", "test"):
        raise unknown("split", split, ("train", "val", "test"))
    return load(name, root, split=shares, **options).split(split)


def _from_arrays(
    name: str,
    found: Listing,
    pixels: Callable[[int | None], Pixels],
    input_size: int | None,
    split: Split,
    progress: Progress | None,
) -> ImageSet:
    images = pixels(input_size)
    if progress is not None:
        progress(len(images), len(images))
    sums = np.stack([pixel_sums(image) for image in images])
    if found.fixed is not None:
        notes = crossing(array_digests(pixels(None)), found.names, found.fixed)
        found = dataclasses.replace(found, notes=(*found.notes, *notes))
    return _assemble(name, found, images, sums=sums, split=split, groups=None, skipped=())


def _from_files(
    name: str,
    found: Listing,
    files: Files,
    *,
    input_size: int | None,
    split: Split,
    on_error: str,
    memory_share: float,
    workers: int | None,
    progress: Progress | None,
) -> ImageSet:
    shape = (3, input_size, input_size) if input_size is not None else common_shape(files, workers)
    keep = len(files) * int(np.prod(shape)) <= memory_share * node_memory()
    result = decode_all(files, shape, keep=keep, workers=workers, progress=progress)
    broken = tuple(f"{files.location(index)}: {reason}" for index, reason in sorted(result.errors.items()))
    if broken and on_error == "raise":
        raise InputError(broken_message(name, broken, len(files)))
    good = np.array([index for index in range(len(files)) if index not in result.errors], dtype=np.int64)
    groups = [result.digests[index] for index in good]
    images: Pixels | Stream
    if broken:
        found = dataclasses.replace(
            found,
            names=tuple(found.names[index] for index in good),
            labels=found.labels[good],
            fixed=tuple(found.fixed[index] for index in good) if found.fixed else None,
            groups=tuple(found.groups[index] for index in good) if found.groups else None,
        )
        files = Files(files.base, tuple(files.members[index] for index in good))
        result = dataclasses.replace(
            result, images=None if result.images is None else result.images[good], sums=result.sums[good]
        )
    images = Stream(files, (len(good), *shape), workers) if result.images is None else result.images
    found = dataclasses.replace(found, notes=(*found.notes, *crossing(groups, found.names, found.fixed)))
    return _assemble(name, found, images, sums=result.sums, split=split, groups=groups, skipped=broken)


def _assemble(
    name: str,
    found: Listing,
    images: Pixels | Stream,
    *,
    sums: npt.NDArray[np.int64],
    split: Split,
    groups: Sequence[bytes] | None,
    skipped: tuple[str, ...],
) -> ImageSet:
    indices = divide(found.names, found.labels, split, found.fixed, groups, found.groups)
    train = indices["train"]
    present = Counter(found.labels[train].tolist())
    absent = [label for position, label in enumerate(found.classes) if present[position] == 0]
    if absent:
        why = f" ({len(skipped)} images were skipped)" if skipped else ""
        raise InputError(f"dataset {name!r}: no training image for {', '.join(absent)}{why}")
    mean, std = moments(sums[train].sum(0), len(train) * images.shape[2] * images.shape[3])
    return ImageSet(
        name=name,
        classes=found.classes,
        images=images,
        labels=found.labels,
        indices=indices,
        mean=mean,
        std=std,
        fingerprint=found.fingerprint,
        split_hash=split_hash(found.names, indices),
        skipped=skipped,
        notes=found.notes,
        listed=np.frombuffer("\0".join(found.names).encode(), np.uint8),
    )
