"""Mean and deviation that images are normalised by, instead of those of the training images."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rssearch.data.sceneset import AnySet

__all__ = ["IMAGENET", "UNCHANGED", "By", "applied"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class By(NamedTuple):
    """Mean and deviation of each band; one number of each stands for all bands.

    Attributes:
        mean: of values in [0, 1], as the scaling of the images makes them.
        std: likewise.
        raw: whether they are of the values in the files instead, in the units of a sensor.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    raw: bool = False

    def key(self) -> dict[str, object]:
        """What a content key holds of it."""
        return {"mean": self.mean, "std": self.std, **({"raw": True} if self.raw else {})}


UNCHANGED = By((0.0,), (1.0,))


def applied(images: AnySet, by: By | None) -> AnySet:
    """An image set that is normalised so; the pixels are shared. None: by its training images, as it is."""
    if by is None:
        return images
    bands = images.input_shape[0]
    mean, std = (np.broadcast_to(np.asarray(values, np.float32), (bands,)).copy() for values in by[:2])
    if by.raw:
        low, high = (ends.reshape(-1) for ends in images.scaling.ends(bands))
        mean, std = (mean - low) / (high - low), std / (high - low)
    return replace(images, mean=mean, std=std)
