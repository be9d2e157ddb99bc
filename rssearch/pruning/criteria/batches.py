"""The data of the data-driven criteria."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from rssearch.errors import InputError

Batches = Iterable[tuple[Tensor, Tensor]]


def on_device(data: Batches | None, model: nn.Module, method: str) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches (images [B, C, H, W], labels [B]) on the device of the model.

    Raises:
        InputError: no data, or not one batch.
    """
    if data is None:
        raise InputError(f"method {method!r} needs data: batches of images and labels")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    empty = True
    for x, y in data:
        empty = False
        yield x.to(device), y.to(device)
    if empty:
        raise InputError(f"method {method!r} needs data, but there is not one batch")
