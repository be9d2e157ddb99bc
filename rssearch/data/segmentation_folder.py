r"""A user's own scenes: ``images/`` and ``masks/`` with equal names, and ``classes.json``, in a folder or a zip.

``classes.json`` is one of

* ``["background", "building"]``: masks have one band of class indices, 0 for the first name;
* ``{"0": "background", "255": "building"}``: masks have one band of these values;
* ``{"land": "#8429F6", "water": "#E2A929"}``, or colours to names, which may repeat: masks have colours;
* ``{"classes": <one of these>, "ignore": ["unlabeled", 9], "group": "(tile\\d+)_"}``: pixels of the classes, values
  and colours in ``ignore`` (one of them or a list) are left out; scenes for which the regular expression ``group``
  finds the same text at the beginning of their name (the first bracket's, or all) are never in different splits.
  Without ``group`` every scene is a group.

``train.txt``, ``val.txt`` and ``test.txt`` beside these folders, a scene's name a line, are the division where folders
give none. The value 255 is left out where no class has it. Values may have 8, 16 or 32 bits. Masks are PNG, TIFF or
BMP, because JPEG would change their values.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from rssearch.data.listing import Files
from rssearch.data.masks import IGNORE, LOSSY, MaskTable
from rssearch.data.reading import RGB, Reader
from rssearch.data.scene_folders import Found, SceneFiles, find_scenes
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.data.split_folders import given
from rssearch.data.split_lists import Text, find_lists, read_lists, read_sides
from rssearch.data.vectors import check_vectors
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, scan, shown
from rssearch.imaging.pixels import DECODE_ERRORS

PREFIX = "segmentation_folder:"
TABLE = "classes.json"
VALUE = re.compile(r"0|-?[1-9]\d{0,9}")
COLOUR = re.compile("#[0-9A-Fa-f]{6}")
FORMS = (
    f'a list of 2 to {IGNORE} names, or a mapping of values to names ({{"0": "land", "255": "water"}}), of names to '
    'colours ({"land": "#8429F6"}) or of colours to names'
)
HINT = f'needs {TABLE} beside images/ and masks/, for example ["background", "building"] or {{"land": "#8429F6"}}'


@dataclass(frozen=True)
class Legend:
    """What a ``classes.json`` says."""

    classes: tuple[str, ...]
    table: MaskTable
    group: re.Pattern[str] | None = None


def open_folder(name: str, root: Path) -> SceneListing:
    """List ``segmentation_folder:PATH``, with PATH relative to the data root.

    Raises:
        InputError: there is nothing at the path, no table of classes, an image without a mask or a mask without an
            image.
    """
    path = name.removeprefix(PREFIX)
    if not path:
        raise InputError(f"dataset {name!r} needs a path, for example {PREFIX}my_scenes or {PREFIX}my_scenes.zip")
    base = root / path
    if not base.exists():
        raise InputError(f"dataset {name!r}: {base} does not exist; give a folder or a zip with images/ and masks/")
    if not (base.is_dir() or base.suffix.lower() == ".zip"):
        raise InputError(f"dataset {name!r}: {base} is neither a folder nor a zip archive")
    return from_contents(scan(base))


def from_contents(contents: Contents, reader: Reader = RGB) -> SceneListing:
    """List images, masks and their table of classes. Raises InputError as `open_folder`."""
    check_vectors(contents)
    base, found = contents.base, find_scenes(contents)
    tables = [folder for folder in found.tables if f"{folder}{TABLE}" in contents.unread]
    legends = [read_legend(base, folder) for folder in tables or found.tables[:1]]
    if any(legend != legends[0] for legend in legends):
        raise InputError(f"{base}: {' and '.join(shown(folder + TABLE) for folder in tables)} differ; one is needed")
    contents.unread = [path for path in contents.unread if path.removesuffix(TABLE) not in tables]
    lists = {} if found.splits else read_lists(contents, find_lists(contents))
    if lists:
        found = _divided(found, lists)
    notes = (*contents.notes(), *found.notes)
    return pairs(base, found.images, found.masks, legends[0], splits=found.splits, notes=notes, reader=reader)


def _divided(found: SceneFiles, lists: Mapping[str, Text]) -> SceneFiles:
    """The scenes that lists name, in their splits. Raises InputError as `rssearch.data.split_lists.read_sides`."""
    names = sorted(found.images)
    sides = read_sides(lists, names, [found.images[name][0] for name in names])
    splits = {names[number]: split for number, split in sides.splits.items()}
    left = set(sides.left)
    images, masks = ({n: f for n, f in files.items() if n not in left} for files in (found.images, found.masks))
    return replace(found, images=images, masks=masks, splits=splits, notes=(*found.notes, *sides.notes))


def pairs(
    base: Path,
    images: Mapping[str, Found],
    masks: Mapping[str, Found],
    legend: Legend,
    *,
    splits: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
    reader: Reader = RGB,
) -> SceneListing:
    """The listing of images and masks that have the same names, divided by `splits` where there are some.

    Raises:
        InputError: an image has no mask or the other way round, a mask is in a lossy format, the group rule does not
            match, or a group lies in several splits; it names the file.
    """
    for have, want, kind in ((images, masks, "mask"), (masks, images, "image")):
        lone = sorted(have.keys() - want.keys())
        if lone:
            more = f", nor have {len(lone) - 1} others" if len(lone) > 1 else ""
            raise InputError(f"{base}/{shown(have[lone[0]][0])}: has no {kind} of the same name{more}")
    lossy = sorted(path for path, _ in masks.values() if os.path.splitext(path)[1].lower() in LOSSY)
    if lossy:
        raise InputError(
            f"{base}/{shown(lossy[0])}: a mask must be PNG, TIFF or BMP; this format changes class indices"
        )
    names = tuple(sorted(images))
    digest = hashlib.sha256(f"{legend.classes} {sorted(legend.table.classes.items())}\n".encode())
    for name in names:
        digest.update(f"{name}\t{images[name][1]}\t{masks[name][1]}\n".encode())
    groups = tuple(_group(base, name, legend.group) for name in names)
    fixed = given([splits[name] for name in names]) if splits else None
    if fixed is not None:
        digest.update(f"{fixed}\n".encode())
        _check_groups(base, groups, fixed)
    return SceneListing(
        where=str(base),
        classes=legend.classes,
        names=names,
        groups=groups,
        fingerprint=digest.hexdigest(),
        source=Pairs(_files(base, names, images), _files(base, names, masks), legend.table, reader),
        fixed=fixed,
        notes=notes,
    )


def _check_groups(base: Path, groups: Sequence[str], fixed: Sequence[str]) -> None:
    """Groups are never in different splits: refuse folders that say otherwise."""
    side: dict[str, str] = {}
    for group, split in zip(groups, fixed, strict=True):
        if side.setdefault(group, split) != split:
            raise InputError(
                f"{base}: the scenes of the group {group!r} lie in the folders of {side[group]} and of {split}; mend "
                f"the folders, or leave group out of {TABLE}"
            )


def _files(base: Path, names: Sequence[str], found: Mapping[str, Found]) -> Files:
    return Files(base, tuple(found[name][0] for name in names))


def _group(base: Path, name: str, rule: re.Pattern[str] | None) -> str:
    if rule is None:
        return name
    match = rule.match(PurePosixPath(name).name)
    if match is None:
        raise InputError(f"{base}: the group rule {rule.pattern!r} does not match the scene {name!r}")
    return match.group(1) if rule.groups else match.group()


def read_legend(base: Path, prefix: str) -> Legend:
    """Read and check ``classes.json``. Raises InputError with the entry that is wrong."""
    place = f"{base}/{prefix}{TABLE}"
    try:
        content = json.loads(Files(base, (prefix + TABLE,)).read(0).decode("utf-8"), object_pairs_hook=_once)
    except (FileNotFoundError, KeyError):
        raise InputError(f"{base}: {HINT}") from None
    except (*DECODE_ERRORS, RuntimeError) as error:  # encrypted: a RuntimeError
        raise InputError(f"{place}: is not valid JSON: {error}") from None
    options: dict[str, Any] = {}
    if isinstance(content, dict) and "classes" in content and not isinstance(content["classes"], str):
        options = {key: value for key, value in content.items() if key != "classes"}
        content = content["classes"]
    if strange := sorted(options.keys() - {"ignore", "group"}):
        raise InputError(f"{place}: unknown key {strange[0]!r}; allowed: classes, group, ignore")
    classes, table = _table(place, content, options.get("ignore", []))
    try:
        rule = re.compile(options["group"]) if "group" in options else None
    except (re.error, TypeError) as error:
        raise InputError(f"{place}: group: {options['group']!r} is not a regular expression: {error}") from None
    return Legend(classes, table, rule)


def _table(place: str, content: Any, ignore: Any) -> tuple[tuple[str, ...], MaskTable]:
    """The classes, and the table of what values or colours of masks mean."""
    values, colours = _values(place, content)
    names = tuple(dict.fromkeys(values.values()))
    if not 2 <= len(names) <= IGNORE:
        raise InputError(f"{place}: classes: {len(names)} names; there must be 2 to {IGNORE}")
    dropped, unclaimed = _ignored(place, ignore if isinstance(ignore, list) else [ignore], values, colours=colours)
    if len(names) - len(dropped) < 2:
        raise InputError(f"{place}: two or more classes must be left beside those that are ignored")
    classes = tuple(name for name in names if name not in dropped)
    table = {value: IGNORE if name in dropped else classes.index(name) for value, name in values.items()}
    table |= dict.fromkeys(unclaimed, IGNORE)
    if not colours:
        table.setdefault(IGNORE, IGNORE)
    return classes, MaskTable(table, colours)


def _values(place: str, content: Any) -> tuple[dict[int, str], bool]:
    """The name of each value of the masks, and whether the values are colours."""
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        if len(set(content)) < len(content):
            raise InputError(f"{place}: classes: {next(n for n in content if content.count(n) > 1)!r} stands twice")
        return dict(enumerate(content)), False
    if not isinstance(content, dict) or not all(isinstance(entry, str) for entry in content.values()):
        raise InputError(f"{place}: classes must be {FORMS}")
    if content and all(VALUE.fullmatch(key) for key in content) and not any(map(COLOUR.fullmatch, content.values())):
        return {int(key): name for key, name in content.items()}, False
    values: dict[int, str] = {}
    if content and all(map(COLOUR.fullmatch, content)) and not any(map(COLOUR.fullmatch, content.values())):
        for colour, name in content.items():
            if (value := int(colour[1:], 16)) in values:
                raise InputError(f"{place}: classes: {colour} stands twice, in upper and in lower case")
            values[value] = name
        return values, True
    for name, colour in content.items():
        if not COLOUR.fullmatch(colour):
            raise InputError(
                f"{place}: classes: the colour of {name!r} is {colour!r}, but must be as #RRGGBB; classes may be "
                f"{FORMS}"
            )
        if (value := int(colour[1:], 16)) in values:
            raise InputError(f"{place}: classes: {name!r} has the colour {colour} of another class")
        values[value] = name
    return values, True


def _ignored(
    place: str, ignore: Sequence[Any], values: Mapping[int, str], *, colours: bool
) -> tuple[frozenset[str], frozenset[int]]:
    """The names of classes, and the values of no class, that are left out."""
    dropped, unclaimed = set(), set()
    for entry in ignore:
        value = None
        if colours and isinstance(entry, str) and COLOUR.fullmatch(entry):
            value = int(entry[1:], 16)
        elif not colours and isinstance(entry, int) and not isinstance(entry, bool):
            value = entry
        if isinstance(entry, str) and entry in values.values():
            dropped.add(entry)
        elif value is None or value.bit_length() > 32:
            kind = "a colour (#RRGGBB)" if colours else "a whole number"
            known = ", ".join(dict.fromkeys(values.values()))
            raise InputError(f"{place}: ignore: {entry!r} is none of the classes {known}, nor {kind}")
        elif value in values:
            raise InputError(f"{place}: ignore: {entry!r} is the class {values[value]!r}; name it to leave it out")
        else:
            unclaimed.add(value)
    return frozenset(dropped), frozenset(unclaimed)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of JSON, in which the last of equal keys would win without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return content
