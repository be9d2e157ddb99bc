"""Quantisation-aware training: a network learns while its weights and maps are rounded as they will be deployed.

Jacob et al., CVPR 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference".
Gradients pass the rounding as if it were not there (straight-through). Weights are rounded symmetrically, with a scale
for each output channel: a batch normalisation behind a convolution scales whole channels, so that it makes no
difference whether it is folded first. Maps are rounded over the range that a batch gives them, 0 included. Batch
normalisation computes with its running statistics, as it will be folded, and does not change them: those of each batch
cost accuracy (`docs/results/precision.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.config.settings import Recipe
from rssearch.train.balance import LabelLoss
from rssearch.train.loop import StepLoss, training_loss

__all__ = ["QuantisationAware", "rounded_maps", "rounded_weights"]

_WEIGHTS = -64, 63  # 7 of 8 bits, as `rssearch.cost.onnx.to_int8` takes
_MAPS = 0, 255
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class QuantisationAware:
    """An objective of `rssearch.train.fit`: the loss of a recipe, of the network in 8 bits."""

    def attach(self, model: nn.Module) -> None:
        """Nothing is kept of the network: its layers are found in each step."""

    def at(self, step: int) -> StepLoss:  # noqa: ARG002
        """The same in each step."""
        return _loss


def _loss(
    model: nn.Module,
    teacher: nn.Module | None,
    recipe: Recipe,
    label_loss: LabelLoss,
    weight: Tensor | float,
    x: Tensor,
    y: Tensor,
) -> Tensor:
    """As `rssearch.train.loop.training_loss`."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # until the next epoch begins
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _LAYERS)}
    weights = {f"{name}.weight": rounded_weights(layer) for name, layer in layers.items()}

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = functional_call(model, weights, (x,))
            return logits

    with _rounding(list(layers.values())):
        return training_loss(Rounded(), teacher, recipe, label_loss, weight, x, y)


@contextmanager
def _rounding(layers: list[nn.Module]) -> Iterator[None]:
    """Let layers read maps in 8 bits."""

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded_maps(args[0]), *args[1:])

    hooks = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def rounded_weights(layer: nn.Module) -> Tensor:
    """The weights of a layer in 7 bits, with a scale for each output channel; of the same shape and type."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1 else 0
    others = [dim for dim in range(weight.dim()) if dim != axis]
    scale = (weight.detach().abs().amax(others).float() / _WEIGHTS[1]).clamp_min(1e-8)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, axis, *_WEIGHTS)


def rounded_maps(x: Tensor) -> Tensor:
    """Maps in 8 bits, over their range and 0; of the same shape and type."""
    values = x.detach().float()
    low, high = values.amin().clamp_max(0), values.amax().clamp_min(0)
    scale = ((high - low) / (_MAPS[1] - _MAPS[0])).clamp_min(1e-8)
    zero = (_MAPS[0] - low / scale).round().clamp(*_MAPS).to(torch.int32)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, *_MAPS)
