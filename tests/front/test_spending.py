"""rssearch.front.spending: what trials took, with what they share counted once."""

from __future__ import annotations

from typing import Any

import pytest

from rssearch.front import seeds
from rssearch.front.spending import running, spent
from rssearch.front.trials import fronts
from rssearch.report.spending import notes

BASE = {"baseline-x": 1000}


def row(key: str, compute: int | None = 10, shared: dict[str, int] | None = None, **more: Any) -> dict[str, Any]:
    own = {} if compute is None else {"compute": compute, "shared_compute": BASE if shared is None else shared}
    return {"key": key, "status": "finished", "acc": 0.5, "macs": 5, **own, **more}


def test_what_is_shared_counts_once():
    rows = [row("a"), row("b", 20, BASE | {"scores-y": 7}), row("c", 5, {}), row("d", 1, {"baseline-z": 500})]
    found = spent(rows)
    assert found.macs == 10 + 20 + 5 + 1 + 1000 + 500 + 7
    assert found.parts == {"trials": 36, "baseline": 1500, "scores": 7}
    assert found.counts == {"trials": 4, "baseline": 2, "scores": 1}
    assert running(rows) == [1010, 1037, 1042, 1543]


def test_what_is_not_known_is_not_zero():
    assert spent([]).macs is None
    old = [row("a"), row("b", None)]
    assert (spent(old).macs, spent(old).unknown) == (None, 1)
    assert running(old) is None
    failed = spent([row("a"), row("b", None, status="failed")])
    assert (failed.macs, failed.failed) == (1010, 1)
    assert spent([row("a"), row("b", None, status="infeasible")]).macs == 1010  # refused before it was trained
    assert spent([row("a"), row("b", None, status="stopped")]).macs is None
    assert spent([row("a"), row("b", 3, status="stopped")]).macs == 1013


def test_means_spend_what_their_trials_spent():
    trials = [
        row(f"{method}{seed}", 10 * (1 + seed), {f"baseline-{seed}": 100}, seed=seed, method=method)
        for method in ("l1", "l2")
        for seed in (0, 1)
    ]
    objectives: Any = {"acc": "max", "macs": "min"}
    (single,) = fronts(trials, objectives)
    (mean,) = seeds.shown_fronts(trials, objectives, None, ["method", "seed"])
    assert single.spent.macs == 2 * (10 + 20) + 2 * 100
    assert mean.spent.macs == single.spent.macs
    assert mean.spent.counts == single.spent.counts == {"trials": 4, "baseline": 2}


def test_training_from_scratch_is_compared():
    rows = [row("a", scratch_compute=300), row("b", scratch_compute=100), row("c", status="stopped")]
    assert spent(rows).from_scratch == 400
    assert spent([*rows, row("d")]).from_scratch is None
    assert spent([row("a", scratch_compute=300, seeds=3)]).from_scratch == 900
    assert spent([row("a", None, scratch_compute=300)]).from_scratch is None


@pytest.mark.parametrize(("scratch", "said"), [(400, True), (2000, False)])
def test_it_is_said_where_it_is_less(scratch: int, said: bool):
    objectives: Any = {"acc": "max", "macs": "min"}
    (note,) = notes(fronts([row("a", scratch_compute=scratch)], objectives))
    assert note.startswith("Compute: 1.01 k MACs of 1 baseline, 1 trial, forward and backward")
    assert note.endswith("from scratch (method scratch) would take less: 400 MACs") == said
