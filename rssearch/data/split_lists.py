"""Divisions that text files give: ``train.txt``, ``val.txt`` and ``test.txt`` beside the images, with a name a line.

The names of the files may begin alike, as ``eurosat-spatial-train.txt`` does.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rssearch.data.listing import Files, Listing
from rssearch.data.names import NameIndex
from rssearch.data.split_folders import given, split_of
from rssearch.data.tables import read_lines
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, name_some, shown

__all__ = ["Sides", "Text", "divide_listing", "find_lists", "read_lists", "read_sides", "told"]

_NAME = re.compile(r"(?P<stem>(?:.*[-_. ])?)(?P<split>[A-Za-z]+)\.txt", re.IGNORECASE)


class Text(NamedTuple):
    """A list: where it lies, for messages, and its bytes."""

    place: str
    content: bytes


@dataclass(frozen=True)
class Sides:
    """What lists say.

    Attributes:
        files: the lists, for messages.
        splits: number of an image -> its split, by the numbers of the images; those in no list are not there.
        left: names of images that are in none.
    """

    files: tuple[str, ...]
    splits: Mapping[int, str]
    left: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """The images that are in no list."""
        if not self.left:
            return ()
        some = name_some(self.left)
        return (f"left out, as they are in none of {', '.join(self.files)}: {len(self.left)} images ({some})",)


def find_lists(contents: Contents) -> dict[str, str]:
    """Split -> path of its list, for lists that lie above all images; empty where there is no division in lists.

    Those that are found are no longer among the files that are not read.

    Raises:
        InputError: there are several divisions, or two lists of one split.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(contents.unread):
        folder, _, name = path.rpartition("/")
        match = _NAME.fullmatch(name)
        split = split_of(match["split"]) if match else None
        if match is None or split is None or not _is_above(contents, f"{folder}/" if folder else ""):
            continue
        beginning = f"{folder}/{match['stem']}" if folder else match["stem"]
        if split in found[beginning]:
            raise InputError(f"{contents.base}: {shown(found[beginning][split])} and {shown(path)} are the same split")
        found[beginning][split] = path
    divisions = [lists for lists in found.values() if "train" in lists and len(lists) > 1]
    if len(divisions) > 1:
        several = " and ".join(shown(lists["train"]) for lists in divisions)
        raise InputError(f"{contents.base}: {several} are lists of different divisions; leave one division there")
    lists = divisions[0] if divisions else {}
    contents.unread = [path for path in contents.unread if path not in lists.values()]
    return lists


def _is_above(contents: Contents, prefix: str) -> bool:
    return all(path.startswith(prefix) for path, _ in contents.images)


def read_lists(contents: Contents, lists: Mapping[str, str]) -> dict[str, Text]:
    """The texts of lists that `find_lists` has found, by their split."""
    return {
        split: Text(f"{contents.base}/{shown(path)}", Files(contents.base, (path,)).read(0))
        for split, path in lists.items()
    }


def read_sides(lists: Mapping[str, Text], names: Sequence[str], members: Sequence[str]) -> Sides:
    """What lists say of images.

    Args:
        lists: by their split.
        names: of the images.
        members: their paths below the base.

    Raises:
        InputError: a name is that of no image or of several, is there twice, or a list is empty.
    """
    index = NameIndex(names, members)
    splits: dict[int, str] = {}
    places: dict[int, str] = {}
    for split in sorted(lists):
        lines = read_lines(*lists[split])
        if not lines:
            raise InputError(f"{lists[split].place}: names no image")
        for line, name in lines:
            number = index.find(line, name)
            if number in places:
                raise InputError(f"{line}: {shown(name)} is there twice: it is in {places[number]}, too")
            splits[number], places[number] = split, line
    left = tuple(name for number, name in enumerate(names) if number not in splits)
    return Sides(tuple(text.place.rpartition("/")[2] for text in lists.values()), splits, left)


def told(names: Sequence[str], sides: Sequence[str]) -> str:
    """What a division says, as text for a fingerprint."""
    return "".join(f"{name}\t{side}\n" for name, side in sorted(zip(names, sides, strict=True)))


def divide_listing(found: Listing, lists: Mapping[str, Text]) -> Listing:
    """A listing of files as lists, by their split, divide it; images in no list are left out.

    Raises:
        InputError: as `read_sides`.
    """
    assert isinstance(found.pixels, Files)
    sides = read_sides(lists, found.names, found.pixels.members)
    kept = sorted(sides.splits)
    part = found.part(kept)
    fixed = given([sides.splits[number] for number in kept])
    assert fixed is not None  # two lists or more, none of them empty
    digest = hashlib.sha256(f"{found.fingerprint}\n{told(part.names, fixed)}".encode()).hexdigest()
    return replace(part, fixed=fixed, fingerprint=digest, notes=(*part.notes, *sides.notes))
