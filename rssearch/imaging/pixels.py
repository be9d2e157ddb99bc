"""From an encoded image to pixels, by Pillow and NumPy alone: the same in training, and where a bundle predicts."""

from __future__ import annotations

import io
import lzma
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from rssearch.imaging.headers import READ, Header, read_header

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]  # pixels in the type of their file

# What Pillow's decoders, the zip reader and the file system raise for a file that is not a readable image.
DECODE_ERRORS = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, struct.error, zlib.error,
    lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, KeyError, MemoryError,
    Image.DecompressionBombError,
)  # fmt: skip
PIXELS = 2**26  # that any file may hold: 8192 x 8192, at most 0.7 GB while it is decoded
PIXELS_A_BYTE = 64  # of a larger one: no JPEG of a plain colour has more, a bomb has hundreds
LONG = 2**26  # bytes: longer files are looked at before they are read
LARGE = 2**25  # pixels: of images above, one is decoded at a time
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, size: int | None) -> Pixels:
    """Decode an image to RGB, upright, cut to its central square and scaled with antialiasing.

    Args:
        data: the encoded file.
        size: height and width of the result; None keeps the image as it is.

    Returns:
        uint8 [3, H, W].

    Raises:
        ValueError: the file holds other pixels than those that are read, see `rssearch.imaging.headers.READ`, or it
            claims far more of them than it can hold.
        DECODE_ERRORS: the file is not a readable image.
    """
    with opened(data, check_image) as (image, header):
        check_size(image, len(data))
        if size is not None:
            # JPEG can be decoded at 1/2, 1/4 or 1/8; twice the target leaves the quality to the resampling below.
            image.draft("RGB", (2 * size, 2 * size))
        with _large if image.width * image.height > LARGE else nullcontext():
            picture = scale(rgb(image, header), size)
            return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


@contextmanager
def opened(data: bytes, check: Callable[[Header], None]) -> Iterator[tuple[Image.Image, Header]]:
    """An image of which nothing is decoded yet, and its header.

    Args:
        data: the encoded file.
        check: raises ValueError for what the header may not say.

    Raises:
        ValueError: so says `check`, the file holds several pictures, or Pillow cannot open it.
    """
    file = io.BytesIO(data)
    header = read_header(file)
    check(header)
    with _open(file, header) as image:
        # Pillow counts the preview in a camera's JPEG and the overviews in a TIFF, which are no other pictures.
        several = header.format not in ("JPEG", "TIFF") and getattr(image, "is_animated", False)
        if header.pages > 1 or several:
            raise ValueError(f"it holds {header.pages if header.pages > 1 else 'several'} pictures, but one is read")
        if header.format == "BMP" and header.bits < 8 and image.mode == "L":
            # Pillow takes a grey palette for grey values, and so two packed pixels for one.
            raise ValueError(
                f"it is a BMP of {header.bits} bits with a grey palette, which is not read: save it as PNG"
            )
        yield image, header


def check_length(length: int, held: int) -> None:
    """Refuse a file that is many times as long as what the disk or the archive holds of it, before it is read.

    Raises:
        ValueError: it is.
    """
    if length > LONG and length > 200 * held:
        raise ValueError(f"it is {length:,} bytes long, but only {held:,} are stored of it")


@contextmanager
def _open(file: IO[bytes], header: Header) -> Iterator[Image.Image]:
    with large_images():
        try:
            image = Image.open(file, formats=[header.format])
        except UnidentifiedImageError:
            raise ValueError(f"it is damaged, or a {header.format} of a kind that is not read: {header}") from None
        with image:
            yield image


def check_image(header: Header) -> None:
    """Raise ValueError for pixels that are not read: they would be cut to 8 bits, or to three bands."""
    if not header.readable:
        scaled = "; scale it to 8 bits first" if header.bits > 8 else ""
        raise ValueError(f"it has {header}, but {READ}{scaled}")


def check_size(image: Image.Image, size: int) -> None:
    """Raise ValueError for an image that claims far more pixels than its file of `size` bytes can hold."""
    if image.width * image.height > max(PIXELS, PIXELS_A_BYTE * size):
        raise ValueError(
            f"it claims {image.width}x{image.height} pixels in {size:,} bytes; a file for more than {PIXELS:,} pixels "
            f"needs a byte for each {PIXELS_A_BYTE} of them"
        )


def rgb(image: Image.Image, header: Header) -> Image.Image:
    """Decode an image to RGB, upright. Raises ValueError where what is called alpha is another band."""
    turned = upright(image)
    # GDAL, and what is built on it, calls the fourth band of any 8-bit TIFF alpha, also where it is near infrared.
    if header.format == "TIFF" and "A" in turned.getbands() and any(turned.getchannel("A").histogram()[1:255]):
        raise ValueError(
            f"it has {header}, but the values of its last band are not 0 and 255 alone, so that it may be no alpha; "
            "leave it out of the file first"
        )
    return turned if turned.mode == "RGB" else turned.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Decode an image and turn it as its orientation tag says (EXIF, in TIFF its own tag, or XMP)."""
    image.load()  # which turns a TIFF, and forgets its tag
    method = TURNS.get(orientation(image))
    return image if method is None else image.transpose(method)


def orientation(image: Image.Image) -> int:
    """The orientation tag, 1 to 8; 1 is upright, as is what cannot be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODE_ERRORS:
        return 1
    return found if found in TURNS else 1


def upright_size(file: IO[bytes]) -> tuple[int, int]:
    """Height and width of an image when it is upright, from its header.

    Args:
        file: seekable.

    Raises:
        DECODE_ERRORS: as `decode`.
    """
    header = read_header(file)
    late = _late_exif(file) if header.format == "PNG" else None
    with _open(file, header) as image:
        if header.format == "TIFF":  # Pillow's size is turned in some versions
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height, turn = tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength], tags.get(274, 1)
        else:
            if header.format == "PNG" and "Raw profile type exif" not in image.info:
                image.info.setdefault("exif", late or b"")  # or Pillow would decode the image to look for it
            (width, height), turn = image.size, orientation(image)
    return (width, height) if turn in (5, 6, 7, 8) else (height, width)


def _late_exif(file: IO[bytes]) -> bytes | None:
    """The EXIF data that a PNG has behind its pixels, where Pillow does not look before it decodes them."""
    file.seek(8)
    behind = False
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        behind |= kind == b"IDAT"
        if behind and kind == b"eXIf":
            found = file.read(length)
            file.seek(0)
            return found
        file.seek(length + 4, 1)
    file.seek(0)
    return None


def scale(image: Image.Image, size: int | None) -> Image.Image:
    """The central square of an image at `size` pixels, antialiased; the image itself where it already fits."""
    width, height = image.size
    if size is None or (width, height) == (size, size):
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)


@dataclass(frozen=True)
class Scaling:
    """What the values of pixels mean: `low` becomes 0 and `high` becomes 1, in each band; nothing is cut off.

    Attributes:
        low: a number for each band, or one for all.
        high: likewise.
        nodata: the value of pixels without data, as which no finite number counts as well; None: all have data.
    """

    low: tuple[float, ...] = (0.0,)
    high: tuple[float, ...] = (255.0,)
    nodata: float | None = None

    def ends(self, bands: int) -> tuple[Floats, Floats]:
        """`low` and `high` of each band, float32 [C, 1, 1]."""
        low, high = (
            np.broadcast_to(np.asarray(ends, np.float32), (bands,))[:, None, None] for ends in (self.low, self.high)
        )
        return low, high


EIGHT_BITS = Scaling()


def factors(mean: Floats, std: Floats, scaling: Scaling = EIGHT_BITS) -> tuple[Floats, Floats]:
    """Factor and offset, float32 [C, 1, 1], that turn pixels to mean 0 and deviation 1.

    One multiplication and one addition for each pixel.

    Args:
        mean: float32 [C], of scaled pixels.
        std: float32 [C], likewise.
        scaling: of the pixels; those of 8 bits are divided by 255.
    """
    low, high = (np.asarray(ends, np.float32) for ends in (scaling.low, scaling.high))
    span = high - low
    factor, offset = (1 / (span * std)).astype(np.float32), (-(mean + low / span) / std).astype(np.float32)
    return factor[:, None, None], offset[:, None, None]


def reason(error: Exception) -> str:
    """Why an image could not be decoded, for people."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    return str(error) or type(error).__name__


_large = threading.Lock()  # held by the one large image that is decoded
_limit_lock = threading.Lock()
_limit_users = 0
_limit: int | None = None


@contextmanager
def large_images() -> Iterator[None]:
    """Open images of any size: Pillow refuses those above 179 million pixels, which a scene may well have."""
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
