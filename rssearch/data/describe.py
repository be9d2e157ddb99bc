"""What is known of a dataset without decoding all of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rssearch.config.settings import Patches, Split
from rssearch.data.family import Task
from rssearch.data.listing import Files
from rssearch.data.registry import check_input_size, divided
from rssearch.data.scenes import SceneListing
from rssearch.data.scenestore import header_sizes
from rssearch.data.windows import cut
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, reason, upright_size


@dataclass(frozen=True)
class Description:
    """Shape of one image or patch (C, H, W), number of classes, number of images or patches, and task."""

    input_shape: tuple[int, int, int]
    num_classes: int
    num_images: int
    task: Task = "classification"


def describe(
    name: str,
    root: str | Path,
    *,
    input_size: int | None = None,
    patches: Patches = Patches(),  # noqa: B008  (frozen)
    split: Split = Split(),  # noqa: B008
) -> Description:
    """Look at a dataset's listing and, where no input size is given, at the size of its first image.

    Of scenes all sizes are looked at, in their headers: the patches are those that all of them would give for training.

    Raises:
        InputError: as `rssearch.data.registry.divided`, an image cannot be read, or an input size is given for scenes.
    """
    check_input_size(name, input_size)
    found = divided(name, root, split)
    if isinstance(found, SceneListing):
        shapes = [shape for shape in header_sizes(found.source) if all(shape)]
        windows = cut(shapes, range(len(shapes)), patches.size, patches.overlap)
        return Description((3, patches.size, patches.size), len(found.classes), len(windows), "segmentation")
    if input_size is not None:
        size = (input_size, input_size)
    elif isinstance(found.pixels, Files):
        try:
            size = upright_size(io.BytesIO(found.pixels.read(0)))
        except DECODE_ERRORS as error:
            raise InputError(f"{found.pixels.location(0)}: cannot be read: {reason(error)}") from None
    else:
        size = np.shape(found.pixels(None))[2:4]
    return Description((3, *size), len(found.classes), len(found.names))
