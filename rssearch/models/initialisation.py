"""A network that is cut to smaller widths begins as if somebody had designed it with these widths.

A slice of freshly initialised weights is spread like the weights of the wide network: Kaiming's standard deviation is
sqrt(2 / fan), and the fan has become smaller. So the narrow layers are initialised again, in two steps: first each by
its own ``reset_parameters``, which is what PyTorch does when it makes such a layer; then by the calls of
`torch.nn.init` with which the network's constructor has replaced that, in their order (Kaiming's by the fan-out in a
ResNet, zeros for the last scale of a block). `recorded` writes these calls down while the wide network is built,
`initialise` repeats them on the tensors of the narrow one, so that every fan is that of the narrow layer. Numbers that
a constructor gives itself, such as ``normal_(weight, 0, 0.01)``, stay as they are. Parameters that are made in another
way, such as a scale of ones, keep their values.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Call", "Names", "initialise", "names_of", "recorded"]

Names = Mapping[tuple[int, tuple[int, ...]], str]

_OF_LAYERS = ("reset_parameters", "_reset_parameters")  # what PyTorch's layers call when they are made


class Call(NamedTuple):
    """A call of a function of `torch.nn.init`: on which tensor, and what else it was given."""

    function: Callable[..., Any]
    tensor: Tensor
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """Write down how a network's constructor initialises tensors itself; what layers do when they are made is not."""
    calls: list[Call] = []
    functions = {
        name: function
        for name, function in vars(nn.init).items()
        if name.endswith("_") and not name.startswith("_") and callable(function)
    }

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if sys._getframe(1).f_code.co_name not in _OF_LAYERS:
                calls.append(Call(function, tensor, arguments, options))
            return function(tensor, *arguments, **options)

        return call

    for name, function in functions.items():
        setattr(nn.init, name, watched(function))
    try:
        yield calls
    finally:
        for name, function in functions.items():
            setattr(nn.init, name, function)


def names_of(model: nn.Module) -> Names:
    """The parameters of a network by what tells their tensors apart, also those that were reached by ``.data``."""
    return {(value.data_ptr(), tuple(value.shape)): name for name, value in model.named_parameters()}


def initialise(model: nn.Module, calls: list[Call], names: Names, seed: int) -> None:
    """Initialise all parameters of a network again, in place; the caller's random state stays.

    Args:
        model: cut to its widths, on the CPU.
        calls: as its constructor made them on the wide network.
        names: as `names_of` gave them of the wide network.
        seed: of the numbers.
    """
    parameters = dict(model.named_parameters())
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
        for function, tensor, arguments, options in calls:
            name = names.get((tensor.data_ptr(), tuple(tensor.shape)))
            if name is not None:
                function(parameters[name], *arguments, **options)
