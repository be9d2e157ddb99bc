"""Network slimming's penalty on the scales of batch normalisation, and how sparse it makes them.

The subgradient ``bn_l1 * sign(scale)`` pulls each scale towards zero in every step (Liu et al., ICCV 2017). How far a
whole training pulls depends on its length: about ``bn_l1 * sum of learning rates / (1 - momentum)``. The paper's 1e-4
pulls by 6.6 in the 160 epochs of its authors' code, whose scales start at 0.5, and by 0.03 in eight epochs. ``bn_l1:
auto`` takes the weight with which a training pulls by `SHRINKAGE`, whatever its length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.config.settings import Recipe
from rssearch.train.schedule import learning_rate

# Scales start at 1: one that the loss does not hold up is at 0 by the end, whatever the length of the training.
SHRINKAGE = 1.0
NEAR_ZERO = 0.01  # of the network's largest scale


def reach(recipe: Recipe, steps: int) -> float:
    """How far a constant gradient of 1 moves a weight in a training of so many steps an epoch, without decay.

    With sgd the steps as PyTorch takes them, momentum and Nesterov's included; with adamw, whose steps do not follow
    the size of a gradient, the sum of the learning rates: there the penalty is decoupled, as the weight decay is.
    """
    warmup, momentum = round(recipe.warmup_epochs * steps), recipe.momentum if recipe.optimizer == "sgd" else 0.0
    velocity = total = 0.0
    for step in range(recipe.epochs * steps):
        velocity = momentum * velocity + 1
        move = 1 + momentum * velocity if recipe.nesterov else velocity
        total += learning_rate(recipe, step, recipe.epochs * steps, warmup) * move
    return total


def weight(recipe: Recipe, steps: int) -> float:
    """The weight of the penalty in a training of so many steps an epoch."""
    return SHRINKAGE / reach(recipe, steps) if recipe.bn_l1 == "auto" else recipe.bn_l1


class Penalty:
    """The penalty in the steps of an epoch.

    Args:
        scales: those that learn.
        recipe: how the network is trained.
        steps: of an epoch.
    """

    def __init__(self, scales: Sequence[Tensor], recipe: Recipe, steps: int) -> None:
        self._scales = scales
        self._weight = weight(recipe, steps) if scales and recipe.bn_l1 else 0.0
        self._decoupled = recipe.bn_l1 == "auto" and recipe.optimizer == "adamw"

    def before_step(self) -> None:
        """Add the subgradient of weight * |scale| to the gradients."""
        if self._weight and not self._decoupled:
            with torch.no_grad():
                for scale in self._scales:
                    if scale.grad is not None:
                        scale.grad.add_(scale.sign(), alpha=self._weight)

    def after_step(self, rate: float) -> None:
        """Where it is decoupled: move the scales by themselves, at a learning rate."""
        if self._weight and self._decoupled:
            with torch.no_grad():
                for scale in self._scales:
                    scale.sub_(scale.sign(), alpha=rate * self._weight)


def sparsity(model: nn.Module) -> float | None:
    """The share of the scales of batch normalisation below 1 % of the network's largest; None without scales.

    Network slimming's paper ranks the scales and names no threshold for those that it calls near zero.
    """
    found = [layer.weight for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.affine]
    if not found:
        return None
    scales = torch.cat([scale.detach().abs().flatten() for scale in found])
    return float((scales < NEAR_ZERO * scales.max()).double().mean())
