"""GeoTIFFs that are read in windows, so that a scene of any size needs little memory.

GDAL, by rasterio, reads them, and them alone: formats that name other files (a VRT, a web service) are not opened, and
no neighbour of a file is (an overview, a mask, a file of metadata). What a file claims of itself is compared with its
size first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rssearch.errors import InputError, cut, shown
from rssearch.imaging.headers import Header, read_header
from rssearch.imaging.rasters import BOMB, missing

__all__ = ["Bands", "Place", "Scene", "Window", "gdal", "is_installed", "opened", "reason"]

SIDE = 2**18  # pixels
FACTOR = 1000  # bytes of pixels for each byte of a file that holds more than `BOMB` of them
BLOCK = 2**27  # bytes of a strip or a tile, which is read as a whole
# GDAL: no neighbours of a file, no files beside it for what a format has no place for, and a small cache.
SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": 64,
}
# What GDAL would take for pixels of another meaning: it turns none of them into grey levels or RGB.
STRANGE = ("0 is white", "CMYK", "Lab", "YCbCr", "premultiplied", "PhotometricInterpretation", "preview", "different")


@dataclass(frozen=True)
class Bands:
    """The bands that a network takes.

    Attributes:
        count: how many.
        dtype: of their values, one of `TYPES`.
        names: where they are known.
        fill: what stands for pixels without data, a number for each band.
        nodata: the value of pixels without data in files that do not say it.
        total: bands of the files that it was trained on, where these were rasters.
        numbers: of its bands in them, from 1; None: all.
    """

    count: int
    dtype: str
    names: tuple[str, ...] | None
    fill: tuple[float, ...]
    nodata: float | None = None
    total: int | None = None
    numbers: tuple[int, ...] | None = None

    def __str__(self) -> str:
        names = f" ({cut(', '.join(self.names), 300)})" if self.names else ""
        return f"{self.count} band{'s' if self.count > 1 else ''} of {self.dtype}{names}"

    @property
    def pictures(self) -> bool:
        """Whether JPEG, PNG and other images of 8 bits have such bands."""
        return self.total is None and (self.count, self.dtype) == (3, "uint8")

    def found_in(self, count: int, names: Sequence[str] | None) -> tuple[int, ...] | None:
        """The numbers, from 1, of these bands in a file; None: it has others.

        They are found by their names where the file has all of them. A file without them must have as many bands as
        those of the training, or these bands alone.

        Args:
            count: bands of the file.
            names: what it calls them; None: it does not.
        """
        if self.names and names and set(self.names) <= set(names):
            return tuple(names.index(name) + 1 for name in self.names)
        if self.names and names:
            return None
        if count == self.total and self.numbers:
            return self.numbers
        return tuple(range(1, count + 1)) if count == self.count else None


class Window(NamedTuple):
    """A part of a scene.

    Attributes:
        pixels: [C, H, W], in the type of the file; float32 where some have no data.
        lost: bool [H, W], the pixels of which no band has data; None: all pixels have data.
    """

    pixels: npt.NDArray[Any]
    lost: npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Place:
    """Where a raster is: what rasterio says of its coordinates.

    Attributes:
        crs: rasterio's, or None.
        transform: of columns and rows to coordinates.
        gcps: ground control points, and their CRS.
        rpcs: rational polynomial coefficients, or None.
        point: whether its values are those of points, rather than of areas.
    """

    crs: Any
    transform: Any
    gcps: tuple[Sequence[Any], Any]
    rpcs: Any
    point: bool


class Scene:
    """A GeoTIFF that is open.

    Args:
        file: rasterio's.
        name: for messages.
        header: of the file.
        bands: that the network takes.
    """

    def __init__(self, file: Any, name: str, header: Header, bands: Bands) -> None:
        from rasterio.enums import ColorInterp, MaskFlags

        self._file, self._name, self._bands = file, name, bands
        alpha = file.count > 1 and file.colorinterp[-1] == ColorInterp.alpha
        # GDAL calls the fourth band of any 8-bit TIFF alpha, also where it is near infrared: the count decides.
        self._alpha = alpha and file.count not in (bands.count, bands.total)
        count = file.count - self._alpha
        named = tuple((text or "").strip() for text in file.descriptions[:count])
        names = named if all(named) and len(set(named)) == count else None
        self._palette = file.colormap(1) if bands.pictures and header.colour.startswith("palette") else None
        grey = bands.pictures and header.colour.startswith("grey") and count == 1
        numbers = (1,) if grey or self._palette is not None else bands.found_in(count, names)
        if numbers is None:
            said = f" called {', '.join(map(shown, names))}" if names else ""
            raise ValueError(f"it has {header}{said}, but the network takes {bands}")
        self._numbers = list(numbers)
        own = [file.nodatavals[number - 1] for number in numbers]
        self._nodata = [_marker(bands.nodata if value is None else value, bands.dtype) for value in own]
        self._masked = any(MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in _flags(file))
        _check_layout(file, header, bands, self._numbers)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._file.height, self._file.width

    @property
    def place(self) -> Place:
        """Where it is."""
        file = self._file
        gcps = ([], None) if file.transform != type(file.transform).identity() else file.gcps
        return Place(file.crs, file.transform, gcps, file.rpcs, file.tags().get("AREA_OR_POINT") == "Point")

    def read(self, rows: slice, columns: slice) -> Window:
        """A window within the scene; in it, what has no data is filled.

        Raises:
            InputError: the file is damaged there.
        """
        window = ((rows.start, rows.stop), (columns.start, columns.stop))
        try:
            pixels = self._file.read(self._numbers, window=window)
            mask = self._file.read_masks(1, window=window) if self._masked else None
            alpha = self._file.read(self._file.count, window=window) if self._alpha else None
        except Exception as error:  # the boundary: GDAL has an error of its own for each kind of damage
            raise InputError(f"{self._name}: cannot be read: it is damaged: {reason(error)}") from error
        hidden = None if mask is None else mask == 0
        if alpha is not None:
            hidden = self._hidden(alpha) if hidden is None else hidden | self._hidden(alpha)
        return self._filled(pixels, hidden)

    def _hidden(self, alpha: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        full = np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1
        if not np.isin(alpha, (0, full)).all():
            raise InputError(
                f"{self._name}: cannot be read: the values of its last band are not 0 and {full} alone, so that it may "
                "be no alpha; leave it out of the file first"
            )
        return np.asarray(alpha == 0)

    def _filled(self, pixels: npt.NDArray[Any], hidden: npt.NDArray[np.bool_] | None) -> Window:
        lost_in = [missing(band, value) for band, value in zip(pixels, self._nodata, strict=True)]
        pixels = self._coloured(pixels)
        if hidden is None and all(lost is None or not lost.any() for lost in lost_in):
            return Window(pixels, None)
        each = [np.zeros(pixels.shape[1:], np.bool_) if lost is None else lost for lost in lost_in]
        if hidden is not None:
            each = [lost | hidden for lost in each]
        each *= len(pixels) // len(each)  # a grey level, or an index into a palette, is lost in all colours
        values = pixels.astype(np.float32)
        for band, lost, value in zip(values, each, self._bands.fill, strict=True):
            band[lost] = value
        return Window(values, np.logical_and.reduce(each))

    def _coloured(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._palette is not None:
            table = np.zeros((256, 3), np.uint8)
            for index, colour in self._palette.items():
                table[index] = colour[:3]
            return np.ascontiguousarray(table[pixels[0]].transpose(2, 0, 1))
        return pixels if len(pixels) == self._bands.count else np.repeat(pixels, self._bands.count, 0)


def is_installed() -> bool:
    """Whether rasterio can be imported."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def gdal() -> Iterator[Any]:
    """rasterio, set up to open no other file than the one that it is given.

    Raises:
        InputError: it is not installed.
    """
    try:
        import rasterio
        import rasterio.shutil
        import rasterio.warp
    except ImportError:
        raise InputError("reading and writing GeoTIFFs needs rasterio: pip install 'rssearch[geo]'") from None
    with rasterio.Env(**SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield rasterio


@contextmanager
def opened(path: Path, bands: Bands) -> Iterator[Scene]:
    """Open a TIFF for a network.

    Raises:
        InputError: it is none, is damaged, claims more than it can hold, or has other bands than the network takes.
    """
    name = cut(str(path), 300)
    with gdal() as rasterio:
        try:
            header, size = _header(path)
            file = rasterio.open(str(path.absolute()), driver="GTiff")
        except OSError as error:
            why = error.strerror or f"it is damaged: {reason(error)}"
            raise InputError(f"{name}: cannot be read: {why}") from None
        except Exception as error:  # the boundary, as above
            raise InputError(f"{name}: cannot be read: {reason(error)}") from error
        with file:
            try:
                _check_claims(file, size)
                scene = Scene(file, name, header, bands)
            except ValueError as error:
                raise InputError(f"{name}: cannot be read: {reason(error)}") from None
            yield scene


def reason(error: Exception) -> str:
    """An error of GDAL as one line."""
    return cut(" ".join(str(error).split()) or type(error).__name__, 300)


def _header(path: Path) -> tuple[Header, int]:
    """What the file says of itself, without GDAL; and its size in bytes."""
    with path.open("rb") as content:
        header = read_header(content)
    if header.format != "TIFF":
        raise ValueError(f"it is a {header.format}, but such bands are read from TIFF alone")
    if header.pages > 1:
        raise ValueError(f"it holds {header.pages} pictures, but one is read")
    if header.orientation != 1:
        raise ValueError(f"its orientation tag ({header.orientation}) turns it; save it upright first")
    if any(word in header.colour for word in STRANGE):
        raise ValueError(f"it has {header}, which is not read")
    if (mask := path.with_name(f"{path.name}.msk")).exists():
        raise ValueError(f"{cut(mask.name)} says which of its pixels have data, but no file beside it is read")
    about = path.stat()
    return header, min(about.st_size, 512 * about.st_blocks)


def _check_claims(file: Any, size: int) -> None:
    """Raise ValueError for a raster that claims far more than `size` bytes can hold, or has no small parts."""
    kind = np.dtype(file.dtypes[0])
    claimed = file.count * file.height * file.width * kind.itemsize
    what = f"it claims {file.width}x{file.height} pixels, {claimed:,} bytes, in a file of {size:,} bytes"
    if claimed > max(BOMB, FACTOR * size):
        raise ValueError(what)
    if max(file.height, file.width) > SIDE:
        raise ValueError(f"{what}; no side may be longer than {SIDE:,} pixels")
    together = file.count if file.interleaving is not None and file.interleaving.value == "PIXEL" else 1
    for height, width in file.block_shapes:
        if height * width * kind.itemsize * together > BLOCK:
            raise ValueError(
                f"it is read in blocks of {width}x{height} pixels, more than {BLOCK:,} bytes each; write it in tiles "
                "first: gdal_translate -of COG"
            )


def _check_layout(file: Any, header: Header, bands: Bands, numbers: Sequence[int]) -> None:
    """Raise ValueError for types or names of bands that are not those of the network."""
    kinds = sorted({file.dtypes[number - 1] for number in numbers})
    if kinds != [bands.dtype]:
        raise ValueError(f"its values are {', '.join(kinds)}, but the network takes {bands}")
    if bands.dtype != "uint8" and header.bits % 8:
        raise ValueError(f"it has {header}, but the network takes {bands}")


def _flags(file: Any) -> list[list[Any]]:
    return [list(flags) for flags in file.mask_flag_enums]


def _marker(value: float | None, dtype: str) -> float | None:
    """The value of pixels without data; None where no pixel can have it."""
    if value is None or math.isnan(value):
        return None  # what is no number has no data anyway
    if dtype == "float32":
        return float(np.float32(value))
    limits = np.iinfo(dtype)
    return value if value == int(value) and limits.min <= value <= limits.max else None
