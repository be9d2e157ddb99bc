"""Names of datasets, and the way from a name to images in memory."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from rssearch.config.settings import Patches, Scale, Split
from rssearch.data import (
    buildings,
    cifar,
    dubai,
    eurosat,
    eurosat_ms,
    imagenet,
    inria,
    isprs,
    landcover_ai,
    loveda,
    multilabel_folder,
    raster_folder,
    resisc45,
    segmentation_folder,
    synthetic,
    synthetic_bands,
    ucmerced,
)
from rssearch.data.decode import Progress
from rssearch.data.family import Family, Task
from rssearch.data.folder import PREFIX, open_folder
from rssearch.data.imageload import from_encoded, from_generated
from rssearch.data.listing import Files, Listing
from rssearch.data.multilabel import is_multiple
from rssearch.data.reading import ALL, Options
from rssearch.data.sceneload import load_scenes
from rssearch.data.scenes import SceneListing
from rssearch.data.sceneset import AnyDataset, AnySet
from rssearch.data.split_file import as_settings_say
from rssearch.errors import DataWarning, InputError, shown, unknown
from rssearch.storage.location import expand

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *cifar.FAMILIES,
        buildings.FAMILY,
        dubai.FAMILY,
        *eurosat.FAMILIES,
        *eurosat_ms.FAMILIES,
        imagenet.FAMILY,
        *inria.FAMILIES,
        *isprs.FAMILIES,
        *landcover_ai.FAMILIES,
        *loveda.FAMILIES,
        resisc45.FAMILY,
        synthetic.FAMILY,
        synthetic_bands.FAMILY,
        ucmerced.FAMILY,
    )
}
_ROOT = "data"  # unless a study says another one
ALIASES = {"eurosat_rgb": "eurosat"}
FOLDERS: dict[str, tuple[Task | None, Callable[[str, Path], Listing | SceneListing]]] = {
    PREFIX: ("classification", open_folder),
    segmentation_folder.PREFIX: ("segmentation", segmentation_folder.open_folder),
    raster_folder.PREFIX: (None, raster_folder.open_folder),  # its folders say it
    multilabel_folder.PREFIX: ("multilabel", multilabel_folder.open_folder),
    multilabel_folder.RASTERS: ("multilabel", multilabel_folder.open_rasters),
}


def list_datasets() -> list[str]:
    """The registered names.

    ``folder:PATH``, ``segmentation_folder:PATH``, ``raster_folder:PATH`` and the alias ``eurosat_rgb`` are understood
    as well.
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
        raster_folder.PREFIX: "your own rasters of any bands and type, laid out as either of these",
        multilabel_folder.PREFIX: "your own images with several labels each, in a labels.csv",
        multilabel_folder.RASTERS: "your own rasters with several labels each, in a labels.csv",
    }
    for prefix, text in own.items():
        row = {"name": f"{prefix}PATH", "task": FOLDERS[prefix][0] or "either", "summary": text}
        rows.append(row | {"source": "PATH is relative to the data root", "download": "no"})
    return rows


def task(name: str) -> Task | None:
    """What a dataset's targets are, known from its name alone; None for ``raster_folder:PATH``, whose folders say it.

    Raises:
        InputError: the name is unknown.
    """
    return FOLDERS[prefix][0] if (prefix := prefix_of(name)) else find(name).task


def task_in(name: str, root: str | Path) -> Task:
    """What a dataset's targets are, as it lies below a data root. Raises InputError as `listing`."""
    return task(name) or task_of(listing(name, root))


def task_of(found: Listing | SceneListing) -> Task:
    """What the targets of a listing are."""
    if isinstance(found, SceneListing):
        return "segmentation"
    return "multilabel" if is_multiple(found.labels) else "classification"


def prefix_of(name: str) -> str | None:
    """The beginning of the name of a user's own folder, such as ``folder:``; None for registered names."""
    return next((prefix for prefix in FOLDERS if name.startswith(prefix)), None)


def find(name: str) -> Family:
    """The family of a registered name. Raises InputError with the known names."""
    family = FAMILIES.get(ALIASES.get(name, name))
    if family is None:
        known = [*FAMILIES, *ALIASES, *(f"{prefix}PATH" for prefix in FOLDERS)]
        if (folder := _as_folder(name)) is not None:
            raise InputError(
                f"unknown dataset {shown(name)}. Did you mean {shown(folder)}? PATH is relative to the data root. "
                f"Known: {', '.join(sorted(known))}."
            )
        raise unknown("dataset", name, known)
    return family


def _as_folder(name: str) -> str | None:
    """How a folder or a zip of images that is called by its path alone is named, for the usual data root."""
    with suppress(OSError, ValueError):  # what can be no path
        for place, path in ((Path(_ROOT, name), name), (Path(name), str(Path(name).absolute()))):
            if place.is_dir() or (place.suffix.lower() == ".zip" and place.is_file()):
                scenes = (place / "images").is_dir() and (place / "masks").is_dir()
                inside = Path(name).parts[:1] == (_ROOT,) and place == Path(name)
                relative = str(Path(*Path(name).parts[1:])) if inside else path
                return f"{segmentation_folder.PREFIX if scenes else PREFIX}{relative}"
    return None


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
    bands: Options = ALL,
    scale: Scale | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    download: bool = False,
    memory_share: float = 0.4,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AnySet:
    """Read a dataset, check every image, and divide it.

    Args:
        name: a registered name, ``folder:PATH``, ``segmentation_folder:PATH`` or ``raster_folder:PATH``.
        root: the data root, or the dataset's own folder or zip.
        input_size: height and width of the images; None takes their own, which must then be the same for all. Scenes
            of segmentation sets are never scaled.
        split: shares of the images. A published test set stays the test set. Scenes are divided by group, with shares
            of their pixels.
        patches: windows that scenes are cut into.
        bands: of rasters, which are read, what they are called, and the value of pixels without data.
        scale: what the values of pixels mean; None: what is known of the set, of 8 bits a division by 255, else
            percentiles 2 and 98 of each band.
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
        check_input_size(name, input_size, "segmentation")
        images = load_scenes(
            name, found, split=split, patches=patches, bands=bands, scale=scale, on_error=on_error,
            memory_share=memory_share, workers=workers, progress=progress,
        )  # fmt: skip
    elif isinstance(found.pixels, Files):
        images = from_encoded(
            name, dataclasses.replace(found, reader=found.reader.given(bands)), found.pixels, input_size=input_size,
            split=split, scale=scale, on_error=on_error, memory_share=memory_share, workers=workers, progress=progress,
        )  # fmt: skip
    else:
        images = from_generated(name, found, found.pixels, input_size, split, bands, scale, progress)
    for note in images.notes:
        warnings.warn(f"{name}: {note}", DataWarning, stacklevel=2)
    return images


def check_input_size(name: str, input_size: int | None, own: Task | None = None) -> None:
    """Raise InputError where the images of a set cannot be scaled, or its name is unknown.

    Args:
        name: of the set.
        input_size: that is asked for.
        own: the task, where the name does not say it.
    """
    if (task(name) or own) == "segmentation" and input_size is not None:
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
