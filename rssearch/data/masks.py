"""From the pixels of a mask's file to class indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.imaging.headers import Header
from rssearch.imaging.pixels import Pixels, rgb, upright

IGNORE = 255  # class index of the pixels that losses and metrics leave out
ROWS = 64  # looked up at once: 64-bit copies of a whole mask would need many times its memory
# Bits of the masks that hold values, by what these are and how they are written.
KINDS = {
    ("palette", "unsigned"): (1, 2, 4, 8),
    ("grey", "unsigned"): (1, 2, 4, 8, 16, 32),
    ("grey", "signed"): (8, 16, 32),
    ("grey", "float"): (32,),
}
LOSSY = frozenset({".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class MaskTable:
    """What the values of a mask mean.

    Attributes:
        classes: value of a pixel -> class index, or `IGNORE`. A value is the number or palette index in the file; with
            `colours` it is 0xRRGGBB.
        colours: whether masks are read as RGB.
    """

    classes: Mapping[int, int]
    colours: bool = False

    def check(self, header: Header) -> None:
        """Raise ValueError for a mask that has another kind of pixels, by its header."""
        if header.lossy:
            raise ValueError("a mask must be PNG, TIFF or BMP, without loss; its compression changes class values")
        if self.colours:
            if not header.readable:
                raise ValueError(f"has {header}, but 8-bit colours are needed")
            return
        kinds = KINDS.get((header.colour, header.sample), ())
        if header.bits not in kinds:
            hint = "; if its colours are the classes, name them in classes.json" if header.bands > 1 else ""
            hint = hint or ("; save its values with 8, 16 or 32 bits" if header.bits == 64 else "")
            raise ValueError(f"has {header}, but one band of class values, of 8, 16 or 32 bits, is needed{hint}")

    def decode(self, image: Image.Image, header: Header) -> Pixels:
        """The class indices of a mask, upright: uint8 [H, W].

        Args:
            image: of which nothing is decoded yet, see `rssearch.imaging.pixels.opened`.
            header: its, which `check` lets through.

        Raises:
            ValueError: the mask has a value that the table does not have; it names it.
        """
        values = np.asarray(rgb(image, header)) if self.colours else _values(image, header)
        known = np.array(sorted(self.classes))
        meaning = np.array([self.classes[value] for value in known.tolist()], np.uint8)
        mask = np.empty(values.shape[:2], np.uint8)
        for start in range(0, len(mask), ROWS):
            rows: npt.NDArray[Any] = values[start : start + ROWS]
            if self.colours:
                red, green, blue = np.moveaxis(rows.astype(np.int64), 2, 0)
                rows = (red << 16) | (green << 8) | blue
            else:  # every value of 32 bits, whole or not, has its own number of 64 bits
                rows = rows.astype(np.float64 if rows.dtype.kind == "f" else np.int64)
            place = np.searchsorted(known, rows).clip(max=len(known) - 1)
            if (strange := rows[known[place] != rows]).size:
                raise ValueError(f"has {self._write(strange[0].item())}, which is no class; allowed: {self._allowed()}")
            mask[start : start + ROWS] = meaning[place]
        return mask

    def _write(self, value: float) -> str:
        return f"the colour #{value:06X}" if self.colours else f"the value {value}"

    def _allowed(self) -> str:
        known = [self._write(value).rsplit(maxsplit=1)[-1] for value in sorted(self.classes)]
        return ", ".join(known if len(known) <= 20 else [*known[:20], f"and {len(known) - 20} more"])


def _values(image: Image.Image, header: Header) -> npt.NDArray[Any]:
    """The values as the file holds them: any kind of number [H, W]."""
    values: npt.NDArray[Any] = np.asarray(upright(image))
    if header.colour == "grey" and header.bits in (2, 4):
        values = values // (255 // (2**header.bits - 1))  # Pillow scales these to 8 bits
    # Pillow takes all bytes for unsigned, and all numbers of 32 bits for signed.
    if (header.sample, header.bits) == ("signed", 8):
        return values.view(np.int8)
    if (header.sample, header.bits) == ("unsigned", 32):
        return values.view(np.uint32)
    return values


def index_table(classes: int, ignored: npt.ArrayLike = ()) -> MaskTable:
    """Masks of class indices 0 to `classes` - 1, in which 255 and the `ignored` indices are left out.

    The indices that stay are renumbered without gaps.
    """
    out = set(np.asarray(ignored, dtype=np.int64).reshape(-1).tolist())
    kept = [index for index in range(classes) if index not in out]
    table = {index: position for position, index in enumerate(kept)}
    return MaskTable(table | dict.fromkeys([*out, IGNORE], IGNORE))
