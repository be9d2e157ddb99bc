"""rssearch.sampling.fanova: the importances of Optuna's evaluator, sooner."""

from __future__ import annotations

import random

import optuna
import pytest

from rssearch.sampling.importance import Trials, importances


def drawn(count: int, seed: int) -> Trials:
    rng = random.Random(seed)
    points, values = [], []
    for _ in range(count):
        point = {
            "rate": rng.random(),
            "lr": 10 ** rng.uniform(-4, 0),
            "width": float(rng.choice([8, 16, 32])),
            "method": rng.choice(["a", "b", "c"]),
        }
        points.append(point)
        noise = rng.gauss(0, 0.05)
        values.append([point["rate"] * (point["method"] == "a") + noise, point["width"] * point["rate"]])
    return Trials(points, values)


@pytest.mark.parametrize("metric", [0, 1])
@pytest.mark.parametrize("count", [8, 60])
def test_they_are_those_of_optuna(count: int, metric: int) -> None:
    trials, names = drawn(count, count), ["rate", "lr", "width", "method"]
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    expected = optuna.importance.get_param_importances(
        trials.study, evaluator=evaluator, params=names, target=lambda trial: trial.values[metric]
    )
    found = importances(trials, names, metric)
    assert list(found) == names
    assert found == pytest.approx(expected, abs=1e-9)
    assert sum(found.values()) == pytest.approx(1)


def test_no_difference_has_no_importances() -> None:
    assert importances(Trials([{"rate": 0.1}, {"rate": 0.9}], [[2.0], [2.0]]), ["rate"], 0) == {}
