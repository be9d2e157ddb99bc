"""What is known of a dataset without decoding all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssearch.config.settings import Patches, Scale, Split
from rssearch.data.family import Task
from rssearch.data.listing import Files
from rssearch.data.reading import ALL, Options, Rasters, Reader, Rgb, chosen
from rssearch.data.registry import check_input_size, divided, task_of
from rssearch.data.scaling import said, scaled_by
from rssearch.data.sceneload import with_bands
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.data.scenestore import header_sizes
from rssearch.data.windows import cut
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, reason
from rssearch.imaging.rasters import Layout

RGB = Layout(3, 1, 1, "uint8")


@dataclass(frozen=True)
class Description:
    """What is known of a dataset.

    Attributes:
        input_shape: (C, H, W) of one image or patch.
        num_classes: how many there are.
        num_images: images or patches.
        task: what the targets are.
        classes: their names.
        dtype: of the pixels.
        bands: names of the C bands, where they are known.
        scaled: how values are scaled, in words.
        nodata: the value of pixels without data.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    task: Task = "classification"
    classes: tuple[str, ...] = ()
    dtype: str = "uint8"
    bands: tuple[str, ...] | None = None
    scaled: str = said(None)
    nodata: float | None = None

    def pixels(self) -> str:
        """What images are made of and how they are scaled, for people."""
        names = f" ({', '.join(self.bands)})" if self.bands else ""
        count = self.input_shape[0]
        lost = "" if self.nodata is None else f", {self.nodata:g} is no data and becomes the mean of its band"
        return f"{count} band{'s' if count > 1 else ''} of {self.dtype}{names}, {self.scaled}{lost}"


def describe(
    name: str,
    root: str | Path,
    *,
    input_size: int | None = None,
    patches: Patches = Patches(),  # noqa: B008  (frozen)
    split: Split = Split(),  # noqa: B008
    bands: Options = ALL,
    scale: Scale | None = None,
) -> Description:
    """Look at a dataset's listing and, where no input size is given, at the size of its first image.

    Of scenes all sizes are looked at, in their headers: the patches are those that all of them would give for training.
    Of rasters the first one's bands and type are taken for those of all.

    Raises:
        InputError: as `rssearch.data.registry.divided`, an image cannot be read, or an input size is given for scenes.
    """
    check_input_size(name, input_size)
    found = divided(name, root, split)
    if isinstance(found, SceneListing):
        check_input_size(name, input_size, "segmentation")
        found = with_bands(found, bands)
        shapes = [shape for shape in header_sizes(found.source) if all(shape)]
        windows = cut(shapes, range(len(shapes)), patches.size, patches.overlap)
        pairs = found.source if isinstance(found.source, Pairs) else None
        layout = _first(pairs.images, pairs.reader) if pairs and isinstance(pairs.reader, Rasters) else RGB
        shape, images = (layout.bands, patches.size, patches.size), len(windows)
    elif isinstance(found.pixels, Files):
        reader, images = found.reader.given(bands), len(found.names)
        layout = RGB if isinstance(reader, Rgb) and input_size is not None else _first(found.pixels, reader)
        shape = (layout.bands, input_size or layout.height, input_size or layout.width)
    else:
        indices, names = chosen(found.bands, bands)
        size, images = (input_size,) * 2 if input_size else np.shape(found.pixels(None))[2:4], len(found.names)
        shape = (len(indices), *size)
        layout = Layout(*shape, dtype=found.dtype, names=names)
    return Description(
        input_shape=shape,
        num_classes=len(found.classes),
        num_images=images,
        task=task_of(found),
        classes=found.classes,
        dtype=layout.dtype,
        bands=layout.names,
        scaled=said(scaled_by(scale, found.scale, np.dtype(layout.dtype))),
        nodata=layout.nodata,
    )


def _first(files: Files, reader: Reader) -> Layout:
    """The layout of the first image. Raises InputError where it cannot be read."""
    try:
        return reader.layout(files.read(0))
    except DECODE_ERRORS as error:
        raise InputError(f"{files.location(0)}: cannot be read: {reason(error)}") from None
