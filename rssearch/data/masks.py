"""From the pixels of a mask's file to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.pixels import Pixels

IGNORE = 255  # class index of the pixels that losses and metrics leave out
ROWS = 64  # looked up at once: 64-bit copies of a whole mask would need many times its memory
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
        values = self._colours(image) if self.colours else self._indices(image)
        known = np.array(sorted(self.classes))
        meaning = np.array([self.classes[value] for value in known.tolist()], np.uint8)
        mask = np.empty(values.shape[:2], np.uint8)
        for start in range(0, len(mask), ROWS):
            rows = values[start : start + ROWS].astype(np.int64)
            if self.colours:
                rows = (rows[..., 0] << 16) | (rows[..., 1] << 8) | rows[..., 2]
            place = np.searchsorted(known, rows).clip(max=len(known) - 1)
            if (strange := rows[known[place] != rows]).size:
                write = "the colour #{:06X}" if self.colours else "the value {}"
                allowed = ", ".join(write.rsplit(maxsplit=1)[-1].format(value) for value in known.tolist())
                raise ValueError(f"has {write.format(int(strange[0]))}, which is no class; allowed: {allowed}")
            mask[start : start + ROWS] = meaning[place]
        return mask

    def _indices(self, image: Image.Image) -> Pixels:
        if image.mode not in ("L", "P", "1"):
            raise ValueError(f"its pixels are of mode {image.mode}, but one 8-bit channel of class indices is needed")
        return np.asarray(image).astype(np.uint8, copy=False)

    def _colours(self, image: Image.Image) -> Pixels:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels are of mode {image.mode}, but 8-bit colours are needed")
        return np.asarray(image.convert("RGB"))


def index_table(classes: int, ignored: npt.ArrayLike = ()) -> MaskTable:
    """Masks of class indices 0 to `classes` - 1, in which 255 and the `ignored` indices are left out.

    The indices that stay are numbered anew, without gaps.
    """
    out = set(np.asarray(ignored, dtype=np.int64).reshape(-1).tolist())
    kept = [index for index in range(classes) if index not in out]
    table = {index: position for position, index in enumerate(kept)}
    return MaskTable(table | dict.fromkeys([*out, IGNORE], IGNORE))
