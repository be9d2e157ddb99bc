"""What a point's images are normalised by: their own mean and deviation, or those that weights were trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rssearch import models
from rssearch.config.settings import Normalisation
from rssearch.data.normalisation import IMAGENET, UNCHANGED, By, applied
from rssearch.errors import InputError
from rssearch.trials.point import PruningPoint

__all__ = ["IMAGENET", "UNCHANGED", "By", "applied", "check", "name_of", "of_point"]


def of_point(point: PruningPoint) -> By | None:
    """What a point's images are normalised by; None: mean and deviation of the training images.

    Raises:
        InputError: the study asks for what its weights say, and they say nothing.
    """
    asked, name = point.settings.normalize, point.weights
    known = None
    if asked in (None, "weights") and name is not None and point.weights_file is None:
        known = models.normalisation_of(point.model, name)
        if known is None and (sensor := models.sensor_scaling(point.model, name)) is not None:
            return By(sensor.mean, sensor.std, raw=True)
    match asked:
        case Normalisation():
            return By(asked.mean, asked.std)
        case "imagenet":
            return By(*IMAGENET)
        case "none":
            return UNCHANGED
        case "weights" if known is None:
            what = "no weights are named" if name is None else f"{name} does not say what it was trained with"
            raise InputError(f"normalize: weights: {what}; give imagenet, dataset, none or {{mean, std}}")
        case _:
            return None if known is None else By(*known)


def name_of(point: PruningPoint) -> str:
    """How a study says what a point's images are normalised by."""
    asked, by = point.settings.normalize, of_point(point)
    if isinstance(asked, Normalisation):
        return f"{{mean: {list(asked.mean)}, std: {list(asked.std)}}}"
    return asked or ("dataset" if by is None else "weights")


def check(point: PruningPoint, bands: int, names: Sequence[str] | None = None) -> None:
    """Refuse a normalisation, or named weights, of other bands than the images have. Raises InputError."""
    by = of_point(point)
    if point.weights is not None and point.weights_file is None and names is not None:
        sensor = models.sensor_scaling(point.model, point.weights)
        if sensor is not None and sensor.bands and list(map(_band, sensor.bands)) != list(map(_band, names)):
            raise InputError(
                f"bands: the weights {point.weights} were trained on {', '.join(sensor.bands)}, in this order, and the "
                f"images are read as {', '.join(names)}"
            )
    if by is not None and len(by.mean) not in (1, bands):
        raise InputError(
            f"normalize: {name_of(point)} has {len(by.mean)} bands, and the images of {point.dataset!r} have {bands}"
        )


def _band(name: str) -> str:
    """The name of a band as all write it: B4 for B04, B8A for b8a."""
    return re.sub(r"^B0+(?=\d)", "B", name.upper())
