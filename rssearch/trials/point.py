"""A point of a pruning study, resolved once: which dataset, network, method and recipes it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from rssearch import data, models, pruning
from rssearch.config.settings import Recipe, Settings
from rssearch.cost.precision import FP32
from rssearch.errors import InputError
from rssearch.models.fitting import without_weights
from rssearch.models.weights import is_file, read
from rssearch.nas.widths import WidthSpace
from rssearch.pruning import ChannelGraph, Method, Sensitivity
from rssearch.pruning.allocate import Allocation
from rssearch.pruning.channels import Kept
from rssearch.pruning.ratios import ratios_of
from rssearch.pruning.scope import Scope
from rssearch.trial.session import image_settings

# What a study may name beside the registry of methods.
NO_METHOD, CHANNEL_NAS, SLIMMABLE = "none", "channel_nas", "slimmable"
OTHERS = (NO_METHOD, CHANNEL_NAS, SLIMMABLE)


class PruningPoint:
    """What one point of a space asks for. Whatever cannot be resolved raises an InputError when it is first used.

    Attributes:
        values: the point as the space has it, with dataset, model and method.
        settings: those of the study, with what the point overrides (dimensions with a dot in their name).
        dataset: name of the images.
        model: name of the network.
        method_name: of the pruning method, or one of `OTHERS`.
        macs_ratio: share of the MACs that shall remain; None where the point gives a rate or rates.
        seed: of the training; 0 where the space has none.
    """

    def __init__(self, values: Mapping[str, Any], settings: Settings) -> None:
        self.values = dict(values)
        self.settings = image_settings(settings, values)
        self.dataset: str = values["dataset"]
        self.model: str = values["model"]
        self.method_name: str = values["method"]
        self.macs_ratio: float | None = values.get("macs_ratio")
        self.seed: int = values.get("seed", 0)

    def with_method(self, name: str) -> PruningPoint:
        """The same point with another method."""
        return PruningPoint(self.values | {"method": name}, self.settings)

    @cached_property
    def method(self) -> Method | None:
        """The pruning method; None where nothing is scored."""
        return None if self.method_name in OTHERS else pruning.get_method(self.method_name)

    @property
    def is_soft(self) -> bool:
        """Whether its filters are zeroed in each epoch of the fine-tuning, and removed at the end."""
        return self.method is not None and self.method.soft

    @property
    def is_untrained(self) -> bool:
        """Whether it begins with the initial network, and so has no baseline."""
        return self.method is not None and self.method.start == "initial"

    @property
    def retrains(self) -> bool:
        """Whether the cut network is trained by the recipe of baselines."""
        return self.method is not None and self.method.retrain

    @cached_property
    def task(self) -> str:
        """What its images' targets are; where their name does not say it, what its network is for."""
        return data.task(self.dataset) or models.task_of(self.model)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of its network."""
        return self.settings.model.given(self.model)

    @property
    def weights(self) -> str | None:
        """The trained weights that its network begins with: a name that the network knows, or a file."""
        return self.options.get("weights")

    @property
    def weights_file(self) -> str | None:
        """The file of these weights; None where there is none."""
        return self.weights if self.weights is not None and is_file(self.weights) else None

    @cached_property
    def weights_sha256(self) -> str | None:
        """Of the content of that file, as the study began with it. Raises InputError for a file that cannot be read."""
        name = self.weights_file
        if name is None:
            return None
        return self.settings.model.sha256.get(name) or read(name).sha256

    @cached_property
    def shape_options(self) -> dict[str, Any]:
        """The options that its shapes depend on: all but the weights."""
        return without_weights(self.options)

    @cached_property
    def options_text(self) -> str:
        """The options as JSON, for what is cached by its arguments."""
        return json.dumps(self.options, sort_keys=True)

    @cached_property
    def method_options(self) -> dict[str, Any]:
        """The options of its method."""
        return self.settings.pruning.options.get(self.method_name, {})

    @cached_property
    def train_recipe(self) -> Recipe:
        """How the baseline is trained: by the study's recipe, with what the method changes in it."""
        return _changed(self.settings.train, self.method.train) if self.method else self.settings.train

    @cached_property
    def finetune_recipe(self) -> Recipe:
        """How the pruned network is fine-tuned; or trained, by the recipe of the baselines."""
        recipe = self.settings.train if self.retrains else self.settings.finetune
        return _changed(recipe, self.method.finetune) if self.method else recipe

    @cached_property
    def target(self) -> float:
        """The ratio of MACs that its channel search is led to."""
        return float(self.settings.nas.target or self.values["macs_ratio"])

    @cached_property
    def slimmable_stages(self) -> int:
        """How many stages of a cascade come before its network: those whose budgets are not below its own."""
        ratio = self.values["macs_ratio"]
        return sum(budget >= ratio * 0.99 for budget in self.settings.slimmable.budgets)

    @cached_property
    def rates(self) -> dict[str, float] | None:
        """The pruning ratio of each layer, where the point gives a list of them."""
        rates = self.values.get("rates")
        return None if rates is None else ratios_of(rates, self.model)

    @property
    def asked_allocation(self) -> Allocation | None:
        """The allocation that point or settings name; None for the method's own."""
        return self.values.get("allocation") or self.settings.pruning.allocation

    @cached_property
    def allocation(self) -> Allocation:
        """How scores become kept channels."""
        if self.values.get("rates") is not None:
            return "uniform"
        return self.asked_allocation or pruning.get_method(self.method_name).allocation

    @property
    def round_to(self) -> int:
        """Kept channels are a multiple of it."""
        return int(self.values.get("round_to", self.settings.pruning.round_to))

    @property
    def groups(self) -> Scope:
        """Which groups of coupled channels may be cut."""
        return self.values.get("groups") or self.settings.pruning.groups

    @property
    def precision(self) -> str:
        """In which its network is deployed and measured."""
        return str(self.values.get("precision", FP32))

    @property
    def needs_sensitivities(self) -> bool:
        """Whether its widths follow from what cutting single groups does to the loss."""
        return self.method is not None and self.allocation == "sensitivity"

    def width_space(self, graph: ChannelGraph, whole: ChannelGraph) -> WidthSpace:
        """The structures that a slimmable network may have, which may have been cut from the `whole` one."""
        limits = self.settings.pruning
        return WidthSpace.of(
            graph,
            floor=self.settings.slimmable.floor,
            min_channels=limits.min_channels,
            round_to=self.round_to,
            groups=self.groups,
            keep=limits.keep,
            whole=whole,
        )

    def allocate(
        self,
        graph: ChannelGraph,
        scores: Mapping[str, Tensor],
        macs_ratio: float | None,
        whole: ChannelGraph | None = None,
        sensitivities: Mapping[str, Sensitivity] | None = None,
    ) -> Kept:
        """The channels that it keeps of a network by their scores.

        `macs_ratio` is relative to that network; `whole` is the graph of the one that it was cut from, if it was;
        `sensitivities` are those of the network, where `needs_sensitivities`.
        """
        return pruning.allocate(
            graph,
            scores,
            allocation=self.allocation,
            rate=self.values.get("rate"),
            rates=self.rates,
            macs_ratio=macs_ratio,
            round_to=self.round_to,
            min_channels=self.settings.pruning.min_channels,
            groups=self.groups,
            keep=self.settings.pruning.keep,
            whole=whole,
            sensitivities=sensitivities,
        )


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with a method's changes, where the study leaves the default."""
    defaults = {name: field.default for name, field in Recipe.model_fields.items()}
    changes = {name: value for name, value in changes.items() if getattr(recipe, name) == defaults[name]}
    try:
        return Recipe.model_validate(recipe.model_dump() | changes)
    except ValidationError as error:
        reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        wanted = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise InputError(f"the method needs {wanted}, which the study's recipe does not allow: {reasons}") from None
