"""Masks of scenes of any size, as Cloud Optimized GeoTIFFs at the place of the scene; in windows, in little memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rssearch.bundle.predict import Network, decoded, logits_of, regular, softmax
from rssearch.imaging.blending import blended
from rssearch.imaging.georaster import Place, Window, is_installed, opened
from rssearch.imaging.geowrite import BLOCK, Content, written
from rssearch.imaging.headers import read_header

__all__ = [
    "MASK",
    "PROBABILITIES",
    "Shares",
    "Source",
    "chances_content",
    "is_located",
    "mask_content",
    "segment",
    "source",
]

MASK, PROBABILITIES = ".mask.tif", ".probabilities.tif"  # how the names of written rasters end
MEMORY = 2**27  # bytes that the rows in work may take


class Source(Protocol):
    """What pixels are read from."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        ...

    @property
    def place(self) -> Place | None:
        """Where it is; None: nowhere."""
        ...

    def read(self, rows: slice, columns: slice) -> Window:
        """A window."""
        ...


class _Picture:
    """An image of 8 bits in memory."""

    place = None

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._pixels = pixels

    @property
    def shape(self) -> tuple[int, int]:
        _, height, width = self._pixels.shape
        return height, width

    def read(self, rows: slice, columns: slice) -> Window:
        return Window(self._pixels[:, rows, columns], None)


def is_located(path: str | Path) -> bool:
    """Whether a file is a GeoTIFF that says where it is. What cannot be read is none."""
    try:
        with regular(path).open("rb") as content:
            return read_header(content).located
    except (OSError, ValueError):
        return False


@contextmanager
def source(network: Network, path: str | Path) -> Iterator[Source]:
    """Open a scene: a GeoTIFF by rasterio, any other image of 8 bits by Pillow.

    Raises:
        InputError: it cannot be read, or has other bands than the network takes.
    """
    if network.bands.pictures and not (is_located(path) and is_installed()):
        yield _Picture(decoded(path, None))
        return
    with opened(regular(path), network.bands) as scene:
        yield scene


class Shares(NamedTuple):
    """What a mask holds.

    Attributes:
        classes: the share of each class in the pixels with data.
        nodata: the share of the pixels without data in all.
    """

    classes: dict[str, float]
    nodata: float


def segment(network: Network, path: str | Path, mask: Path, probabilities: Path | None = None) -> Shares:
    """Write the mask of a scene: of each pixel its class; the colours and names of the classes are in the file.

    Args:
        network: for segmentation.
        path: the scene.
        mask: the file, which is replaced. Pixels without data have the largest value of its type.
        probabilities: a file for the probability of each class, a band each, float32; pixels without data are NaN.

    Raises:
        InputError: the scene cannot be read, or a file cannot be written.
    """
    classes = network.classes
    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    with source(network, path) as scene, ExitStack() as stack:
        content = mask_content(network, scene.shape)
        into = stack.enter_context(written(mask, scene.place, content))
        chances = None
        if probabilities is not None:
            chances = stack.enter_context(written(probabilities, scene.place, chances_content(network, scene.shape)))
        width = _width(network, probabilities=probabilities is not None)
        for strip in blended(
            scene.read, lambda pixels: logits_of(network, pixels), scene.shape, network.tiles, width=width
        ):
            found = strip.logits.argmax(0).astype(content.dtype)
            if chances is not None:
                values = softmax(strip.logits[None])[0]
                if strip.lost is not None:
                    values[:, strip.lost] = np.nan
                chances.add(values, strip.column)
            if strip.lost is not None:
                counts[-1] += np.count_nonzero(strip.lost)
                counts[:-1] += np.bincount(found[~strip.lost], minlength=len(classes))
                found[strip.lost] = int(content.nodata)
            else:
                counts[:-1] += np.bincount(found.ravel(), minlength=len(classes))
            into.add(found[None], strip.column)
    total = max(1, int(counts[:-1].sum()))
    shares = dict(zip(classes, (counts[:-1] / total).tolist(), strict=True))
    return Shares(shares, float(counts[-1] / counts.sum()))


def mask_content(network: Network, shape: tuple[int, int]) -> Content:
    """What a raster of classes holds: their indices, names and colours."""
    classes = network.classes
    dtype = "uint8" if len(classes) < 256 else "uint16"
    nodata = int(np.iinfo(dtype).max)
    colours: dict[int, tuple[int, int, int, int]] = {
        index: (colour[0], colour[1], colour[2], 255) for index, colour in enumerate(colours_of(network))
    }
    tags = _tags(network) | {"NODATA": f"{nodata}: pixels without data in the scene"}
    return Content((1, *shape), dtype, nodata, ["class"], tags, colours | {nodata: (0, 0, 0, 0)})


def chances_content(network: Network, shape: tuple[int, int]) -> Content:
    """What a raster of probabilities holds: a band for each class."""
    return Content((len(network.classes), *shape), "float32", float("nan"), network.classes, _tags(network))


def colours_of(network: Network) -> list[list[int]]:
    """A colour of each class; grey levels where the bundle has none."""
    count = len(network.classes)
    levels = [[round(255 * index / max(1, count - 1))] * 3 for index in range(count)]
    return list(network.about.get("colours") or levels)


def _tags(network: Network) -> dict[str, str]:
    names = {f"CLASS_{index}": name for index, name in enumerate(network.classes)}
    return {"CLASSES": json.dumps(network.classes, ensure_ascii=False), **names}


def _width(network: Network, *, probabilities: bool) -> int:
    """How many columns of pixels are in work together, so that they take little memory."""
    size, count = network.tiles.size, len(network.classes)
    floats = size * (2 * network.bands.count + 3 * count) + (3 * BLOCK * count if probabilities else 0)
    return max(1, MEMORY // (4 * floats * BLOCK)) * BLOCK
