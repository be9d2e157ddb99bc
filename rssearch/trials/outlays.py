"""What the training for a front takes, known from the YAML alone, so that a plan can name the cheaper way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rssearch.config.settings import Settings
from rssearch.cost.compute import FORWARD, TRAINING
from rssearch.trials.point import CHANNEL_NAS, NO_METHOD, SLIMMABLE, PruningPoint

SCRATCH = "scratch"


def outlay(points: Iterable[Mapping[str, Any]], settings: Settings) -> dict[str, float]:
    """Epochs of training for one front of each method, in those of the whole network: cheapest first.

    A network of a quarter of the MACs counts a quarter of each of its epochs, what several budgets share counts once,
    and evaluations count nothing. ``scratch`` is there in any case but where networks begin with given weights: the
    same sizes trained from their own initialisation by the recipe of the baselines.

    Args:
        points: of a study; those without a ``macs_ratio`` are passed over, as their sizes follow from scores.
        settings: of the study.

    Returns:
        The mean over the fronts of a method, of which there is one for each dataset, network, seed, ...
    """
    fronts: dict[str, dict[str, list[PruningPoint]]] = defaultdict(lambda: defaultdict(list))
    for values in points:
        point = PruningPoint(values, settings)
        if "macs_ratio" in values and point.method_name != NO_METHOD:
            rest = {name: value for name, value in values.items() if name != "macs_ratio"}
            fronts[point.method_name][repr(sorted(rest.items()))].append(point)
    found = {method: _mean([_of_front(front) for front in of.values()]) for method, of in fronts.items()}
    every = [front for of in fronts.values() for front in of.values()]
    if every and settings.train.epochs and not any(point.weights for front in every for point in front):
        found.setdefault(SCRATCH, _mean([_ratios(front) * settings.train.epochs for front in every]))
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _of_front(front: Sequence[PruningPoint]) -> float:
    first = front[0]
    own = sum(float(point.values["macs_ratio"]) * point.finetune_recipe.epochs for point in front)
    return own + _shared(front) + (0 if first.is_untrained else first.train_recipe.epochs)


def _shared(front: Sequence[PruningPoint]) -> float:
    """The search or the training that serves several budgets."""
    first, settings = front[0], front[0].settings.slimmable
    if first.method_name == CHANNEL_NAS:  # a step of the scores for each step of the weights
        return 2 * first.settings.train.epochs * len({point.target for point in front})
    if first.method_name != SLIMMABLE:
        return 0.0
    if settings.form == "cascade":
        stages = max(point.slimmable_stages for point in front)
        return sum(settings.budgets[:stages]) * settings.epochs
    smallest = settings.budgets[-1]
    taught = FORWARD / TRAINING if settings.distillation > 0 else 0.0
    return settings.epochs * (smallest + settings.structures * (1 + smallest) / 2 + taught)


def _ratios(front: Sequence[PruningPoint]) -> float:
    return sum(float(point.values["macs_ratio"]) for point in front)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
