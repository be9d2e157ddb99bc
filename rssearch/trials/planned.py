"""What the driver asks of a pruning study before its trials run: no image is decoded, nothing is trained."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import models, pruning
from rssearch.config.settings import Settings
from rssearch.cost.activations import traced
from rssearch.cost.device_layers import layers
from rssearch.cost.device_table import Layer
from rssearch.cost.precision import BITS, costs
from rssearch.data import AnySet
from rssearch.data.describe import Description
from rssearch.errors import InputError
from rssearch.models.weights import read
from rssearch.pruning import ChannelGraph
from rssearch.pruning.channels import Kept
from rssearch.pruning.scope import channels_to_keep, may_be_cut
from rssearch.pruning.sensitivity import from_json
from rssearch.storage.artifacts import Store
from rssearch.train import balance
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Session
from rssearch.trials import architecture, checks, images, normalisation
from rssearch.trials.architecture import Architecture
from rssearch.trials.checks import named
from rssearch.trials.keys import BASELINES, SCORES, SEARCHES, SENSITIVITIES, SLIMMABLES, STRUCTURES, Keys
from rssearch.trials.point import CHANNEL_NAS, NO_METHOD, SLIMMABLE, PruningPoint

Metrics = dict[str, Any]


class PlannedTrial:
    """A point with what can be known of it without its images and weights.

    Args:
        point: resolved.
        data_root: folder of the datasets.
    """

    def __init__(self, point: PruningPoint, data_root: Path) -> None:
        self.point, self.data_root = point, data_root
        self.keys = Keys(point, data_root)

    @cached_property
    def description(self) -> Description:
        """Shape, classes and number of its images."""
        return images.describe(self.point, self.data_root)

    @property
    def pixels(self) -> str:
        """What its images are made of, and what becomes of their values, for people."""
        by = normalisation.name_of(self.point)
        return f"{self.point.dataset}: {self.description.pixels()}, normalised by {by}"

    @cached_property
    def architecture(self) -> Architecture:
        """Its network before pruning."""
        point, described = self.point, self.description
        return Architecture(point.model, point.options_text, described.input_shape, described.num_classes)

    def check_weights(self) -> None:
        """Refuse a file of weights that does not fit the network, or a normalisation of other bands.

        Raises:
            InputError: the file cannot be read, or what of it does not fit and what would.
        """
        point = self.point
        if point.settings.normalize is not None or point.weights is not None:
            with named("settings"):
                normalisation.check(point, self.description.input_shape[0], self.description.bands)
        if point.weights_file is None or models.takes_weights(point.model):
            return
        channels, size, _ = self.description.input_shape
        network = models.Network(point.model, self.description.num_classes, channels, point.shape_options)
        with named("settings.model"):
            models.check_weights(read(point.weights_file), network, size)

    def check_training(self) -> None:
        """Refuse what recipes and augmentation need of classes or bands that are not there. Raises InputError."""
        settings = self.point.settings
        if settings.augment.band_dropout > 0 and (bands := self.description.input_shape[0]) < 2:
            raise InputError(f"settings.augment.band_dropout: needs two bands or more; the images have {bands}")
        for section, recipe in (("train", settings.train), ("finetune", settings.finetune)):
            if recipe.class_weights not in (None, "balanced"):
                with checks.inside(f"settings.{section}"):
                    balance.check_classes(recipe, self.description.classes)

    def check_groups(self) -> None:
        """Refuse a network without the groups that the settings name. Raises InputError."""
        point = self.point
        if point.method_name == NO_METHOD:
            return
        if point.settings.pruning.keep:
            with checks.inside("settings.pruning"):
                channels_to_keep(self.graph, point.settings.pruning.keep)
        if point.groups != "all":
            with named("space.groups" if point.values.get("groups") else "settings.pruning.groups"):
                may_be_cut(self.graph, point.groups)

    @property
    def graph(self) -> ChannelGraph:
        """The coupled channels of its network."""
        return architecture.graph(self.architecture)

    def kept(self, store: Store) -> Kept | None:
        """The channels that it will keep; None where they depend on scores or on training that is not there yet.

        Raises:
            InputError: no network meets its budget.
        """
        point = self.point
        if point.method_name == SLIMMABLE:
            self.check_budget()
        if point.method_name in (CHANNEL_NAS, SLIMMABLE) or point.settings.pruning.steps > 1:
            return None
        if point.method is None:
            return {}
        files = store.get(SCORES, self.keys.scores) if store.has(SCORES, self.keys.scores) else None
        if files is None and (point.allocation != "uniform" or point.method.allocation == "joint"):
            return None
        # How many channels a uniform allocation keeps does not depend on the weights.
        ranks = (
            load_tensors(files["scores.safetensors"])
            if files
            else architecture.untrained_scores(self.architecture, point.method_name)
        )
        measured = store.get(SENSITIVITIES, self.keys.sensitivities) if point.needs_sensitivities else None
        if measured is None and point.needs_sensitivities:
            return None
        curves = from_json(json.loads(measured["sensitivities.json"])) if measured else None
        return point.allocate(self.graph, ranks, point.macs_ratio, sensitivities=curves)

    def check_budget(self) -> None:
        """Refuse a ratio of MACs that the structures of the method slimmable do not have. Raises InputError."""
        with named("space.macs_ratio"):
            self.point.width_space(self.graph, self.graph).check(self.point.values["macs_ratio"])

    @property
    def is_reached(self) -> bool:
        """Whether `check_budget` lets it pass."""
        try:
            self.check_budget()
        except InputError:
            return False
        return True

    def cost(self, kept: Kept | None) -> Metrics:
        """MACs, parameters and what follows from them with these channels, and before pruning."""
        report = pruning.cost_report(self.graph, kept)
        return report | costs(report["macs"], report["params"], self.point.precision)

    def pruned(self, kept: Kept) -> nn.Module:
        """Its network with these channels and random weights."""
        return pruning.apply_spec(self.architecture.build(), pruning.make_spec(self.graph, kept))

    def peak_activation_bytes(self, kept: Kept) -> int:
        """The most that the maps of one image take at once, in the bits that they are deployed in."""
        peak = traced(self.pruned(kept), self.description.input_shape).peak()
        return peak * BITS[self.point.precision].activation // 8

    def layers(self, kept: Kept) -> list[Layer]:
        """Of its network with these channels."""
        return layers(self.pruned(kept), self.description.input_shape, self.point.precision)

    def epoch_seconds(self, batch_size: int, session: Session) -> float:
        """Seconds of an epoch of its whole network on this machine, from a few steps."""
        threads = max(1, int(session.context.cpus))
        per_image = architecture.seconds_per_image(self.architecture, batch_size, session.device, threads)
        return per_image * self.description.num_images * self.point.settings.split.train


def resolved(points: Iterable[Mapping[str, Any]], settings: Settings, data_root: Path) -> list[PlannedTrial]:
    """The points of a study, each resolved."""
    return [PlannedTrial(PruningPoint(point, settings), data_root) for point in points]


def share(trials: Iterable[PlannedTrial], progress: Callable[[str, int, int], None]) -> dict[str, AnySet]:
    """Every image set of the study, decoded once."""
    sets: dict[str, AnySet] = {}
    for trial in trials:
        if trial.keys.data not in sets:
            sets[trial.keys.data] = images.load(trial.point, trial.data_root, partial(progress, trial.point.dataset))
    return sets


def preparations(trials: Iterable[PlannedTrial], store: Store) -> list[Preparation]:
    """The channel searches that the trials need, and their baselines, each with the scores that are asked of it.

    Methods that score again in each epoch of the fine-tuning ask for no scores beforehand.

    Raises:
        InputError: a network does not take the images as they are.
    """
    searches: dict[str, Preparation] = {}
    of_baseline: dict[str, list[PlannedTrial]] = defaultdict(list)
    chains: dict[str, list[PlannedTrial]] = defaultdict(list)
    for trial in trials:
        if trial.point.settings.input_size is None and trial.point.model not in models.MODELS:
            checks.check_images(trial.point, trial.description.input_shape[1])
        if trial.point.method_name == CHANNEL_NAS and trial.keys.search not in searches:
            searches[trial.keys.search] = _search(trial, store)
        if trial.point.method_name == SLIMMABLE:
            chains[f"{trial.keys.slimmable(0)} {trial.keys.slimmable(1)}"].append(trial)
        if not trial.point.is_untrained:
            of_baseline[trial.keys.baseline].append(trial)
    slimmable = [found for sharing in chains.values() if (found := _slimmable(sharing, store))]
    return [*(_baseline(sharing, store) for sharing in of_baseline.values()), *searches.values(), *slimmable]


def _search(trial: PlannedTrial, store: Store) -> Preparation:
    point, key = trial.point, trial.keys.search
    done = store.has(SEARCHES, key)
    return Preparation(
        key=f"search-{key}",
        title=f"channel search {point.model} on {point.dataset}, {point.target:g} of the MACs{_seed(point)}",
        point={**point.values, "search": True},
        done=done,
        epochs=point.settings.train.epochs,
        parts={"searches": int(not done)},
    )


def _slimmable(sharing: list[PlannedTrial], store: Store) -> Preparation | None:
    """The training that serves all budgets of some trials.

    None where all of them begin with the baseline, or no network meets their budgets.
    """
    reached = [trial for trial in sharing if trial.is_reached]
    trial = min(reached or sharing, key=lambda one: float(one.point.values["macs_ratio"]))
    point, settings = trial.point, trial.point.settings.slimmable
    stages = range(1, point.slimmable_stages + 1) if settings.form == "cascade" else range(1)
    missing = [stage for stage in stages if not store.has(SLIMMABLES, trial.keys.slimmable(stage))]
    done = not missing and (settings.form == "cascade" or store.has(STRUCTURES, trial.keys.structures))
    if not stages or not reached:
        return None
    return Preparation(
        key=f"slimmable-{trial.keys.slimmable(stages[-1])}",
        title=f"slimmable training {point.model} on {point.dataset}{_seed(point)}",
        point={**point.values, "slimmable": True},
        done=done,
        epochs=len(missing) * settings.epochs,
        parts={"searches": int(not done)},
    )


def _baseline(sharing: list[PlannedTrial], store: Store) -> Preparation:
    """The baseline of the trials that share one, with the scores that are missing."""
    first = sharing[0]
    point, key = first.point, first.keys.baseline
    methods = {t.point.method_name for t in sharing if t.point.method is not None and not t.point.is_soft}
    measured = {t.point.method_name for t in sharing if t.point.needs_sensitivities}
    of = {method: Keys(point.with_method(method), first.data_root) for method in methods}
    missing = [method for method in sorted(methods) if not store.has(SCORES, of[method].scores)]
    unmeasured = [m for m in sorted(measured) if not store.has(SENSITIVITIES, of[m].sensitivities)]
    done = store.has(BASELINES, key)
    changes = f", {' and '.join(point.method.train)}" if point.method and point.method.train else ""
    return Preparation(
        key=f"baseline-{key}",
        title=f"baseline {point.model} on {point.dataset}{_seed(point)}{changes}",
        point={**point.values, "methods": missing, **({"sensitivities": unmeasured} if unmeasured else {})},
        done=done and not missing and not unmeasured,
        epochs=None if done else point.train_recipe.epochs,
        parts={
            "baselines": int(not done),
            "scores": len(missing),
            **({"sensitivities": len(unmeasured)} if measured else {}),
        },
    )


def _seed(point: PruningPoint) -> str:
    return f", seed {point.values['seed']}" if "seed" in point.values else ""
