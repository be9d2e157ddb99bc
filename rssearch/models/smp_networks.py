"""Encoder-decoders of segmentation_models_pytorch, named by architecture and encoder."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from rssearch.errors import InputError, cut, unknown
from rssearch.models import extras, timm_networks
from rssearch.models.fetching import hub_cache, not_fetched

MODULE = "segmentation_models_pytorch"
OF_TIMM = "tu-"  # before the name of an encoder of timm


def architectures() -> list[str]:
    """The names of its architectures. Raises InputError if the library is not installed."""
    return list(_smp().MODEL_ARCHITECTURES_MAPPING)


def encoders() -> list[str]:
    """The names of its own encoders; any network of timm is one as well, with ``tu-`` before its name."""
    return [name for name in _smp().encoders.get_encoder_names() if not name.startswith("timm-")]  # an old spelling


def names() -> list[str]:
    """``ARCH/ENCODER`` for each architecture with each of its own encoders."""
    own = encoders()
    return [f"{arch}/{encoder}" for arch in architectures() for encoder in own]


def weights_of(name: str) -> list[str]:
    """The names of the trained weights of the encoder."""
    _, encoder = split(name)
    if encoder.startswith(OF_TIMM):
        return timm_networks.weights_of(encoder.removeprefix(OF_TIMM))
    return list(_smp().encoders.encoders[encoder]["pretrained_settings"])


def split(name: str) -> tuple[str, str]:
    """Architecture and encoder of ``ARCH/ENCODER``. Raises InputError for unknown ones."""
    extras.load(MODULE, f"smp:{name}")
    arch, slash, encoder = name.partition("/")
    arch = arch.lower().replace("+", "plus")
    if not slash or not encoder:
        raise InputError(f"smp:{name}: must be smp:ARCH/ENCODER, such as smp:unet/resnet34")
    if arch not in architectures():
        raise unknown("architecture of segmentation_models_pytorch", arch, architectures())
    if encoder.startswith(OF_TIMM):
        timm_networks.check(encoder.removeprefix(OF_TIMM))
    elif encoder not in _smp().encoders.get_encoder_names():
        raise extras.unknown_in("encoder of segmentation_models_pytorch", encoder, encoders())
    return arch, encoder


def normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation, of values in [0, 1], that the images of an encoder's weights were normalised by.

    Raises:
        InputError: the library keeps them beside the weights, which cannot be fetched.
    """
    _, encoder = split(name)
    if encoder.startswith(OF_TIMM):
        return timm_networks.normalisation(encoder.removeprefix(OF_TIMM), weights)
    try:
        found: dict[str, Any] = _smp().encoders.get_preprocessing_params(encoder, pretrained=weights)
    except Exception as error:  # whatever its client for the network raises
        raise not_fetched(f"smp:{name}: {weights}", error, hub_cache()) from error
    if found["input_space"] != "RGB":
        return None
    largest = found["input_range"][1]
    return tuple(mean / largest for mean in found["mean"]), tuple(std / largest for std in found["std"])


def build(name: str, num_classes: int, *, in_channels: int = 3, weights: str | None = None) -> nn.Module:
    """An encoder-decoder for segmentation; its logits have the size of the images.

    Args:
        name: ``ARCH/ENCODER``.
        num_classes: maps of logits.
        in_channels: bands of the images. From trained weights the first convolution is repeated over other bands.
        weights: of the encoder, such as ``imagenet``; they are downloaded once.

    Raises:
        InputError: unknown names, an encoder that the architecture cannot use, or weights that cannot be fetched.
    """
    arch, encoder = split(name)
    given: str | bool | None = weights
    if weights is not None and encoder.startswith(OF_TIMM):
        encoder, given = f"{encoder}.{weights}", True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of old spellings of encoders
            model: nn.Module = _smp().create_model(
                arch, encoder, encoder_weights=given, in_channels=in_channels, classes=num_classes
            )
    except Exception as error:  # whatever its code raises for such an encoder, or its client for the network
        if weights is not None:
            raise not_fetched(f"smp:{name}: {weights}", error, hub_cache()) from error
        why = cut(" ".join(str(error).split()) or type(error).__name__, 500)
        raise InputError(f"smp:{name}: cannot be built: {why}") from error
    return model


def _smp() -> Any:
    return extras.load(MODULE, "smp:ARCH/ENCODER")
