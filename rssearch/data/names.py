"""Images by the names that lists and tables call them."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rssearch.errors import InputError
from rssearch.imaging.contents import EXTENSIONS, name_some, shown

__all__ = ["NameIndex"]


class NameIndex:
    """Finds the image that a line means.

    An image is called by its path below the dataset's folder or below that of the classes; by this without its ending
    or with another one, as lists of GeoTIFFs serve their JPEG copies; or, where no other image has it, by the name of
    its file alone.

    Args:
        names: of the images.
        members: their paths below the dataset's folder or zip, where they lie in one.
    """

    def __init__(self, names: Sequence[str], members: Sequence[str] = ()) -> None:
        self.names = names
        self._paths: dict[str, set[int]] = defaultdict(set)
        self._stems: dict[str, set[int]] = defaultdict(set)
        self._files: dict[str, set[int]] = defaultdict(set)
        self._file_stems: dict[str, set[int]] = defaultdict(set)
        for index, path in (*enumerate(names), *enumerate(members)):
            plain = unicodedata.normalize("NFC", path)  # macOS writes names in another form
            file = plain.rpartition("/")[2]
            for table, key in (
                (self._paths, plain),
                (self._stems, _stem(plain)),
                (self._files, file),
                (self._file_stems, _stem(file)),
            ):
                table[key].add(index)

    def find(self, place: str, asked: str) -> int:
        """The number of the image that is called so.

        Args:
            place: file and line, for messages.
            asked: as the line says it.

        Raises:
            InputError: there is none, or there are several.
        """
        plain = unicodedata.normalize("NFC", asked)
        steps: list[tuple[Mapping[str, set[int]], str]] = [(self._paths, plain), (self._stems, _stem(plain))]
        if "/" not in plain:
            steps += [(self._files, plain), (self._file_stems, _stem(plain))]
        for table, key in steps:
            if found := table.get(key):
                if len(found) > 1:
                    several = name_some(self.names[index] for index in found)
                    raise InputError(f"{place}: {shown(asked)} may be {len(found)} images ({several}); write its path")
                return next(iter(found))
        near = difflib.get_close_matches(plain, list(self._paths)[:10_000], n=1, cutoff=0.8)
        hint = f". Did you mean {shown(near[0])!r}?" if near else ""
        raise InputError(f"{place}: there is no image {shown(asked)!r}{hint}")


def _stem(path: str) -> str:
    """A path without the ending of an image file."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in EXTENSIONS else path
