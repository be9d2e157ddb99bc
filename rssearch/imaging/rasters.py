"""Rasters as remote sensing has them: any number of bands, in their own type, from a GeoTIFF, JPEG 2000, PNG or `.npy`.

GDAL, by rasterio, reads the files, from memory alone: no neighbour of a file is opened, and no format that names other
files (a VRT, a web service). Arrays of NumPy need neither.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.errors import InputError, cut
from rssearch.imaging.pixels import Array

__all__ = ["ENDINGS", "TYPES", "Layout", "Options", "Raster", "layout", "numbers", "read", "resampled"]

ENDINGS = frozenset({".tif", ".tiff", ".jp2", ".png", ".npy"})
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "float32")
DRIVERS = ["GTiff", "JP2OpenJPEG", "PNG"]
BOMB = 2**28  # bytes of pixels that any file may hold, and
FACTOR = 200  # of a larger one, for each byte of the file
BLOCK = 2**27  # bytes of a strip or a tile, which GDAL decodes as a whole, that is larger than its picture
BANDS = 10_000
NUMPY = b"\x93NUMPY"
_LAYOUTS = threading.Lock()  # held while GDAL opens a file: it may then warn, and Python's warnings are of the process


class Options(NamedTuple):
    """What of a raster is read, and how.

    Attributes:
        bands: which, in this order: numbers from 1, or names; None: all.
        names: of the bands of the files, in their order; None: those that the files have.
        nodata: the value of pixels without data; ``none``: every pixel has data, whatever the file says; None: as the
            file says.
    """

    bands: tuple[int | str, ...] | None = None
    names: tuple[str, ...] | None = None
    nodata: float | str | None = None


@dataclass(frozen=True)
class Layout:
    """What a raster is, from its header.

    Attributes:
        bands: how many there are.
        height: in pixels.
        width: in pixels.
        dtype: one of `TYPES`.
        names: what the file calls its bands; None where it names not all of them, or two alike.
        nodata: the value that marks pixels without data; None: there is none.
        numbers: of its bands in the file, from 1; None: all of them.
        total: how many bands the file has; None: these.
    """

    bands: int
    height: int
    width: int
    dtype: str
    names: tuple[str, ...] | None = None
    nodata: float | None = None
    numbers: tuple[int, ...] | None = None
    total: int | None = None

    def __str__(self) -> str:
        return f"{self.bands} band{'s' if self.bands > 1 else ''} of {self.dtype}"


class Raster(NamedTuple):
    """Pixels [C, H, W] of a raster in its own type, and the value in them that marks pixels without data."""

    pixels: Array
    nodata: float | None


def layout(data: bytes, options: Options = Options()) -> Layout:  # noqa: B008  (immutable)
    """What a file says of itself.

    Raises:
        ValueError: it is no raster that is read, or claims far more than it can hold.
        InputError: rasterio is needed, and not installed.
    """
    if data.startswith(NUMPY):
        about = _numpy_header(data)
        return replace(about, nodata=_stated(options, None, about.dtype))
    with _opened(data) as file:
        return _layout(file, options, len(data))


def read(data: bytes, options: Options = Options()) -> Raster:  # noqa: B008  (immutable)
    """The bands of a raster, as rasterio reads them.

    Args:
        data: the encoded file.
        options: which bands.

    Raises:
        ValueError: as `layout`, or the file is damaged, or has other bands.
        InputError: rasterio is needed, and not installed.
    """
    if data.startswith(NUMPY):
        about = _numpy_header(data)
        chosen = numbers(about, options)
        found = np.load(io.BytesIO(data), allow_pickle=False)
        stack = found[None] if found.ndim == 2 else found
        picked = stack[[number - 1 for number in chosen]] if options.bands is not None else stack
        pixels = np.ascontiguousarray(picked, dtype=picked.dtype.newbyteorder("="))
        return Raster(pixels, _stated(options, None, about.dtype))
    with _opened(data) as file:
        about = _layout(file, options, len(data))
        chosen = numbers(about, options)
        try:
            pixels = file.read(list(chosen))
        except Exception as error:  # the boundary: GDAL has an error of its own for each kind of damage
            raise ValueError(f"it is damaged: {_first_line(error)}") from error
        return Raster(pixels, about.nodata)


def numbers(about: Layout, options: Options) -> tuple[int, ...]:
    """The numbers, from 1, of the bands that are asked for.

    Raises:
        ValueError: the raster has none of such a number or name.
    """
    names = options.names or about.names
    if options.names is not None and len(options.names) != about.bands:
        raise ValueError(f"it has {about}, but band_names has {len(options.names)} names")
    if options.names is not None and len(set(options.names)) < len(options.names):
        raise ValueError(f"band_names {', '.join(options.names)}: two bands have one name")
    if options.bands is None:
        return tuple(range(1, about.bands + 1))
    known = f"the names {', '.join(names)}" if names else "no names of bands"
    for band in options.bands:
        if isinstance(band, str) and (names is None or band not in names):
            raise ValueError(f"it has {about} and {known}, but no band {band!r}")
        if isinstance(band, int) and not 1 <= band <= about.bands:
            raise ValueError(f"it has {about}, but no band {band}; bands are counted from 1")
    found = tuple(band if isinstance(band, int) else names.index(band) + 1 for band in options.bands)  # type: ignore[union-attr]
    if len(set(found)) < len(found):
        raise ValueError(f"bands {', '.join(map(str, options.bands))}: one of them stands there twice")
    return found


def resampled(raster: Raster, size: int | None) -> Raster:
    """The central square of a raster at `size` pixels, antialiased, as `rssearch.imaging.pixels.scale` makes it.

    Pixels without data give nothing to others; where they are more than half of what a pixel is made of, it has none.
    """
    pixels, nodata = raster
    C, height, width = pixels.shape
    if size is None or (height, width) == (size, size):
        return raster
    result = np.empty((C, size, size), pixels.dtype)
    for band, target in zip(pixels, result, strict=True):
        lost = missing(band, nodata)
        values = band.astype(np.float32)
        if lost is None or not lost.any():
            target[:] = _rounded(_square(values, size), pixels.dtype)
            continue
        values[lost] = 0
        weight = _square((~lost).astype(np.float32), size)
        mixed = _square(values, size) / np.maximum(weight, 1e-6)
        empty = np.nan if nodata is None else nodata
        target[:] = _rounded(np.where(weight < 0.5, 0, mixed), pixels.dtype)
        target[weight < 0.5] = empty
    return Raster(result, nodata)


def missing(pixels: Array, nodata: float | None) -> npt.NDArray[np.bool_] | None:
    """Which pixels have no data: those of the value `nodata`, and what is no finite number; None: none can be."""
    lost = None if nodata is None or math.isnan(nodata) else pixels == np.asarray(nodata, dtype=pixels.dtype)
    if pixels.dtype.kind == "f":
        undefined = ~np.isfinite(pixels)
        lost = undefined if lost is None else lost | undefined
    return lost


def _square(values: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    height, width = values.shape
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    picture = Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(picture)


def _rounded(values: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    # In float64: the largest uint32 is no float32, and its neighbour above would turn into 0.
    return np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max).astype(dtype)


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.io
    except ImportError:
        raise InputError("reading rasters needs rasterio: pip install 'rssearch[geo]'") from None
    return rasterio


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    rasterio = _rasterio()
    if not data:
        raise ValueError("it is empty")
    # GDAL's caches and its search for neighbours are of no use for a file that is read once, from memory.
    settings = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_CACHEMAX": 64, "GDAL_NUM_THREADS": 1}
    with rasterio.Env(**settings), rasterio.io.MemoryFile(data) as memory:
        try:
            with _LAYOUTS, warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                file = memory.open(driver=DRIVERS)
        except Exception as error:  # the boundary: GDAL has an error of its own for each kind of damage
            known = " ".join(sorted(ENDINGS))
            raise ValueError(f"it is damaged, or no raster that is read ({known}): {_first_line(error)}") from error
        with file:
            yield file


def _layout(file: Any, options: Options, size: int) -> Layout:
    from rasterio.enums import ColorInterp, MaskFlags

    types = sorted(set(file.dtypes))
    if len(types) > 1:
        raise ValueError(f"its bands are of different types: {', '.join(types)}")
    if not 1 <= file.count <= BANDS:
        raise ValueError(f"it has {file.count} bands")
    _check_type(types[0])
    _check_claim((file.count, file.height, file.width), np.dtype(types[0]), size)
    _check_blocks(file, np.dtype(types[0]))
    if len(file.subdatasets) > 1:
        raise ValueError(f"it holds {len(file.subdatasets)} pictures, but one is read")
    if ColorInterp.palette in file.colorinterp:
        raise ValueError("its values are indices into a palette of colours; save it as RGB, or read it by folder:PATH")
    values = {float(value) for value in file.nodatavals if value is not None and not math.isnan(value)}
    if len(values) > 1:
        raise ValueError(f"its bands have different values for pixels without data: {sorted(values)}")
    try:
        names = _names(file.descriptions)
    except UnicodeDecodeError:
        raise ValueError("a name of its bands is no UTF-8") from None
    found = Layout(file.count, file.height, file.width, types[0], names, next(iter(values), None))
    stated = _stated(options, found.nodata, types[0])
    # What GDAL calls alpha is a band as others: it calls the fourth one of any 8-bit TIFF so, near infrared as well.
    if options.nodata is None and any(
        MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in file.mask_flag_enums
    ):
        raise ValueError(
            "a mask says which of its pixels have data, and no value does; give settings.nodata, the value of pixels "
            "without data, or none to take all pixels as they are"
        )
    if stated is not None and not (math.isfinite(stated) and _is_value(stated, types[0])):
        stated = None  # a value in the file that no pixel can have marks none; of infinities none has data
    return Layout(found.bands, found.height, found.width, found.dtype, found.names, stated)


def _stated(options: Options, own: float | None, dtype: str) -> float | None:
    """The value of pixels without data, as asked for or else as the file says; None where no pixel can have it."""
    if options.nodata is None:
        return own
    if isinstance(options.nodata, str):
        return None
    return float(options.nodata) if _is_value(options.nodata, dtype) else None


def _is_value(number: float, dtype: str) -> bool:
    if dtype == "float32":
        return True
    return number == int(number) and np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def _check_blocks(file: Any, dtype: np.dtype[Any]) -> None:
    """Raise ValueError for strips or tiles that need far more memory than the picture that they hold."""
    together = file.count if file.interleaving is not None and file.interleaving.value == "PIXEL" else 1
    whole = file.count * file.height * file.width * dtype.itemsize
    for height, width in file.block_shapes:
        if height * width * together * dtype.itemsize > max(BLOCK, whole):
            raise ValueError(
                f"its {file.width}x{file.height} pixels are in blocks of {width}x{height}, of more than {BLOCK:,} bytes"
            )


def _names(descriptions: Sequence[str | None]) -> tuple[str, ...] | None:
    names = tuple(text.strip() for text in descriptions if text and text.strip())
    return names if len(set(names)) == len(descriptions) else None


def _numpy_header(data: bytes) -> Layout:
    """The layout of an array; what it claims is compared with what is there."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
    except Exception as error:  # the boundary: NumPy evaluates the header as a literal, which can fail in many ways
        raise ValueError(f"its header is damaged: {_first_line(error)}") from error
    if any(type(length) is not int for length in shape):
        raise ValueError(f"its header is damaged: its shape is {cut(str(shape))}")
    name = dtype.newbyteorder("=").name
    _check_type(name)
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"it claims {cut(str(shape))} values of {name}, but holds {len(data) - file.tell():,} bytes")
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"its shape is {cut(str(shape))}; arrays must be [height, width] or [bands, height, width]")
    if len(shape) == 3 and shape[2] < shape[0] and shape[2] <= 32:
        raise ValueError(f"its shape is {shape}, where the last axis seems to be the bands; they must be the first")
    C, H, W = (1, *shape)[-3:]
    return Layout(C, H, W, name)


def _check_type(name: str) -> None:
    if name not in TYPES:
        raise ValueError(f"its values are {name}; read are {', '.join(TYPES)}")


def _check_claim(shape: tuple[int, int, int], dtype: np.dtype[Any], size: int) -> None:
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > max(BOMB, FACTOR * size):
        raise ValueError(
            f"it claims {shape[0]} bands of {shape[2]}x{shape[1]} pixels, {claimed:,} bytes, in {size:,} bytes"
        )


def _first_line(error: Exception) -> str:
    """Without the address of an object, and the name that a file has in memory, which are others each time."""
    text = re.sub(
        r"'?(/vsimem/[-0-9a-f]+/)?[0-9a-f]{8}(-[0-9a-f]+){4}(\.\w+)?'?:?|/vsimem/[-0-9a-f]+/| at 0x\w+", "", str(error)
    )
    return cut(" ".join(text.split()) or type(error).__name__, 200)
