r"""A user's own scenes: ``images/`` and ``masks/`` with equal names, and ``classes.json``, in a folder or a zip.

``classes.json`` is one of

* ``["background", "building"]``: masks have one 8-bit channel of class indices, 0 for the first name;
* ``{"land": "#8429F6", "water": "#E2A929"}``: masks have colours;
* ``{"classes": <one of these>, "ignore": ["unlabeled"], "group": "(tile\\d+)_"}``: pixels of the classes named by
  ``ignore`` (a name or a list) are left out; scenes for which the regular expression ``group`` finds the same text at
  the beginning of their name (the first bracket's, or all) are never in different splits. Without ``group`` every
  scene is a group.

The class index 255 is always left out. Masks are PNG, TIFF or BMP, because JPEG would change their values.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rssearch.data.listing import Files, scan
from rssearch.data.masks import IGNORE, LOSSY, MaskTable, index_table
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.errors import InputError

PREFIX = "segmentation_folder:"
TABLE = "classes.json"
Found = tuple[str, int]  # path of a file below the base, size in bytes
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
    entries = scan(base)
    prefix = prefix_of(base, entries)
    images, masks = (_by_stem(base, entries, f"{prefix}{folder}/") for folder in ("images", "masks"))
    return pairs(base, images, masks, read_legend(base, prefix))


def prefix_of(base: Path, entries: Sequence[Found]) -> str:
    """Where images/ and masks/ lie below a folder or zip: at its top, or below folders that stand alone there."""
    tops = [path[: path.index("images/")] for path, _ in entries if f"/{path}".find("/images/") >= 0]
    prefixes = sorted({top for top in tops if top == "" or top.endswith("/")}, key=lambda top: (top.count("/"), top))
    for prefix in prefixes:
        if any(path.startswith(f"{prefix}masks/") for path, _ in entries):
            return prefix
    raise InputError(f"{base}: needs a folder images/ and beside it a folder masks/ with a mask for each image")


def pairs(base: Path, images: Mapping[str, Found], masks: Mapping[str, Found], legend: Legend) -> SceneListing:
    """The listing of images and masks that have the same names.

    Raises:
        InputError: an image has no mask or the other way round, a mask is in a lossy format, or the group rule does
            not match; it names the file.
    """
    for have, want, kind in ((images, masks, "mask"), (masks, images, "image")):
        lone = sorted(have.keys() - want.keys())
        if lone:
            more = f", nor have {len(lone) - 1} others" if len(lone) > 1 else ""
            raise InputError(f"{base}/{have[lone[0]][0]}: has no {kind} of the same name{more}")
    lossy = sorted(path for path, _ in masks.values() if os.path.splitext(path)[1].lower() in LOSSY)
    if lossy:
        raise InputError(f"{base}/{lossy[0]}: a mask must be PNG, TIFF or BMP; this format changes class indices")
    names = tuple(sorted(images))
    digest = hashlib.sha256(f"{legend.classes} {sorted(legend.table.classes.items())}\n".encode())
    for name in names:
        digest.update(f"{name}\t{images[name][1]}\t{masks[name][1]}\n".encode())
    return SceneListing(
        where=str(base),
        classes=legend.classes,
        names=names,
        groups=tuple(_group(base, name, legend.group) for name in names),
        fingerprint=digest.hexdigest(),
        source=Pairs(_files(base, names, images), _files(base, names, masks), legend.table),
    )


def _files(base: Path, names: Sequence[str], found: Mapping[str, Found]) -> Files:
    return Files(base, tuple(found[name][0] for name in names))


def _by_stem(base: Path, entries: Sequence[Found], folder: str) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for path, size in entries:
        if path.startswith(folder):
            stem = os.path.splitext(path.removeprefix(folder))[0]
            if stem in found:
                raise InputError(f"{base}/{path}: has the same name as {found[stem][0]}")
            found[stem] = (path, size)
    return found


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
        if base.is_dir():
            text = Path(place).read_text(encoding="utf-8")
        else:
            with zipfile.ZipFile(base) as archive:
                text = archive.read(prefix + TABLE).decode("utf-8")
        content = json.loads(text)
    except (FileNotFoundError, KeyError):
        raise InputError(f"{base}: {HINT}") from None
    except (OSError, ValueError) as error:
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
    names = list(content) if isinstance(content, list | dict) else []
    if len(names) < 2 or len(names) > IGNORE or not all(isinstance(name, str) for name in names):
        raise InputError(f"{place}: classes must be a list of 2 to {IGNORE} names, or a mapping of names to colours")
    if len(set(names)) < len(names):
        raise InputError(f"{place}: classes: {next(n for n in names if names.count(n) > 1)!r} stands twice")
    ignored = [ignore] if isinstance(ignore, str) else ignore
    if not isinstance(ignored, list) or (strange := [name for name in ignored if name not in names]):
        what = repr(strange[0]) if isinstance(ignored, list) else repr(ignore)
        raise InputError(f"{place}: ignore: {what} is none of the classes {', '.join(names)}")
    if len(names) - len(ignored) < 2:
        raise InputError(f"{place}: two or more classes must be left beside those that are ignored")
    classes = tuple(name for name in names if name not in ignored)
    if isinstance(content, list):
        return classes, index_table(len(names), [names.index(name) for name in ignored])
    table: dict[int, int] = {}
    for name, colour in content.items():
        if not isinstance(colour, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
            raise InputError(f"{place}: classes: the colour of {name!r} is {colour!r}, but must be as #RRGGBB")
        value = int(colour[1:], 16)
        if value in table:
            raise InputError(f"{place}: classes: {name!r} has the colour {colour} of another class")
        table[value] = IGNORE if name in ignored else classes.index(name)
    return classes, MaskTable(table, colours=True)
