"""What a network costs: multiply-accumulates and parameters.

``macs`` is the count of thop, the counter behind most published pruning results; ``conv_linear_macs`` is the exact
count of the convolutions and linear layers alone. One MAC is one multiplication and one addition; neither number is
doubled.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        macs: as thop counts: conv and linear without bias, 4 per element of an affine BN, average pooling.
        params: all parameters, frozen or not.
        conv_linear_macs: multiply-accumulates of the convolutions and linear layers, nothing else.
        counter: name and version of the counter behind `macs`.
    """

    macs: int
    params: int
    conv_linear_macs: int
    counter: str


def profile(model: nn.Module, input_size: tuple[int, int, int]) -> Cost:
    """Count the cost of one image.

    A deep copy is measured: thop registers buffers that would stay in the state_dict of the original
    (pytorch-OpCounter issues 82 and 168).

    Args:
        model: a network that takes one batch of images; it is left as it is. On the device ``meta`` it is counted from
            shapes alone, without a computation.
        input_size: (C, H, W) of one image.
    """
    params = sum(parameter.numel() for parameter in model.parameters())
    twin = copy.deepcopy(model).eval()
    reference = next(twin.parameters(), torch.empty(0))
    image = torch.zeros(1, *input_size, device=reference.device, dtype=reference.dtype)
    exact = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal exact
        exact += macs_of_call(module, inputs[0], output)

    with forward_hooks(twin, lambda module: isinstance(module, _ConvNd | nn.Linear), count), torch.no_grad():
        twin(image)
    return Cost(thop_macs(twin, image), params, exact, f"thop {version('thop')}")


def macs_of_call(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """The multiply-accumulates of one call of a convolution (transposed or not) or linear layer, bias left out."""
    if isinstance(module, nn.Linear):
        return int(output.numel() * module.in_features)
    if not isinstance(module, _ConvNd):
        raise TypeError(f"{type(module).__name__} is neither a convolution nor a linear layer")
    positions = x.numel() // module.in_channels if module.transposed else output.numel() // module.out_channels
    macs: int = positions * module.weight.numel()
    return macs


def thop_macs(model: nn.Module, image: Tensor) -> int:
    """The count of thop. It changes the model: give it a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop imports distutils, and warns of its own functions
        import thop

        macs, _ = thop.profile(model, inputs=(image,), verbose=False)
    return int(macs)


def thop_counts(module: nn.Module) -> bool:
    """Whether thop has a rule for the module. It goes by the exact type: subclasses are not counted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop.profile import register_hooks

    return type(module) in register_hooks


def output_tensors(value: Any) -> list[Tensor]:
    """The tensors in the output of a network: itself, or those in its tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for child in children for tensor in output_tensors(child)]


@contextmanager
def forward_hooks(model: nn.Module, which: Callable[[nn.Module], bool], hook: Callable[..., Any]) -> Iterator[None]:
    """Have `hook` called after the forward pass of each module that `which` accepts; removed at the end."""
    handles = [module.register_forward_hook(hook) for module in model.modules() if which(module)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
