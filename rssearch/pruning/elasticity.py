"""How much the loss stretches with each filter, recorded while a network trains (compound pruning, eq. 5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from rssearch.errors import InputError

_PORTION = 2**20  # weights that are worked on at a time


class Elasticity:
    """Adds up the elasticity of the loss to every filter of every convolution, over the steps of a training.

    One step adds ``mean_j |dL/dw_j * w_j| / max(|L|, eps)`` over the weights w_j of a filter; biases do not count (that
    of a convolution in front of batch normalisation has no gradient). An optimizer's weight decay is not in the
    gradients, and so not in the record.

        elasticity = Elasticity(model)
        for images, labels in batches:
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            elasticity.update(loss)     # between backward and step
            optimizer.step()
        scores = pruning.score(model, graph, "compound", elasticity=elasticity.values())

    The host never waits for the device in `update`.

    Args:
        model: the network; its weights are looked up at each step, and it may be moved.
        eps: the least loss that is divided by.
    """

    def __init__(self, model: nn.Module, eps: float = 1e-12) -> None:
        if not eps > 0:
            raise InputError(f"eps is {eps}, but must be above 0")
        self._layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _ConvNd)}
        self._eps = eps
        self._total: Tensor | None = None  # sums over the weights of each filter, all layers one after the other
        self._steps = 0

    def reset(self) -> None:
        """Forget everything, as at the start of an epoch."""
        self._total, self._steps = None, 0

    def update(self, loss: Tensor, grad_scale: float | Tensor = 1.0) -> None:
        """Add one step. Call it between ``backward`` and ``optimizer.step``.

        A step whose gradients are not all finite adds nothing: a gradient scaler leaves it out as well.

        Args:
            loss: the loss (a scalar) that the gradients belong to, not scaled.
            grad_scale: what the gradients are multiplied by: a GradScaler's ``get_scale()``, unless it has unscaled
                them already.
        """
        learning = [layer for layer in self._layers.values() if layer.weight.grad is not None]
        if not learning:
            return
        with torch.no_grad():
            sums = {layer: total for some in _portions(learning) for layer, total in _sums(some)}
            idle = [layer for layer in self._layers.values() if layer not in sums]
            sums |= {layer: torch.zeros(layer.out_channels, device=loss.device) for layer in idle}
            step = torch.cat([sums[layer] for layer in self._layers.values()])
            step /= loss.detach().to(step.dtype).abs().clamp_min(self._eps) * grad_scale
            step = torch.where(step.isfinite().all(), step, 0.0)
            self._total = step if self._total is None else self._total.to(step.device) + step
            self._steps += 1

    def values(self) -> dict[str, Tensor]:
        """The elasticity of each filter since the last reset: convolution -> [out_channels], float32 on the CPU.

        Nothing at all if there was no step.
        """
        return {
            name: (total * (len(total) / self._layers[name].weight.numel())).float()
            for name, total in self._sums().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The record, for a checkpoint; it can be loaded without pickles."""
        return {"steps": self._steps, "sums": self._sums()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a record. Raises InputError if it is of another network."""
        found = {name: len(total) for name, total in state["sums"].items()}
        wanted = {name: layer.out_channels for name, layer in self._layers.items()}
        if state["steps"] and found != wanted:
            different = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
            raise InputError(f"the record of elasticity is of another network: {', '.join(different)} differ")
        self._steps = state["steps"]
        self._total = torch.cat([state["sums"][name] for name in wanted]) if self._steps else None

    def _sums(self) -> dict[str, Tensor]:
        if self._total is None:
            return {}
        widths = [layer.out_channels for layer in self._layers.values()]
        parts = torch.split(self._total.cpu(), widths)
        return {name: part.clone() for name, part in zip(self._layers, parts, strict=True)}


def _portions(layers: list[_ConvNd]) -> Iterator[list[_ConvNd]]:
    """The layers in portions: few calls for many small ones, and yet no copy of a whole network's weights."""
    portion: list[_ConvNd] = []
    size = 0
    for layer in layers:
        if portion and size + layer.weight.numel() > _PORTION:
            yield portion
            portion, size = [], 0
        portion.append(layer)
        size += layer.weight.numel()
    yield portion


def _sums(layers: list[_ConvNd]) -> list[tuple[_ConvNd, Tensor]]:
    """The sum of |gradient * weight| for each output channel of some layers."""
    # The products go out of scope before those of the next portion are made, which take their memory.
    products = torch._foreach_mul([layer.weight.grad for layer in layers], [layer.weight for layer in layers])  # type: ignore[misc]
    torch._foreach_abs_(products)
    return [(layer, _per_filter(layer, product)) for layer, product in zip(layers, products, strict=True)]


def _per_filter(layer: _ConvNd, values: Tensor) -> Tensor:
    """The sum of values like the weight's over those of each output channel, [out_channels] in float32 or more."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    if not layer.transposed:
        return values.sum(tuple(range(1, values.dim())), dtype=dtype)
    # [in, out / groups, ...]: the input channels of a group, one after the other, feed its outputs
    blocks = torch.unflatten(values, 0, (layer.groups, -1))
    return blocks.sum((1, *range(3, blocks.dim())), dtype=dtype).flatten()
