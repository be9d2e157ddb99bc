"""Slimmable training: in each step several widths of one network learn together, so that it can be cut to any of them.

The sandwich rule and the distillation of universally slimmable networks (Yu and Huang, ICCV 2019), with a width for
each group of coupled channels, drawn around a budget of the exact cost tables (AutoSlim, 1903.11728, searches such
widths). Which channels a width keeps is an order by importance, fixed before the training begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rssearch.config.settings import Recipe, Slimmable
from rssearch.device import autocast
from rssearch.nas.widths import Orders, Widths, WidthSpace
from rssearch.pruning.subnets import Subnets
from rssearch.train import losses
from rssearch.train.balance import LabelLoss
from rssearch.train.loop import StepLoss

__all__ = ["Sandwich", "orders_of"]


def orders_of(scores: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The channels of each group, the highest score first; of equal scores the lower index."""
    return {name: torch.argsort(values, descending=True, stable=True).tolist() for name, values in scores.items()}


@dataclass
class Sandwich:
    """What a slimmable network learns: an objective of `rssearch.train.fit`, distilled from a teacher.

    In each step the smallest structure and some random ones learn from the teacher or the labels; their gradients add
    up. The structures of a step are drawn from (seed, step) alone: a resumed training and other workers draw the same.
    Each pass normalises by its own batch; no running statistics are kept, so that those of a structure are to be
    recalibrated once it is cut out.

    Args:
        space: the structures that the network may have.
        orders: the channels of each group, the most important first.
        settings: of the training.
        seed: of the structures.
    """

    space: WidthSpace
    orders: Orders
    settings: Slimmable
    seed: int
    _subnets: Subnets | None = field(init=False, default=None, repr=False)

    def attach(self, model: nn.Module) -> None:
        """Share the weights of a network."""
        self._subnets = Subnets(model, self.space.graph)

    def structures(self, step: int) -> list[Widths]:
        """The widths that learn in a step, the smallest structure first."""
        settings, rng = self.settings, np.random.default_rng([self.seed, step])
        smallest = settings.budgets[-1]
        found = [self.space.fitted(np.ones(len(self.space.floors)), smallest)]
        for _ in range(settings.structures):
            ratio = smallest + (1 - smallest) * float(rng.random())
            found.append(self.space.draw(ratio, settings.spread, rng))
        return found

    def at(self, step: int) -> StepLoss:
        """The loss of a step: the sum over its structures."""
        return partial(self._loss, self.structures(step))

    def _loss(
        self,
        structures: list[Widths],
        _: nn.Module,
        teacher: nn.Module | None,
        recipe: Recipe,
        label_loss: LabelLoss,
        weight: Tensor | float,
        x: Tensor,
        y: Tensor,
    ) -> Tensor:
        """As `rssearch.train.loop.training_loss`."""
        assert self._subnets is not None
        total, share = torch.zeros((), device=x.device), recipe.distill if teacher is not None else 0.0
        with autocast(x.device, recipe.precision):
            if teacher is not None:
                with torch.no_grad():
                    taught = teacher(x)
            for widths in structures:
                logits = self._subnets(self.space.kept(self.orders, widths), x)
                if teacher is not None:
                    total = total + share * losses.distillation(logits, taught, recipe.temperature, y)
                if share < 1:
                    total = total + (1 - share) * label_loss(logits, y)
        return weight * total
