"""A user-defined network as its code builds it: whatever that raises is said in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rssearch.errors import InputError, cut, shown
from rssearch.models.opened_files import only_known_files

__all__ = ["build"]


def build(name: str, make: Callable[[], nn.Module], weights: str | None, *, own: bool = True) -> nn.Module:
    """Build a network.

    Args:
        name: of the network, for messages.
        make: calls its code.
        weights: the file or the name that it is given.
        own: whether it is user-defined; the code of others is trusted to raise what it means.

    Raises:
        InputError: it raises, gives no module, or one whose state cannot be stored; or see `only_known_files`.
    """
    with only_known_files(name, weights) if own else nullcontext():
        if not own:
            return make()
        try:
            model = make()
        except (InputError, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, SystemExit) as error:
            why = cut(" ".join(str(error).split()) or type(error).__name__, 300)
            raise InputError(f"{name}: its code cannot build the network: {type(error).__name__}: {why}") from error
    _check(name, model)
    return model


def _check(name: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"{name}: gives a {type(model).__name__}, not a torch.nn.Module")
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name}: {shown(key)} in its state is {type(value).__name__}, no tensor, which cannot be stored"
            )
        if torch.nn.parameter.is_lazy(value):
            raise InputError(f"{name}: {shown(key)} has no shape yet; a network is built with all its sizes")
