"""What is known of a dataset without decoding all of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rssearch.data.decode import reason
from rssearch.data.listing import Files
from rssearch.data.registry import listing
from rssearch.errors import InputError


@dataclass(frozen=True)
class Description:
    """Shape of one image (C, H, W), number of classes and number of images."""

    input_shape: tuple[int, int, int]
    num_classes: int
    num_images: int


def describe(name: str, root: str | Path, *, input_size: int | None = None) -> Description:
    """Look at a dataset's listing and, where no input size is given, at the size of its first image.

    Raises:
        InputError: as `listing`, or the first image cannot be read.
    """
    found = listing(name, root)
    if input_size is not None:
        size = (input_size, input_size)
    elif isinstance(found.pixels, Files):
        try:
            with Image.open(io.BytesIO(found.pixels.read(0))) as image:
                size = (image.height, image.width)
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{found.pixels.location(0)}: cannot be read: {reason(error)}") from None
    else:
        size = np.shape(found.pixels(None))[2:4]
    return Description((3, *size), len(found.classes), len(found.names))
