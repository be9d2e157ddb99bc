"""What a pruning study refuses before anything starts, with the key that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from rssearch import models, pruning
from rssearch.config.imports import is_import
from rssearch.config.settings import Patches, Settings
from rssearch.cost.precision import FP32, check_precision
from rssearch.data.registry import check_input_size
from rssearch.errors import InputError, unknown
from rssearch.models import attention
from rssearch.pruning import METHODS
from rssearch.pruning.allocate import ALLOCATIONS
from rssearch.pruning.scope import SCOPES, check_scope
from rssearch.train import balance
from rssearch.trials import architecture
from rssearch.trials.point import CHANNEL_NAS, NO_METHOD, OTHERS, SLIMMABLE, PruningPoint

AMOUNTS = ("rate", "rates", "macs_ratio")
DIMENSIONS = ("dataset", "model", "method", *AMOUNTS, "seed", "allocation", "groups", "round_to", "bands", "precision")


@contextmanager
def named(place: str) -> Iterator[None]:
    """Put the key that is wrong before the message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


@contextmanager
def inside(section: str) -> Iterator[None]:
    """Put the section before the key that the message begins with."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{section}.{error}") from None


def check_pruning(values: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a point of a pruning study that cannot be run. Raises InputError."""
    _check_dimensions(values)
    point = PruningPoint(values, settings)
    check_task(point)
    check_images(point)
    _check_method(point)
    _check_numbers(values)
    _check_steps(point)
    _check_controls(point)
    with named("space.method"):
        _check_network(point)
        _ = point.finetune_recipe  # refuses what the study's recipe does not allow
    if point.method_name == CHANNEL_NAS:
        _check_channel_search(point)
    if point.method_name == SLIMMABLE:
        _check_slimmable(point)
    _check_allocation(point)
    _check_groups(point)


def check_task(point: PruningPoint) -> None:
    """Refuse a network, its options, or settings that do not go with the dataset. Raises InputError."""
    dataset, model, settings = point.dataset, point.model, point.settings
    with named("space.dataset"):
        task = point.task
    with named("space.model"):
        _check_options(model, json.dumps(point.options))
        # A network for one label of an image is one for several: what its logits mean is a matter of the loss.
        if (own := models.task_of(model)) != ("classification" if task == "multilabel" else task):
            other = "classification" if own == "segmentation" else "segmentation"
            fit = ", ".join(name for name in models.list_models() if models.task_of(name) == other)
            raise InputError(f"{model!r} is a network for {own}, but {dataset!r} needs one for {task}: {fit}")
    with named("settings.model.networks"):
        for name, options in settings.model.model_dump(mode="json")["networks"].items():
            _check_options(name, json.dumps(options))
    for section, recipe in (("train", settings.train), ("finetune", settings.finetune)):
        with inside(f"settings.{section}"):
            balance.check_task(recipe, task)
    if task != "segmentation":
        if settings.patches != Patches():
            raise InputError(f"settings.patches: {dataset!r} is a dataset for {task}, which is not cut into patches")
        return
    try:
        check_input_size(dataset, settings.input_size, "segmentation")
    except InputError as error:
        raise InputError(f"settings.{error}") from None
    if settings.augment.crop >= settings.patches.size:
        raise InputError(
            f"settings.augment.crop: {settings.augment.crop} must be less than settings.patches.size, "
            f"{settings.patches.size}"
        )


def check_images(point: PruningPoint, size: int | None = None) -> None:
    """Refuse a network that does not take the study's images, or gives no logits for them. Raises InputError.

    The package's own networks take all.

    Args:
        point: resolved.
        size: height and width of images that the settings do not scale; None: they are not known yet.
    """
    settings = point.settings
    if point.model in models.MODELS:
        return
    if models.task_of(point.model) == "segmentation":
        place, size = f" with settings.patches.size: {settings.patches.size}", settings.patches.size
    elif settings.input_size is not None:
        place, size = f" with settings.input_size: {settings.input_size}", settings.input_size
    else:
        place = f" on the images of {point.dataset}, for which settings.input_size is null"
    bands = len(settings.bands or settings.band_names or "RGB")  # of rasters whose bands are not named: unknown yet
    if size is not None:
        with named(f"space.model,{place}"):
            _check_logits(point.model, point.options_text, size, bands)


@lru_cache(maxsize=256)
def _check_logits(model: str, options: str, size: int, bands: int) -> None:
    """`rssearch.models.check_logits`, once for the many points of a study."""
    models.check_logits(model, (bands, size, size), json.loads(options))


@lru_cache(maxsize=256)
def _check_options(model: str, options: str) -> None:
    """`rssearch.models.check_options`, once for the many points of a study: it may build the network."""
    models.check_options(model, json.loads(options))


def _check_dimensions(values: Mapping[str, Any]) -> None:
    for name in values:
        if "." not in name and name not in DIMENSIONS:
            raise InputError(f"space: {unknown('dimension', name, DIMENSIONS)}")
    for name in ("dataset", "model", "method"):
        if not isinstance(values.get(name), str):
            raise InputError(f"space.{name}: is required, as a list of names")


def _check_method(point: PruningPoint) -> None:
    known = (*OTHERS, *METHODS)
    with named("space.method"):
        if point.method_name not in known and not is_import(point.method_name):
            raise unknown("method", point.method_name, [*known, "MODULE:NAME"])
        _ = point.method  # imports a user-defined one


def _check_numbers(values: Mapping[str, Any]) -> None:
    amounts = [name for name in AMOUNTS if values.get(name) is not None]
    if len(amounts) != 1:
        raise InputError(
            f"space: give one of {', '.join(AMOUNTS)}" + (f", not {' and '.join(amounts)}" if amounts else "")
        )
    _check_number(values, "rate", "in [0, 1)", lambda v: 0 <= v < 1)
    _check_number(values, "macs_ratio", "in (0, 1]", lambda v: 0 < v <= 1)
    for name, low in (("seed", 0), ("round_to", 1)):
        value = values.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"space.{name}: {value!r} is not a whole number of at least {low}")
    if values.get("pruning.round_to") == "auto":
        raise InputError("space.pruning.round_to: auto is found once for a study; give it as settings.pruning.round_to")
    if values.get("allocation", "uniform") not in ALLOCATIONS:
        raise InputError(f"space.allocation: {unknown('allocation', values['allocation'], ALLOCATIONS)}")
    if values.get("groups", "all") not in SCOPES:
        raise InputError(f"space.groups: {unknown('groups', values['groups'], SCOPES)}")
    with named("space.precision"):
        check_precision(values.get("precision", FP32))


def _check_number(values: Mapping[str, Any], name: str, allowed: str, fits: Callable[[float], bool]) -> None:
    value = values.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
        raise InputError(f"space.{name}: {value!r} is not allowed; it must be a number {allowed}")


def _check_steps(point: PruningPoint) -> None:
    settings, method = point.settings, point.method_name
    steps, epochs = settings.pruning.steps, settings.finetune.epochs
    with named("settings.pruning.options"):
        for name, options in settings.pruning.options.items():
            pruning.check_options(name, options)
    with named("settings.pruning.steps"):
        if steps > 1 and point.macs_ratio is None:
            raise InputError("several steps need macs_ratio, as a rate changes its meaning on the way")
        if steps > max(epochs, 1):
            raise InputError(f"{steps} steps cannot share {epochs} epochs of fine-tuning")
        if steps > 1 and method in (CHANNEL_NAS, SLIMMABLE):
            raise InputError(f"method {method!r} derives its network in one step")
        if steps > 1 and point.is_soft:
            raise InputError(f"method {method!r} prunes again in each epoch, not in steps")
        if steps > 1 and (point.retrains or point.is_untrained):
            raise InputError(f"method {method!r} trains once, not in steps")


def _check_controls(point: PruningPoint) -> None:
    """Refuse what a method cannot do that trains by the recipe of baselines, or has none."""
    method, recipe = point.method_name, point.finetune_recipe
    if point.retrains and recipe.epochs < 1:
        raise InputError(
            f"settings.train.epochs: method {method!r} trains by settings.train, so there must be one epoch; where "
            "given weights are not trained, it needs a study of its own"
        )
    if not point.is_untrained:
        return
    if recipe.distill > 0:
        section = "train" if point.retrains else "finetune"
        raise InputError(f"settings.{section}.distill: method {method!r} has no baseline to distil from")
    if point.asked_allocation not in {None, point.method.allocation if point.method else None}:
        raise InputError(
            f"allocation: {point.asked_allocation!r} would follow the scores of weights that were never trained; "
            f"method {method!r} takes its own"
        )


def _check_network(point: PruningPoint) -> None:
    """Refuse a method for a network that has not what it trains or reads."""
    if point.train_recipe.attention:
        attention.check(architecture.without_numbers(point.model, point.options_text))
    if point.method is not None and point.method.needs_norms:
        layers = architecture.without_numbers(point.model, point.options_text).modules()
        if not any(isinstance(layer, _BatchNorm) for layer in layers):
            raise InputError(
                f"{point.method.name!r} reads the scales of batch normalisation, and {point.model!r} has none"
            )


def _check_channel_search(point: PruningPoint) -> None:
    if point.macs_ratio is None:
        raise InputError("space: method 'channel_nas' needs macs_ratio")
    if point.values.get("allocation"):
        raise InputError(
            "space.allocation: method 'channel_nas' has one threshold for all layers, and no other allocation"
        )
    with named("settings.train.epochs"):
        if point.settings.train.epochs < 1:
            raise InputError("method 'channel_nas' searches in the epochs of train, so there must be one")
        if point.settings.train.attention:
            raise InputError("method 'channel_nas' does not train with attention: switch settings.train.attention off")


def _check_slimmable(point: PruningPoint) -> None:
    if point.macs_ratio is None:
        raise InputError("space: method 'slimmable' needs macs_ratio: one training serves budgets of MACs, not rates")
    smallest = point.settings.slimmable.budgets[-1]
    if point.macs_ratio < smallest:
        raise InputError(
            f"space.macs_ratio: {point.macs_ratio:g} is below the last of settings.slimmable.budgets, {smallest:g}, "
            "the smallest network that there will be"
        )
    if point.values.get("allocation"):
        raise InputError("space.allocation: method 'slimmable' searches the widths itself, and has no other allocation")


def _check_allocation(point: PruningPoint) -> None:
    method = point.method
    if method is None:
        return
    with named("allocation"):
        if point.asked_allocation == "joint" != method.allocation:
            raise InputError(f"'joint' needs the ranks of several criteria; method {method.name!r} has one")
        if point.needs_sensitivities:
            pruning.check_sensitivity(method)
            if point.is_soft:
                raise InputError(f"method {method.name!r} prunes again in each epoch, too often for 'sensitivity'")
            if point.macs_ratio is None:
                raise InputError("'sensitivity' needs macs_ratio: a rate has no meaning for it")
    if point.values.get("rates") is not None:
        with named("space.rates"):
            if point.asked_allocation not in {None, "uniform"}:
                raise InputError(f"rates for each layer leave nothing to an allocation {point.asked_allocation!r}")
            _ = point.rates  # refuses what cannot be read


def _check_groups(point: PruningPoint) -> None:
    """Refuse `groups: inner` where it would say nothing, or would not be kept to."""
    if point.groups == "all" or point.method_name == NO_METHOD:
        return
    with named("space.groups" if point.values.get("groups") else "settings.pruning.groups"):
        if point.method_name == CHANNEL_NAS:
            raise InputError("'inner': method 'channel_nas' searches all groups; take all")
        check_scope(point.groups, None, point.values.get("rates"))
