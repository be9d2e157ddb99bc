"""Where the images and masks of scenes lie: ``images/`` and ``masks/``, and the splits above or below them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rssearch.data.split_folders import HOW, recognise, split_of, without_labels
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, by_top, readable, shown

Found = tuple[str, int]  # path of a file below the base, size in bytes
KINDS = ("images", "masks")


@dataclass(frozen=True)
class SceneFiles:
    """Files of scenes by name.

    Attributes:
        images: scene -> its image.
        masks: scene -> its mask.
        splits: scene -> its split; empty where folders give no division.
        tables: folders that may hold the table of classes, each with a slash at the end, or empty.
        notes: what is left out.
    """

    images: Mapping[str, Found]
    masks: Mapping[str, Found]
    splits: Mapping[str, str]
    tables: tuple[str, ...]
    notes: tuple[str, ...]


def find_scenes(contents: Contents) -> SceneFiles:
    """Find images and masks: ``[folders/][split/]images/[split/]...`` and the same with ``masks``.

    The scenes of a split are called ``split/...``, whatever the case and the synonym of its folder, so that the image
    in ``images/Train`` has its mask in ``masks/train``.

    Raises:
        InputError: there are none, they lie in several places that are no splits, or splits are not clear.
    """
    where = str(contents.base)
    places = {kind: _places(contents, kind) for kind in KINDS}
    if not places["images"].keys() & places["masks"].keys():
        raise InputError(f"{where}: needs a folder images/ and beside it a folder masks/ with a mask for each image")
    above = _splits_above(contents, places["images"] + places["masks"])
    if len(above) > 1:
        folders = {kind: {f"{prefix}{kind}/": split for prefix, split in above.items()} for kind in KINDS}
        notes: tuple[str, ...] = ()
    else:
        folders, notes = _splits_below(contents, next(iter(above)))
    images, masks = (_named(contents, folders[kind]) for kind in KINDS)
    divided = {name: name.partition("/")[0] for name in images} if len(set(folders["images"].values())) > 1 else {}
    labelled = {name.partition("/")[0] for name in masks} if divided else set()
    lone = without_labels(where, "a mask", divided.values(), labelled & set(divided.values()))
    if divided:
        images = {name: file for name, file in images.items() if divided[name] in labelled}
    taken = {path for path, _ in (*images.values(), *masks.values())}
    lone += contents.note_outside(taken, "no scene with a mask")
    parents = {_parent(prefix) for prefix in above if split_of(_name(prefix))}
    return SceneFiles(
        images,
        masks,
        {name: divided[name] for name in images} if divided else {},
        (*parents, *above),
        (*notes, *lone),
    )


def _places(contents: Contents, kind: str) -> Counter[str]:
    """How many files lie in folders of this kind, by the folder that each of them is in."""
    found: Counter[str] = Counter()
    for path, _ in contents.images:
        folders = path.split("/")[:-1]
        first = next((number for number, name in enumerate(folders) if name in KINDS), None)
        if first is not None and folders[first] == kind:
            found["".join(f"{name}/" for name in folders[:first])] += 1
    return found


def _splits_above(contents: Contents, places: Counter[str]) -> dict[str, str]:
    """The split of each place; "" for the only one."""
    parents = {_parent(place) for place in places}
    if len(parents) == 1 and any(split_of(_name(place)) for place in places):
        contents.check_empty(min(parents), by_top(contents.images, min(parents)))
    if len(places) == 1:
        return dict.fromkeys(places, "")
    where = f"{contents.base}/{shown(min(parents))}".rstrip("/")
    names = {_name(place): place for place in places}
    splits = recognise(where, {name: places[place] for name, place in names.items()}) if len(parents) == 1 else {}
    if not splits:
        found = ", ".join(shown(f"{place}images/") for place in sorted(places)[:5])
        raise InputError(f"{contents.base}: images/ and masks/ lie in several places, as {found}; one is read. {HOW}")
    return {names[name]: split for name, split in splits.items()}


def _parent(folder: str) -> str:
    """The folder that a folder lies in, both with a slash at the end, or empty."""
    parent, slash, _ = folder.rstrip("/").rpartition("/")
    return parent + slash


def _name(folder: str) -> str:
    return folder.rstrip("/").rpartition("/")[2]


def _splits_below(contents: Contents, prefix: str) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Folder -> split for images and for masks, in one place; and notes on folders without an image."""
    folders: dict[str, dict[str, str]] = {}
    notes: list[str] = []
    for kind in KINDS:
        inner = f"{prefix}{kind}/"
        counts = by_top(contents.images, inner)
        notes += contents.check_empty(inner, counts)
        # A folder that stands alone is no division. The masks of a test split may be missing.
        if len(counts) == 1 and len(folders.get("images", ())) < 2:
            splits = {name: name.casefold() for name in counts if split_of(name)}
        else:
            splits = recognise(f"{contents.base}/{shown(inner)}".rstrip("/"), counts)
        folders[kind] = {f"{inner}{name}/": split for name, split in splits.items()} or {inner: ""}
    return folders, tuple(notes)


def _named(contents: Contents, folders: Mapping[str, str]) -> dict[str, Found]:
    """Files by their path below a folder, without its ending, after their split.

    Raises:
        InputError: two have the same name.
    """
    found: dict[str, Found] = {}
    for path, size in contents.images:
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        if folder is None:
            continue
        split = folders[folder]
        name = readable((f"{split}/" if split else "") + os.path.splitext(path.removeprefix(folder))[0])
        if name in found:
            raise InputError(f"{contents.base}/{shown(path)}: has the same name as {shown(found[name][0])}")
        found[name] = (path, size)
    return found
