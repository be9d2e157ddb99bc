"""From the pixels of a mask's file to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.data.decode import Pixels

IGNORE = 255  # class index of the pixels that losses and metrics leave out
LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class MaskTable:
    """What the values of a mask mean.

    Attributes:
        classes: value of a pixel -> class index, or `IGNORE`. A value is the grey level or palette index of the file;
            with `colours` it is 0xRRGGBB.
        colours: whether masks are read as RGB.
    """

    classes: Mapping[int, int]
    colours: bool = False

    def decode(self, image: Image.Image) -> Pixels:
        """The class indices of a mask: uint8 [H, W].

        Raises:
            ValueError: the mask has another kind of pixels, or a value that the table does not have; it names them.
        """
        return self._from_colours(image) if self.colours else self._from_values(image)

    def _from_values(self, image: Image.Image) -> Pixels:
        if image.mode not in ("L", "P", "1"):
            raise ValueError(f"its pixels are of mode {image.mode}, but one 8-bit channel of class indices is needed")
        values = np.asarray(image).astype(np.uint8, copy=False)
        lookup = np.full(256, -1, np.int16)
        lookup[list(self.classes)] = list(self.classes.values())
        counts = np.bincount(values.reshape(-1), minlength=256)
        strange = np.flatnonzero((counts > 0) & (lookup < 0))
        if len(strange):
            first = int(strange[0])
            allowed = ", ".join(map(str, sorted(self.classes)))
            raise ValueError(f"has the value {first} ({counts[first]} pixels), which is no class; allowed: {allowed}")
        return lookup.astype(np.uint8)[values]

    def _from_colours(self, image: Image.Image) -> Pixels:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are of mode {image.mode}, but 8-bit colours are needed")
        rgb = np.asarray(image.convert("RGB")).astype(np.int32)
        packed = (rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]
        known = np.array(sorted(self.classes), np.int32)
        place = np.searchsorted(known, packed).clip(max=len(known) - 1)
        wrong = known[place] != packed
        if wrong.any():
            first = int(packed[wrong][0])
            many = int((packed == first).sum())
            allowed = ", ".join(f"#{colour:06X}" for colour in known.tolist())
            raise ValueError(f"has the colour #{first:06X} ({many} pixels), which is no class; allowed: {allowed}")
        result: Pixels = np.array([self.classes[colour] for colour in known.tolist()], np.uint8)[place]
        return result


def index_table(classes: int, ignored: npt.ArrayLike = ()) -> MaskTable:
    """Masks of class indices 0 to `classes` - 1, in which 255 and the `ignored` indices are left out.

    The indices that stay are numbered anew, without gaps.
    """
    out = set(np.asarray(ignored, dtype=np.int64).reshape(-1).tolist())
    kept = [index for index in range(classes) if index not in out]
    table = {index: position for position, index in enumerate(kept)}
    return MaskTable(table | dict.fromkeys([*out, IGNORE], IGNORE))
