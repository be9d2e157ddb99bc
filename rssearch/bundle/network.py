"""The network of a bundle in torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import models, pruning
from rssearch.bundle.files import ARCHITECTURE, WEIGHTS, read
from rssearch.errors import InputError


def rebuild(folder: Path) -> nn.Module:
    """The network of a bundle, see `rssearch.bundle.load`."""
    return build(read(folder), folder)


def build(files: Mapping[str, bytes], where: Path) -> nn.Module:
    """The network that the architecture and the weights describe, on the CPU and in eval mode.

    Args:
        files: of a bundle.
        where: it is, for messages.

    Raises:
        InputError: they describe no network.
    """
    try:
        about = json.loads(files[ARCHITECTURE])
        channels, size, _ = about["input_shape"]
        model = models.create(
            about["model"], about["num_classes"], in_channels=channels, input_size=size, **about["options"]
        )
        pruning.apply_spec(model, about["spec"])
        model.load_state_dict(load_tensors(files[WEIGHTS]))
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{where}: the bundle does not describe a network of this version: {error}") from error
    return model.eval()
