"""The method channel_nas in a pruning study, and as a trial of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import override_settings
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.trial.session import Context, Session
from rssearch.trials import channel_nas, prune, searches
from rssearch.trials.pruning_trial import PruningTrial
from tests.trials.test_prune import POINT

HALF = {name: value for name, value in POINT.items() if name not in {"rate", "method"}} | {"macs_ratio": 0.5}
NAMED = HALF | {"method": "channel_nas"}


def open_session(folder: Path, root: Path, local: Settings, point: dict[str, Any], key: str, **more: Any) -> Session:
    return Session(Context("s", str(folder), str(root), local), key, point, **more)


def test_a_trial_meets_its_budget_and_shares_its_search(storage: Path, data_root: Path, settings: Settings) -> None:
    reports: list[dict[str, Any]] = []
    run_in = open_session(storage, data_root, settings, NAMED, "nas", on_report=reports.append)
    assert channel_nas.unpruned(HALF, run_in) == prune.unpruned(POINT, run_in)
    result = prune.run(NAMED, run_in)
    assert abs(result["macs_ratio"] / 0.5 - 1) <= 0.01
    assert [report["epoch"] for report in reports] == [1, 2]  # of the fine-tuning alone
    measured = prune.measure(NAMED, run_in)
    assert 0 <= measured["test_accuracy"] <= 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searches.nas, "Run", lambda *_: pytest.fail("searched again"))
        _, gates, history = searches.searched(PruningTrial.open(NAMED, run_in))
    assert len(history) == settings.train.epochs
    assert gates.temperature == history[-1]["temperature"]


def test_one_search_serves_several_ratios(settings: Settings, data_root: Path, tmp_path: Path) -> None:
    points = [NAMED | {"macs_ratio": ratio} for ratio in (0.7, 0.5, 0.3)]
    store = Store(str(tmp_path))
    each = prune.preparations(points, settings, data_root, store)
    assert [dict(p.parts) for p in each] == [{"baselines": 1, "scores": 0}, *[{"searches": 1}] * 3]
    assert each[1].title == "channel search resnet20 on folder:scenes, 0.7 of the MACs, seed 0"
    led = override_settings(settings, {"nas.target": 0.5})
    (baseline, search) = prune.preparations(points, led, data_root, store)
    assert dict(search.parts) == {"searches": 1}
    run_in = open_session(tmp_path, data_root, led, dict(search.point), search.key)
    assert prune.prepare(dict(search.point), run_in)["epoch"] == settings.train.epochs
    assert prune.preparations(points, led, data_root, store)[1].done
    assert not baseline.done
    ratios = [searches.derived(PruningTrial.open(point, run_in)).report["macs_ratio"] for point in points]
    assert ratios == pytest.approx([0.7, 0.5, 0.3], rel=0.01)


def test_an_interrupted_search_ends_as_an_uninterrupted_one(
    tmp_path: Path, storage: Path, data_root: Path, settings: Settings
) -> None:
    whole = prune.run(NAMED, open_session(storage, data_root, settings, NAMED, "whole"))
    (_, needed) = prune.preparations([NAMED], settings, data_root, Store(str(tmp_path)))
    broken = open_session(tmp_path, data_root, settings, dict(needed.point), needed.key)

    def stop(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    broken = open_session(tmp_path, data_root, settings, dict(needed.point), needed.key, on_report=stop)
    with pytest.raises(KeyboardInterrupt):
        prune.prepare(dict(needed.point), broken)
    assert broken.load_checkpoint() is not None
    resumed = prune.run(NAMED, open_session(tmp_path, data_root, settings, NAMED, "resumed"))
    assert (resumed["val_loss"], resumed["macs"]) == (whole["val_loss"], whole["macs"])
    assert broken.load_checkpoint() is None


def test_a_trial_of_its_own_is_the_method(storage: Path, data_root: Path, settings: Settings) -> None:
    channel_nas.check(HALF, settings)
    run_in = open_session(storage, data_root, settings, HALF, "own")
    result = channel_nas.run(HALF, run_in)
    named = prune.run(NAMED, open_session(storage, data_root, settings, NAMED, "named"))
    assert result["method"] == "channel_nas"
    assert (result["val_loss"], result["macs"]) == (named["val_loss"], named["macs"])
    assert channel_nas.identity(HALF, settings, data_root) == prune.identity(NAMED, settings, data_root)
    assert channel_nas.cost(HALF, run_in) == {}
    found = channel_nas.preparations([HALF], settings, data_root, run_in.store)
    assert [p.done for p in found] == [True, True]
    assert "test_accuracy" in channel_nas.measure(HALF, run_in)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs_ratio": None, "rate": 0.5}, "method 'channel_nas' needs macs_ratio"),
        ({"allocation": "uniform"}, "space.allocation: method 'channel_nas' has one threshold"),
        ({"train.epochs": 0}, "settings.train.epochs: method 'channel_nas' searches in the epochs of train"),
        ({"pruning.steps": 2}, "settings.pruning.steps: method 'channel_nas' derives its network in one step"),
        ({"nas.score_share": 1.0}, "score_share must be above 0 and below 1"),
        ({"nas.strenght": 1.0}, "Did you mean 'strength'?"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        channel_nas.check(HALF | change, settings)
    assert message in str(caught.value)
