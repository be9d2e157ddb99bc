"""Weights of torchgeo for torchvision's ResNets, trained on Sentinel-2, Landsat and others, with bands and scaling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from rssearch.errors import InputError, unknown
from rssearch.models import extras
from rssearch.models.fetching import not_fetched, torch_cache

MODULE = "torchgeo"
PREFIX = "torchgeo:"
NETWORKS = ("resnet18", "resnet50", "resnet152")  # timm's, whose tensors are named as torchvision's


class Scaling(NamedTuple):
    """What the images of trained weights are, one number for each band: (value - mean) / std.

    Attributes:
        bands: as the sensor numbers them; empty where torchgeo does not say.
        mean: in the units of the images: 8 bits, reflectances times 10,000, or decibels.
        std: likewise.
    """

    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check(network: str, weights: str) -> None:
    """Refuse weights that torchgeo does not have for a network. Raises InputError, with the names of those it has."""
    _find(network, weights)


def scaling(network: str, weights: str) -> Scaling:
    """The bands of trained weights, and how their images were scaled."""
    found = _find(network, weights)
    mean, std = _composed(found.transforms, found.meta["in_chans"])
    return Scaling(tuple(found.meta.get("bands", ())), mean, std)


def normalisation(network: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation, of values in [0, 1], for weights of images with 8 bits; None for those of other units."""
    _, mean, std = scaling(network, weights)
    # Decibels, reflectances, and what scales values twice (SeCo's: deviations of less than one of 256 values).
    if min(mean) < 0 or max(std) > 255 or min(std) < 1:
        return None
    return tuple(value / 255 for value in mean), tuple(value / 255 for value in std)


def sensor_scaling(network: str, weights: str) -> Scaling | None:
    """Bands, mean and deviation, in a sensor's own units, of the images of trained weights.

    None: the weights are not torchgeo's, their images have 8 bits, or their unit is not known.
    """
    if not weights.startswith(PREFIX):
        return None
    network = network.removeprefix("torchvision:")
    found = scaling(network, weights)
    known = min(found.std) >= 1 or min(found.mean) < 0
    return found if known and normalisation(network, weights) is None else None


def load_into(model: nn.Module, network: str, weights: str, in_channels: int) -> None:
    """Put trained weights into a ResNet of torchvision, in place, but for its head; they are downloaded once.

    Raises:
        InputError: unknown weights, weights of other bands, or weights that cannot be fetched.
    """
    found = _find(network, weights)
    if found.meta["in_chans"] != in_channels:
        bands = ", ".join(found.meta.get("bands", ())) or "not named"
        raise InputError(
            f"{network}: the weights {weights} are for {found.meta['in_chans']} bands ({bands}), but the images have "
            f"{in_channels}"
        )
    try:
        tensors: dict[str, Any] = found.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no connection, or a checksum that does not match
        url = str(found.url).partition("?")[0]
        raise not_fetched(f"{network}: the weights {weights}", error, torch_cache(), url) from error
    result = model.load_state_dict({n: t for n, t in tensors.items() if not n.startswith("fc.")}, strict=False)
    if unfit := [name for names in result for name in names if not name.startswith("fc.")]:
        raise InputError(f"{network}: the weights {weights} do not fit: {', '.join(unfit[:3])}")


def _find(network: str, weights: str) -> Any:
    known = _weights_of(network, f"weights {weights} of {network}").__members__
    name = weights.removeprefix(PREFIX)
    if name not in known:
        raise unknown(f"weights of torchgeo for {network}", name, known)
    return known[name]


def _weights_of(network: str, what: str) -> Any:
    if network not in NETWORKS:
        raise InputError(f"{what}: torchgeo has weights for {', '.join(NETWORKS)}")
    return extras.load(f"{MODULE}.models", what).get_model_weights(network)


def _composed(transforms: Iterable[Any], bands: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The normalisations of a transform as one; what resizes and crops is left out."""
    mean, std = [0.0] * bands, [1.0] * bands
    for step in transforms:
        if hasattr(step, "mean") and hasattr(step, "std"):
            means, stds = (list(values) * (bands // len(values)) for values in (step.mean, step.std))
            mean = [m + s * new for m, s, new in zip(mean, std, means, strict=True)]
            std = [s * new for s, new in zip(std, stds, strict=True)]
    return tuple(mean), tuple(std)
