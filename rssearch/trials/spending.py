"""What the parts of a trial take, as `rssearch.cost.compute` counts it: the trial itself, and what it shares.

It follows from settings and images alone, so that a part which lies in the store counts what it took when it was made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from rssearch.config.settings import Recipe
from rssearch.cost import compute
from rssearch.cost.compute import TRAINING, Work
from rssearch.data import loader
from rssearch.nas.search import halves
from rssearch.pruning.sensitivity import measured_widths
from rssearch.trials import architecture, slimmables
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.point import CHANNEL_NAS, SLIMMABLE
from rssearch.trials.pruning_trial import PruningTrial

COMPUTE, SHARED = "compute", "shared_compute"  # of a trial alone; of what it shares with others, by its key
FROM_SCRATCH = "scratch_compute"


def training(
    trial: NetworkTrial, macs: int, recipe: Recipe, *, taught: bool = False, epochs: int | None = None
) -> list[Work]:
    """The work of training a network by a recipe, or of its first epochs, evaluations included.

    Args:
        trial: has the images, and the network that may be the teacher.
        macs: of the network that is trained.
        recipe: how.
        taught: whether it may learn from the unpruned network, by `Recipe.distill`.
        epochs: how many of the recipe's; None for all, with what follows them.
    """
    images, ended = _trained(trial, recipe.batch_size), epochs is None
    work = compute.training(
        macs,
        epochs=recipe.epochs if epochs is None else epochs,
        images=images,
        validated=len(trial.images.split("val")),
        teacher_macs=trial.graph.macs() if taught and recipe.distill > 0 else 0,
        recalibrated=recalibrated(trial, recipe),
    )
    if recipe.attention and ended:  # its mean is taken over all images of the training split
        work.append(Work(macs, len(trial.images.split("train"))))
    return work


def recalibrated(trial: NetworkTrial, recipe: Recipe) -> int:
    """The images that the statistics of batch normalisation are made of."""
    layers = architecture.without_numbers(trial.point.model, trial.point.options_text).modules()
    if not any(isinstance(layer, _BatchNorm) and layer.track_running_stats for layer in layers):
        return 0
    return min(recipe.recalibrate_batches * recipe.batch_size, _trained(trial, recipe.batch_size))


def scoring(trial: NetworkTrial, macs: int, *, recorded: bool = False) -> list[Work]:
    """The work of scoring a network once by a trial's method.

    Where the elasticity of its training was `recorded`, methods that read it see no image.
    """
    method, settings = trial.point.method, trial.settings.pruning
    if method is None or not method.needs_data or (recorded and method.elasticity):
        return []
    most = settings.score_batches * settings.score_batch_size
    return [Work(macs, min(most, _trained(trial, settings.score_batch_size)), method.score_passes)]


def baseline(trial: NetworkTrial) -> list[Work]:
    """The work of training a trial's baseline, and of validating it."""
    macs = trial.graph.macs()
    return [*training(trial, macs, trial.point.train_recipe), Work(macs, len(trial.images.split("val")))]


def search(trial: NetworkTrial) -> list[Work]:
    """The work of a trial's channel search: steps of the weights and steps of the scores, each on their images.

    Gates multiply maps of full width, so that each image takes what the whole network takes.
    """
    recipe, settings, macs = trial.settings.train, trial.settings.nas, trial.graph.macs()
    for_weights, for_scores = halves(trial.images.split("train"), settings.score_share, trial.point.seed)
    steps = loader.rows(len(for_weights), recipe.batch_size, train=True)
    batches = loader.rows(len(for_scores), recipe.batch_size, train=True)
    scored = sum(batches[step % len(batches)].stop - batches[step % len(batches)].start for step in range(len(steps)))
    warm = math.ceil(settings.warmup * recipe.epochs) if recipe.epochs > 1 else 0
    return [
        Work(macs, recipe.epochs * _trained(trial, recipe.batch_size, len(for_weights)), TRAINING),
        Work(macs, (recipe.epochs - warm) * scored, TRAINING),
    ]


def sensitivities(trial: NetworkTrial, kept: Mapping[str, Sequence[int]] | None = None) -> list[Work]:
    """The work of cutting each group alone, and recalibrating and running what is left.

    It is that of a trial's baseline, or of the network that an earlier step has left these channels of.
    """
    settings, graph = trial.settings.pruning, trial.graph
    parts, most = halves(trial.images.split("train"), 0.5, trial.point.seed), settings.score_batches
    seen = sum(
        min(most * settings.score_batch_size, _trained(trial, settings.score_batch_size, len(part))) for part in parts
    )
    left = dict(kept or {})
    return [
        Work(graph.macs({**left, name: range(width)}), seen)
        for name, group in graph.groups.items()
        for width in measured_widths(len(left[name]) if name in left else group.width)
    ] + [Work(graph.macs(left), seen)]


def slimmable(trial: NetworkTrial) -> dict[str, list[Work]]:
    """The work of the training that serves all budgets, by its key: of each stage of a cascade, or of a sandwich.

    Networks count with the MACs that their budgets allow, random structures with the mean of theirs.
    """
    settings, whole, keys = trial.settings.slimmable, trial.graph.macs(), trial.keys
    recipe, batch_size = slimmables.recipe_of(trial), trial.settings.train.batch_size
    judged = sum(_seen(trial)) * settings.population * (1 + settings.generations)
    if settings.form == "cascade":
        ratios = settings.budgets[: trial.point.slimmable_stages]
        return {
            keys.slimmable(number): [
                Work(round(ratio * whole), judged),
                *training(trial, round(ratio * whole), recipe, taught=True),
            ]
            for number, ratio in enumerate(ratios, 1)
        }
    smallest, several = settings.budgets[-1], settings.structures
    part, _ = slimmables.held_out(trial)
    images = recipe.epochs * _trained(trial, batch_size, len(part))
    mean = (1 + smallest) / 2
    validated = recipe.epochs * len(trial.images.split("val"))
    return {
        keys.slimmable(0): [
            Work(round((smallest + several * mean) * whole), images, TRAINING),
            *([Work(whole, images)] if recipe.distill > 0 else []),
            Work(whole, validated),
            Work(round(mean * whole), judged),
        ]
    }


def derivation(trial: NetworkTrial) -> list[Work]:
    """The work of finding a slimmable trial's own structure, where it does not begin at its budget.

    What is cut out of a sandwich is recalibrated in any case.
    """
    settings, macs = trial.settings.slimmable, round(trial.point.values["macs_ratio"] * trial.graph.macs())
    cascade, found = settings.form == "cascade", slimmables.begins_at_budget(trial)
    if cascade and found:
        return []
    calibrated, judged = _seen(trial)
    structures = settings.population * (1 + settings.generations) if cascade else slimmables.FINALISTS
    searched = 0 if found else structures * (calibrated + judged)
    return [Work(macs, searched + (0 if cascade else calibrated))]


def _seen(trial: NetworkTrial) -> tuple[int, int]:
    """The images that go through each structure: to recalibrate its batch normalisation, and to judge it."""
    most, batch_size = trial.settings.slimmable.images, trial.settings.train.batch_size
    most = -(-most // batch_size) * batch_size
    calibrated, judged = (min(most, _trained(trial, batch_size, len(part))) for part in slimmables.held_out(trial))
    return calibrated, judged


def shared(trial: PruningTrial) -> dict[str, int]:
    """What a trial shares with others, each by its key: its baseline, its scores, its search or slimmable training."""
    point, keys = trial.point, trial.keys
    if point.is_untrained:
        return {}
    found = {f"baseline-{keys.baseline}": compute.compute(baseline(trial))}
    if point.method_name == CHANNEL_NAS:
        found[f"search-{keys.search}"] = compute.compute(search(trial))
    elif point.method_name == SLIMMABLE:
        found |= {f"slimmable-{key}": compute.compute(work) for key, work in slimmable(trial).items()}
    elif point.method is not None and not point.is_soft:
        recorded = point.train_recipe.epochs > 0
        found[f"scores-{keys.scores}"] = compute.compute(scoring(trial, trial.graph.macs(), recorded=recorded))
    if point.needs_sensitivities:
        found[f"sensitivities-{keys.sensitivities}"] = compute.compute(sensitivities(trial))
    return found


def from_scratch(trial: PruningTrial, macs: int) -> dict[str, int]:
    """What training a network of these MACs from its own initialisation would take, by the recipe of its baseline.

    Nothing where the baseline's own training is not known to be one from scratch, or the trial is one.
    """
    recipe = trial.settings.train
    if trial.point.is_untrained or trial.point.weights or not recipe.epochs:
        return {}
    return {FROM_SCRATCH: compute.compute(training(trial, macs, recipe))}


def reported(own: list[Work] | None, trial: PruningTrial) -> dict[str, Any]:
    """What a trial reports: its own compute, and the shared. Where its own is not known, nothing."""
    return {} if own is None else {COMPUTE: compute.compute(own), SHARED: shared(trial)}


def with_shared(metrics: Mapping[str, Any], key: str, work: list[Work] | None) -> dict[str, Any]:
    """What a trial reports whose fine-tuning is shared: under its key, and no more as its own."""
    if work is None or COMPUTE not in metrics:
        return {}
    macs = compute.compute(work)
    return {COMPUTE: metrics[COMPUTE] - macs, SHARED: metrics[SHARED] | {key: macs}}


def added(metrics: Mapping[str, Any], work: list[Work]) -> dict[str, Any]:
    """What a trial reports with some more work of its own."""
    return {COMPUTE: metrics[COMPUTE] + compute.compute(work)} if work and COMPUTE in metrics else {}


def _trained(trial: NetworkTrial, batch_size: int, images: int | None = None) -> int:
    """The images of an epoch: all, but for a last one that would be a batch alone."""
    rows = loader.rows(len(trial.images.split("train")) if images is None else images, batch_size, train=True)
    return rows[-1].stop if rows else 0
