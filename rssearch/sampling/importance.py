"""How much each dimension of a space matters, and how a metric depends on it: Optuna's evaluators and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from rssearch.metrics import number
from rssearch.sampling.fanova import shares

__all__ = ["Trials", "importances", "slice_plot"]

_LOG_RANGE = 25  # positive numbers that span more than this factor are spread by their logarithms

Value = float | str


class Trials:
    """Finished trials as Optuna knows them.

    Args:
        points: of each trial, dimension -> value; one that it was not asked for is left out. A dimension is numeric
            where all its values are numbers; others count as texts.
        values: of each trial, its metrics in one order.
    """

    def __init__(self, points: Sequence[Mapping[str, Value]], values: Sequence[Sequence[float]]) -> None:
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:  # the directions matter to nothing that is asked here
            self.study = optuna.create_study(directions=["minimize"] * len(values[0]))
        finally:
            optuna.logging.set_verbosity(verbosity)
        distributions = {name: _distribution(points, name) for name in dict.fromkeys(n for p in points for n in p)}
        for point, found in zip(points, values, strict=True):
            own = {name: distributions[name] for name in point}
            plain = {
                name: str(value) if isinstance(own[name], optuna.distributions.CategoricalDistribution) else value
                for name, value in point.items()
            }
            self.study.add_trial(optuna.trial.create_trial(params=plain, distributions=own, values=list(found)))


def importances(trials: Trials, names: Sequence[str], metric: int) -> dict[str, float]:
    """The share of a metric's variance that each dimension explains, together 1: functional ANOVA by a random forest.

    Empty where the forest finds no difference, see `rssearch.sampling.fanova`.

    Args:
        trials: at least two with different values of the metric.
        names: dimensions that all trials were asked for, each with at least two values.
        metric: its place among the values.
    """
    found, ordered = trials.study.get_trials(deepcopy=False), sorted(names)  # the forest depends on the order, a little
    shared = shares([[t.params[name] for t in found] for name in ordered], [t.values[metric] for t in found])
    if shared is None:
        return {}
    known = dict(zip(ordered, shared, strict=True))
    return {name: known[name] for name in names}


def slice_plot(trials: Trials, name: str, metric: int, title: str, factor: float) -> dict[str, Any]:
    """The trials by one dimension and one metric, as the JSON of a Plotly figure.

    Args:
        trials: what is plotted.
        name: of the dimension, its axis' title.
        metric: its place among the values.
        title: of the metric's axis.
        factor: from the metric to the unit of its axis.
    """
    figure = optuna.visualization.plot_slice(
        trials.study, [name], target=lambda trial: trial.values[metric] * factor, target_name=title
    )
    found: dict[str, Any] = figure.to_plotly_json()
    found["layout"].pop("template", None)
    every = trials.study.get_trials(deepcopy=False)
    texts = {repr(value): value for trial in every if isinstance(value := trial.params.get(name), str)}
    if texts:  # Optuna shows them in quotes
        found["layout"]["xaxis"]["categoryarray"] = sorted(texts.values())
        for trace in found["data"]:
            trace["x"] = [texts[quoted] for quoted in trace["x"]]
    return found


def _distribution(points: Sequence[Mapping[str, Value]], name: str) -> optuna.distributions.BaseDistribution:
    values = [point[name] for point in points if name in point]
    numbers = [value for value in map(number, values) if value is not None]
    if len(numbers) < len(values):
        return optuna.distributions.CategoricalDistribution(sorted({str(value) for value in values}))
    low, high = min(numbers), max(numbers)
    return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low > _LOG_RANGE)
