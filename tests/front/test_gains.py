"""What a trial lost and gained against its baseline, from hand-made rows."""

from __future__ import annotations

from typing import Any

import pytest

from rssearch.front import gains, seeds


def row(key: str = "a", **more: Any) -> dict[str, Any]:
    """Half of a network: two points lost, twice as fast."""
    found = {"key": key, "status": "finished", "dataset": "scenes", "model": "resnet18", "method": "l1", "seed": 0}
    own = {"val_accuracy": 0.90, "test_accuracy": 0.88, "macs": 50, "params": 5, "bytes": 200}
    own |= {"latency_ms": 2.0, "latency_iqr_ms": 0.1, "latency_device": "cpu", "latency_threads": 2}
    whole = {"val_accuracy": 0.92, "test_accuracy": 0.91, "macs": 100, "params": 10, "bytes": 400, "id": "full"}
    whole |= {"latency_ms": 4.0, "latency_iqr_ms": 0.5, "latency_device": "cpu", "latency_threads": 2}
    return found | own | {f"baseline_{name}": value for name, value in whole.items()} | more


def added(trial: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gains.compared(trial).items() if name not in trial}


def test_differences_speedup_and_ratios() -> None:
    assert added(row()) == {
        "val_accuracy_difference": pytest.approx(-0.02),
        "test_accuracy_difference": pytest.approx(-0.03),
        "speedup": 2.0,
        "macs_ratio": 0.5,
        "params_ratio": 0.5,
        "bytes_ratio": 0.5,
    }
    other = {"latency_ms_onnxruntime_b32": 10.0, "baseline_latency_ms_onnxruntime_b32": 15.0}
    assert added(row(**other))["speedup_onnxruntime_b32"] == 1.5
    assert gains.compared(gains.compared(row())) == gains.compared(row())


def test_what_a_trial_says_itself_stays() -> None:
    assert gains.compared(row(speedup=7, macs_ratio=0.25))["speedup"] == 7
    assert "macs_ratio" not in added(row(macs_ratio=0.25))


def test_what_is_not_known_is_left_out() -> None:
    alone = {name: value for name, value in row().items() if not name.startswith("baseline_")}
    assert gains.compared(alone) == alone
    assert gains.baselines([alone]) == []
    early = added(row(baseline_test_accuracy=None, baseline_latency_ms=float("nan"), bytes=None))
    assert sorted(early) == ["macs_ratio", "params_ratio", "val_accuracy_difference"]
    assert "speedup" not in added(row(latency_ms=0.0))


@pytest.mark.parametrize("other", [{"latency_device": "gpu"}, {"baseline_latency_threads": 8}])
def test_latencies_of_different_machines_are_not_compared(other: dict[str, Any]) -> None:
    assert "speedup" not in added(row(**other))


def test_a_latency_whose_spread_is_above_a_tenth_is_disturbed() -> None:
    assert gains.spread(row(), "latency_ms") == 0.1
    assert gains.spread(row(), "baseline_latency_ms") == 0.5
    assert gains.spread({"latency_iqr_ms_compile_b8": 3.0}, "latency_ms_compile_b8") == 3.0
    assert gains.spread(row(), "macs") is None
    assert not gains.is_disturbed(row(), "latency_ms")  # 5 %
    assert not gains.is_disturbed(row(latency_iqr_ms=0.2), "latency_ms")  # a tenth, and not more
    assert gains.is_disturbed(row(), "baseline_latency_ms")  # 12.5 %
    assert not gains.is_disturbed(row(latency_iqr_ms=None), "latency_ms")


def test_a_baseline_is_the_mean_of_its_seeds() -> None:
    rows = [row("a"), row("b", rate=0.3), row("c", seed=1, baseline_val_accuracy=0.96, baseline_latency_ms=5.0)]
    (found,) = gains.baselines(map(gains.compared, rows))
    assert found == {
        **{"dataset": "scenes", "model": "resnet18", "macs": 100, "params": 10, "bytes": 400, "test_accuracy": 0.91},
        **{"val_accuracy": pytest.approx(0.94), "latency_ms": 4.5, "latency_iqr_ms": 0.5, "latency_threads": 2},
        **{"speedup": 1, "macs_ratio": 1, "params_ratio": 1, "bytes_ratio": 1},
        **{"val_accuracy_difference": 0, "test_accuracy_difference": 0},
    }


def test_a_baseline_of_means_is_that_of_the_configuration_with_most_seeds() -> None:
    rows = [row("a"), row("b", seed=1, baseline_val_accuracy=0.96), row("c", method="lfp")]
    means = seeds.means(map(gains.compared, rows), ["method", "seed"])
    (found,) = gains.baselines(means)
    assert found["val_accuracy"] == pytest.approx(0.94)
    assert found["val_accuracy_std"] > 0


def test_a_method_with_a_baseline_of_its_own_is_compared_with_that() -> None:
    sparse = {"method": "bn_scale", "baseline_id": "sparse", "baseline_val_accuracy": 0.91}
    found = gains.baselines([row("a"), row("b", method="lfp"), row("c", **sparse)])
    assert [(one["val_accuracy"], one["methods"]) for one in found] == [(0.92, ["l1", "lfp"]), (0.91, ["bn_scale"])]
    assert gains.compared(row("c", **sparse))["val_accuracy_difference"] == pytest.approx(-0.01)


def test_trials_of_an_earlier_release_share_one_baseline_of_their_model() -> None:
    old = row("a", baseline_id=None, baseline_val_accuracy=0.90)
    assert [one["val_accuracy"] for one in gains.baselines([old])] == [0.90]
    assert [one["val_accuracy"] for one in gains.baselines([old, row("b")])] == [0.92]
    other = gains.baselines([old, row("b"), row("c", model="vgg", baseline_id=None)])
    assert [one["model"] for one in other] == ["resnet18", "vgg"]
