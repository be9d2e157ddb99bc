"""The method slimmable in a pruning study: one training for all budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import override_settings
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.trial.session import Context, Session
from rssearch.trials import prune, slimmables
from rssearch.trials.pruning_trial import PruningTrial
from tests.trials.test_prune import POINT

HALF = {name: value for name, value in POINT.items() if name not in {"rate", "method"}} | {"macs_ratio": 0.5}
NAMED = HALF | {"method": "slimmable"}
SMALL = {"slimmable.epochs": 2, "slimmable.population": 4, "slimmable.generations": 1, "slimmable.images": 16}


@pytest.fixture(scope="module")
def small(settings: Settings) -> Settings:
    return override_settings(settings, {**SMALL, "slimmable.held_out": 0.25})


def open_session(folder: Path, root: Path, local: Settings, point: dict[str, Any], key: str, **more: Any) -> Session:
    return Session(Context("s", str(folder), str(root), local), key, point, **more)


def test_one_training_serves_all_budgets(small: Settings, data_root: Path, tmp_path: Path) -> None:
    points = [NAMED | {"macs_ratio": ratio} for ratio in (0.7, 0.3)]
    store = Store(str(tmp_path))
    baseline, training = prune.preparations(points, small, data_root, store)
    assert (baseline.done, training.done, training.epochs) == (False, False, 2)
    assert training.title == "slimmable training resnet20 on folder:scenes, seed 0"
    run_in = open_session(tmp_path, data_root, small, dict(training.point), training.key)
    assert prune.prepare(dict(training.point), run_in)["epoch"] == 2
    assert all(preparation.done for preparation in prune.preparations(points, small, data_root, store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slimmables, "_train", lambda _: pytest.fail("trained again"))
        for point in points:
            reports: list[dict[str, Any]] = []
            session = open_session(tmp_path, data_root, small, point, str(point), on_report=reports.append)
            result = prune.run(point, session)
            assert result["macs_ratio"] == pytest.approx(point["macs_ratio"], rel=0.01)
            assert [report["epoch"] for report in reports] == [1, 2]  # of the fine-tuning alone
            assert 0 <= prune.measure(point, session)["test_accuracy"] <= 1


def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, storage: Path, data_root: Path, small: Settings
) -> None:
    whole = prune.run(NAMED, open_session(storage, data_root, small, NAMED, "whole"))
    (_, needed) = prune.preparations([NAMED], small, data_root, Store(str(tmp_path)))

    def stop(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    broken = open_session(tmp_path, data_root, small, dict(needed.point), needed.key, on_report=stop)
    with pytest.raises(KeyboardInterrupt):
        prune.prepare(dict(needed.point), broken)
    trial = PruningTrial.open(NAMED, broken)
    assert trial.shared_session(f"slimmable-{trial.keys.slimmable}").load_checkpoint() is not None
    resumed = prune.run(NAMED, open_session(tmp_path, data_root, small, NAMED, "resumed"))
    assert (resumed["val_loss"], resumed["macs"]) == (whole["val_loss"], whole["macs"])
    assert trial.shared_session(f"slimmable-{trial.keys.slimmable}").load_checkpoint() is None


def test_what_the_training_does_not_depend_on_shares_it(small: Settings, data_root: Path, tmp_path: Path) -> None:
    run_in = open_session(tmp_path, data_root, small, NAMED, "a")
    searched = override_settings(small, {"slimmable.generations": 2})
    other = open_session(tmp_path, data_root, searched, NAMED, "b")
    one, two = (PruningTrial.open(NAMED, session).keys for session in (run_in, other))
    assert one.slimmable == two.slimmable
    assert one.structures != two.structures
    longer = open_session(tmp_path, data_root, override_settings(small, {"slimmable.epochs": 3}), NAMED, "c")
    assert PruningTrial.open(NAMED, longer).keys.slimmable != one.slimmable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs_ratio": None, "rate": 0.5}, "method 'slimmable' needs macs_ratio"),
        ({"macs_ratio": 0.05}, "space.macs_ratio: 0.05 is below settings.slimmable.smallest, 0.1"),
        ({"allocation": "uniform"}, "space.allocation: method 'slimmable' searches the widths itself"),
        ({"pruning.steps": 2}, "settings.pruning.steps: method 'slimmable' derives its network in one step"),
        ({"slimmable.smallest": 1.0}, "smallest"),
        ({"slimmable.structure": 1}, "Did you mean 'structures'?"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, small: Settings) -> None:
    with pytest.raises(InputError) as caught:
        prune.check(NAMED | change, small)
    assert message in str(caught.value)
