"""Mean and deviation that images are normalised by, instead of those of the training images."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rssearch.data.sceneset import AnySet

__all__ = ["IMAGENET", "UNCHANGED", "By", "applied"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class By(NamedTuple):
    """Mean and deviation of each band, of values in [0, 1]; one number of each stands for all bands."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


UNCHANGED = By((0.0,), (1.0,))


def applied(images: AnySet, by: By | None) -> AnySet:
    """An image set that is normalised so; the pixels are shared. None: by its training images, as it is."""
    if by is None:
        return images
    bands = images.input_shape[0]
    mean, std = (np.broadcast_to(np.asarray(values, np.float32), (bands,)).copy() for values in by)
    return replace(images, mean=mean, std=std)
