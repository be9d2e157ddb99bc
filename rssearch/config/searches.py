"""The sections ``settings.nas`` and ``settings.slimmable`` of the YAML: how widths are searched."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rssearch.config.scalars import Integer, Real, Truth
from rssearch.config.section import Section, Share

__all__ = ["ChannelSearch", "Slimmable"]


class ChannelSearch(Section):
    """How channels are searched."""

    target: Real | None = Field(
        None, gt=0, le=1, description="MACs ratio that the search is led to; null: that of the derived network"
    )
    strength: Real = Field(5.0, ge=0, description="weight of the cost loss (lambda)")
    cost: Literal["squared", "log"] = Field(
        "squared", description="loss of the expected MACs ratio R for the target q: (R/q - 1)^2, or abs(log(R/q))"
    )
    score_lr: Real = Field(3e-2, gt=0, description="learning rate of the scores (Adam)")
    score_share: Share = Field(
        0.2, description="share of the training images that the scores learn from; above 0 and below 1"
    )
    warmup: Share = Field(
        0.1, description="share of the epochs in which all gates are open and only weights learn; below 1"
    )
    temperature: Real = Field(
        1.0, gt=0, description="of the gates sigmoid(score / temperature) at first; smaller is harder"
    )
    final_temperature: Real = Field(0.1, gt=0, description="of the gates at the end")
    annealing: Share = Field(0.6, description="share of the epochs in which the temperature falls, exponentially")
    straight_through: Truth = Field(False, description="gates of 0 or 1 forward, soft ones backward")

    @model_validator(mode="after")
    def _something_is_left(self) -> ChannelSearch:
        if not 0 < self.score_share < 1:
            raise ValueError("score_share must be above 0 and below 1: weights and scores learn from different images")
        if self.warmup >= 1:
            raise ValueError("warmup must be below 1, or no epoch is left to search in")
        return self


class Slimmable(Section):
    """How one training serves all budgets (method slimmable)."""

    form: Literal["cascade", "sandwich"] = Field(
        "cascade",
        description="cascade: the network shrinks from budget to budget, and is trained at each; sandwich: several "
        "widths of one network learn together in each step",
    )
    epochs: Integer = Field(
        3, ge=1, description="of each stage of the cascade, or of the joint training; the rest is as in settings.train"
    )
    lr: Real = Field(0.05, gt=0, description="learning rate of these epochs")
    distill: Share | None = Field(
        None,
        description="weight of the distillation from the baseline in these epochs, the labels get the rest; null: 0 in "
        "a cascade, 1 in a sandwich",
    )
    budgets: tuple[Annotated[Real, Field(gt=0, lt=1)], ...] = Field(
        (0.7, 0.5, 0.35, 0.25, 0.15, 0.1),
        min_length=1,
        description="MACs ratios of the stages, falling; the last one is the smallest network that there will be",
    )
    structures: Integer = Field(
        2, ge=1, description="sandwich: random structures in each step, beside the smallest one"
    )
    spread: Real = Field(
        0.3,
        ge=0,
        description="deviation of the logarithms of the groups' shares in a random structure; 0: uniform ones",
    )
    floor: Share = Field(0.1, description="share of each group that every structure keeps")
    held_out: Real = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the training images that structures are judged by; a sandwich is not trained on them",
    )
    images: Integer = Field(
        256, ge=2, description="most of these images that judge a structure; as many recalibrate its normalisation"
    )
    population: Integer = Field(8, ge=2, description="structures of a generation of the search (NSGA-II)")
    generations: Integer = Field(1, ge=0, description="of the search; 0: the first structures alone are judged")

    @model_validator(mode="after")
    def _budgets_fall(self) -> Slimmable:
        if any(small >= large for large, small in itertools.pairwise(self.budgets)):
            raise ValueError(f"budgets must fall, but are {', '.join(f'{budget:g}' for budget in self.budgets)}")
        return self

    @property
    def distillation(self) -> float:
        """The weight of the distillation, where null is resolved."""
        return self.distill if self.distill is not None else float(self.form == "sandwich")
