"""Networks of timm (PyTorch Image Models), by their names there."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from rssearch.errors import InputError, cut
from rssearch.models import extras
from rssearch.models.fetching import hub_cache, not_fetched

MODULE = "timm"


def names() -> list[str]:
    """The names of its architectures. Raises InputError if timm is not installed."""
    return list(extras.load(MODULE, "timm:NAME").list_models())


def weights_of(name: str) -> list[str]:
    """The tags of the trained weights of an architecture, the default first."""
    return list(_trained(name))


def _trained(name: str) -> dict[str, Any]:
    configs = extras.load("timm.models", f"timm:{name}").get_arch_pretrained_cfgs(name)
    return {full.partition(".")[2]: config for full, config in configs.items() if config.has_weights}


def check(name: str) -> None:
    """Refuse a name that timm does not have. Raises InputError."""
    is_model = extras.load(MODULE, f"timm:{name}").is_model  # which leaves out what follows a dot
    bare, dot, tag = name.partition(".")
    if not is_model(bare):
        raise extras.unknown_in("timm model", name, names())
    if dot:
        raise InputError(f"timm:{name}: {tag!r} names trained weights, which are the option `weights` of 'timm:{bare}'")


def normalisation(name: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and deviation, of values in [0, 1], that the images of trained weights were normalised by."""
    config = _trained(name).get(weights)
    return None if config is None else (tuple(config.mean), tuple(config.std))


def build(name: str, num_classes: int, *, in_channels: int = 3, weights: str | None = None) -> nn.Module:
    """A network of timm.

    With trained weights, its head is replaced where they have other classes, and its first convolution is repeated over
    other bands and scaled, as timm does.

    Args:
        name: of the architecture.
        num_classes: outputs of the classifier.
        in_channels: bands of the images.
        weights: a tag, such as ``a1_in1k``; they are downloaded once.

    Raises:
        InputError: timm cannot build it, or the weights cannot be fetched.
    """
    timm = extras.load(MODULE, f"timm:{name}")
    create = partial(timm.create_model, name, num_classes=num_classes, in_chans=in_channels)
    try:
        if weights is None:
            model: nn.Module = create(pretrained=False)
        else:
            model = create(pretrained=True, pretrained_cfg=weights)
    except Exception as error:  # whatever its code raises for such a number of bands, or its client for the network
        if weights is not None:
            raise not_fetched(f"timm:{name}: {weights}", error, hub_cache()) from error
        why = cut(str(error) or type(error).__name__, 500)
        raise InputError(f"timm:{name}: cannot be built with {in_channels} bands: {why}") from error
    return model
