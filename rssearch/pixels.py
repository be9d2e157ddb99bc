"""From an encoded image to pixels, by Pillow and NumPy alone: the same in training, and where a bundle predicts."""

from __future__ import annotations

import io
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# What Pillow's decoders, the zip reader and the file system raise for a file that is not a readable image.
DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, struct.error, zlib.error,
    zipfile.BadZipFile, NotImplementedError, KeyError, Image.DecompressionBombError,
)  # fmt: skip


def decode(data: bytes, size: int | None) -> Pixels:
    """Decode an image to RGB, cut to its central square and scaled with antialiasing.

    Args:
        data: the encoded file.
        size: height and width of the result; None keeps the image as it is.

    Returns:
        uint8 [3, H, W].

    Raises:
        ValueError: the pixels have more than 8 bits.
        DECODE_ERRORS: the file is not a readable image.
    """
    with Image.open(io.BytesIO(data)) as image:
        check_depth(image)
        if size is not None:
            # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the target leaves the quality to the resampling below.
            image.draft("RGB", (2 * size, 2 * size))
        picture = scale(image.convert("RGB"), size)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def check_depth(image: Image.Image) -> None:
    """Raise ValueError for pixels of more than 8 bits: how to scale them is not for us to guess."""
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of mode {image.mode}; scale them to 8 bits first")


def scale(image: Image.Image, size: int | None) -> Image.Image:
    """The central square of an image at `size` pixels, antialiased; the image itself where it already fits."""
    width, height = image.size
    if size is None or (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


def factors(mean: Floats, std: Floats) -> tuple[Floats, Floats]:
    """Factor and offset, float32 [C, 1, 1], that turn pixels in [0, 255] to mean 0 and deviation 1.

    One multiplication and one addition for each pixel.

    Args:
        mean: float32 [C], of pixels scaled to [0, 1].
        std: float32 [C], likewise.
    """
    factor, offset = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return factor[:, None, None], offset[:, None, None]


def reason(error: Exception) -> str:
    """Why an image could not be decoded, for people: Pillow names the buffer that it read from."""
    if isinstance(error, UnidentifiedImageError):
        return "it is no image of a known format"
    return str(error) or type(error).__name__


_limit_lock = threading.Lock()
_limit_users = 0
_limit: int | None = None


@contextmanager
def large_images() -> Iterator[None]:
    """Read images of any size: Pillow refuses those above 179 million pixels, which a scene may well have."""
    global _limit_users, _limit  # noqa: PLW0603 - Pillow's limit is a global of its own
    with _limit_lock:
        if _limit_users == 0:
            _limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _limit_users += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limit_users -= 1
            if _limit_users == 0:
                Image.MAX_IMAGE_PIXELS = _limit
