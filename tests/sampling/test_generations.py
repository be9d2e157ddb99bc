"""rssearch.sampling.generations: the proposals of Optuna's genetic samplers, without reading all trials for each."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import NSGAIIISampler, NSGAIISampler
from optuna.trial import TrialState

from rssearch.sampling.generations import NSGA2, NSGA3


def proposed(make: Callable[..., Any], limited: bool) -> list[dict[str, Any]]:
    """What a sampler proposes to several workers; some trials fail, some are of an earlier session."""
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make(seed=3, population_size=8))
    rng, running, points = random.Random(0), [], []
    space = {
        "rate": optuna.distributions.FloatDistribution(0, 1),
        "width": optuna.distributions.IntDistribution(1, 64),
        "method": optuna.distributions.CategoricalDistribution(["a", "b", "c"]),
    }
    for rate in (0.1, 0.2, 0.3):
        values = [rate, 1 - rate]
        params = {"rate": rate, "width": 3, "method": "a"}
        study.add_trial(optuna.create_trial(params=params, distributions=space, values=values))  # type: ignore[arg-type]
    for _ in range(120):
        running.append(study.ask(space))
        points.append(running[-1].params)
        if len(running) == 5:
            trial = running.pop(rng.randrange(5))
            if rng.random() < 0.1:
                study.tell(trial, state=TrialState.FAIL)
                continue
            if limited:
                trial.set_constraint("width", trial.params["width"] - 40)
            study.tell(trial, [trial.params["rate"] * (trial.params["method"] == "b"), trial.params["width"]])
    return points


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), [(NSGA2, NSGAIISampler), (NSGA3, NSGAIIISampler)])
def test_they_propose_what_optuna_does(ours: Any, theirs: Any, limited: bool) -> None:
    assert proposed(ours, limited) == proposed(theirs, limited)
