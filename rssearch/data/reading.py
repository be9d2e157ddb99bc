"""How an encoded image becomes pixels: 8-bit RGB by Pillow, or the bands of a raster in their own type."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.imaging import rasters
from rssearch.imaging.pixels import Array, check_image, check_size, decode, opened, rgb, upright_size
from rssearch.imaging.rasters import Layout, Options

__all__ = ["ALL", "RGB", "Options", "Pixelwise", "Rasters", "Reader", "Rgb", "asked", "chosen", "named"]

ALL = Options()  # every band, under its own name


class Pixelwise(NamedTuple):
    """Pixels [H, W, C], which of them [H, W] have no data in any band (None: all have some), and their value."""

    pixels: Array
    lost: npt.NDArray[np.bool_] | None = None
    nodata: float | None = None


class Reader(Protocol):
    """Makes pixels of files. Small to pickle, and safe to use from several threads."""

    def layout(self, data: bytes) -> Layout:
        """What `decode` would give without scaling. Raises DECODE_ERRORS."""
        ...

    def decode(self, data: bytes, size: int | None) -> Array:
        """Pixels [C, H, W], cut to the central square and scaled to `size` where it is given. Raises DECODE_ERRORS."""
        ...

    def scene(self, data: bytes) -> Pixelwise:
        """Pixels [H, W, C] as they are. Raises DECODE_ERRORS."""
        ...

    def given(self, options: Options) -> Reader:
        """The same, for what a study asks of the bands. Raises InputError where it has no choice."""
        ...


@dataclass(frozen=True)
class Rgb:
    """Images of 8 bits, as RGB and upright."""

    def layout(self, data: bytes) -> Layout:
        """Always three bands of uint8."""
        height, width = upright_size(io.BytesIO(data))
        return Layout(3, height, width, "uint8")

    def decode(self, data: bytes, size: int | None) -> Array:
        """uint8 [3, H, W], see `rssearch.imaging.pixels.decode`."""
        return decode(data, size)

    def scene(self, data: bytes) -> Pixelwise:
        """uint8 [H, W, 3]."""
        with opened(data, check_image) as (picture, header):
            check_size(picture, len(data))
            return Pixelwise(np.asarray(rgb(picture, header)))

    def given(self, options: Options) -> Reader:
        """Itself."""
        if asked := [name for name, value in zip(("bands", "band_names", "nodata"), options, strict=True) if value]:
            raise InputError(
                f"{asked[0]}: these images are read as 8-bit RGB; raster_folder:PATH reads any bands of any type"
            )
        return self


RGB = Rgb()


@dataclass(frozen=True)
class Rasters:
    """Rasters, band by band in their own type, see `rssearch.imaging.rasters`."""

    options: Options = ALL

    def layout(self, data: bytes) -> Layout:
        """Of the bands that are read, in their order."""
        about = rasters.layout(data, self.options)
        numbers = rasters.numbers(about, self.options)
        names = self.options.names or about.names
        picked = None if names is None else tuple(names[number - 1] for number in numbers)
        return replace(about, bands=len(numbers), names=picked, numbers=numbers, total=about.bands)

    def decode(self, data: bytes, size: int | None) -> Array:
        """The bands that are read [C, H, W], in the type of the file."""
        return rasters.resampled(rasters.read(data, self.options), size).pixels

    def scene(self, data: bytes) -> Pixelwise:
        """The bands that are read [H, W, C], in the type of the file."""
        found = rasters.read(data, self.options)
        lost = rasters.missing(found.pixels, found.nodata)
        pixels = np.ascontiguousarray(found.pixels.transpose(1, 2, 0))
        return Pixelwise(pixels, None if lost is None else np.asarray(lost.all(0)), found.nodata)

    def given(self, options: Options) -> Reader:
        """The same with other options; names that are known of the files stay."""
        return Rasters(options if options.names else options._replace(names=self.options.names))


def asked(settings: Settings) -> Options:
    """Which bands of rasters a study reads."""
    return Options(settings.bands, settings.band_names, settings.nodata)


def chosen(names: tuple[str, ...] | None, options: Options) -> tuple[list[int], tuple[str, ...] | None]:
    """Which bands of generated images are asked for, as indices from 0, and their names.

    Args:
        names: of all bands; None: RGB.
        options: what is asked for.

    Raises:
        InputError: there is none of such a number or name.
    """
    try:
        known = names or ("red", "green", "blue")
        numbers = rasters.numbers(Layout(len(known), 1, 1, "uint8", known), options)
    except ValueError as error:
        raise InputError(f"bands: {error}") from None
    if names is None and options == ALL:
        return [0, 1, 2], None
    known = options.names or known
    return [number - 1 for number in numbers], tuple(known[number - 1] for number in numbers)


def named(pixels: Callable[[int | None], Array], indices: list[int]) -> Callable[[int | None], Array]:
    """A generator of images [N, C, H, W], cut to some of their bands."""

    def picked(size: int | None) -> npt.NDArray[np.generic]:
        images = pixels(size)
        return images if indices == list(range(images.shape[1])) else np.ascontiguousarray(images[:, indices])

    return picked
