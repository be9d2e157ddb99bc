"""trials.latency: what a trial measures and predicts where the study asks, without Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import parse_study
from rssearch.config.schema import Bound
from rssearch.config.settings import Settings
from rssearch.cost import latency
from rssearch.cost.device_latencies import LAYERS, layers_file, remember
from rssearch.cost.device_table import Layer
from rssearch.errors import Infeasible, InputError
from rssearch.study.definition import StudyDefinition
from rssearch.trial import turns
from rssearch.trial.interface import DEPLOYED
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, micronet, network_trial, prune
from rssearch.trials.latency import LINES, METRICS, PREDICTED, TABLES
from rssearch.trials.pruning_trial import PruningTrial

POINT = {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "rate": 0.5, "seed": 0}
QUICK = {"WARMUP": 1, "PASSES": 3, "FEWEST": 3}


@pytest.fixture(autouse=True)
def _few_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in QUICK.items():
        monkeypatch.setattr(latency, name, value)
    monkeypatch.setattr(turns, "home", lambda: tmp_path / "turns")


def session(
    storage: Path,
    data_root: Path,
    settings: Settings,
    key: str,
    reports: list[dict[str, Any]] | None = None,
    **more: Any,
) -> Session:
    context = Context("s", str(storage), str(data_root), settings, **more)
    return Session(context, key, POINT, None if reports is None else reports.append)


def test_a_study_that_does_not_ask_measures_nothing(storage: Path, data_root: Path, settings: Settings) -> None:
    result = prune.run(POINT, session(storage, data_root, settings, "plain"))
    assert not [name for name in result if "latency" in name]


def test_an_objective_is_measured_before_the_training_and_reported_with_every_epoch(
    storage: Path, data_root: Path, settings: Settings
) -> None:
    reports: list[dict[str, Any]] = []
    asked = ("latency_ms", "latency_ms_onnxruntime_b1")
    run_in = session(storage, data_root, settings, "asked", reports, requested=asked)
    result = prune.run(POINT, run_in)
    assert all(result[name] > 0 for name in asked)
    assert result["latency_passes"] == 3
    assert result["latency_threads"] == 1
    assert [report["epoch"] for report in reports] == [1, 2]
    assert all(report["latency_ms"] == result["latency_ms"] for report in reports)
    assert all("latency_device" not in report for report in reports)  # curves are of numbers
    # Measured a second time, a member of the front would move on it.
    found = prune.measure(POINT, run_in)
    assert not [name for name in found if name.startswith("latency_ms")]
    assert all(found[f"baseline_{name}"] > 0 for name in asked)


def test_a_constraint_ends_a_trial_before_its_training(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    more = {"requested": ("latency_ms",), "constraints": {"latency_ms": Bound(max=1e-6)}}
    run_in = session(storage, data_root, settings, "slow", reports, **more)
    baselines.scores(PruningTrial.open(POINT, run_in))
    monkeypatch.setattr(network_trial, "fit", None)
    with pytest.raises(Infeasible) as error:
        prune.run(POINT, run_in)
    assert error.value.metrics["latency_ms"] > 1e-6
    assert reports == []


def test_the_timing_is_alone_and_the_training_has_a_share(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def noted(kind: str) -> Any:
        plain = getattr(turns, kind)

        @contextmanager
        def turn() -> Iterator[Any]:
            with plain() as found:
                log.append(kind)
                yield found and (lambda: (found(), log.append("gives way")))
                log.append(f"{kind} ends")

        return turn

    for kind in ("training", "measuring"):
        monkeypatch.setattr(turns, kind, noted(kind))
    baselines.scores(PruningTrial.open(POINT, session(storage, data_root, settings, "turns")))
    prune.run(POINT, session(storage, data_root, settings, "turns", requested=("latency_ms",)))
    measuring = ["measuring", "measuring ends"]
    assert log == [*measuring, "training", "gives way", "gives way", "training ends"]


def test_a_prediction_times_each_layer_once_and_is_known_beforehand_from_then_on(
    tmp_path: Path, storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session(storage, data_root, settings, "predicted", requested=(PREDICTED,))
    assert PREDICTED not in prune.cost(POINT, first)
    result = prune.run(POINT, first)
    assert result[PREDICTED] > 0
    assert "latency_ms" not in result
    monkeypatch.setattr("rssearch.cost.latency_table._milliseconds", None)
    monkeypatch.setattr(latency, "measure", None)
    cost = prune.cost(POINT, first)
    assert cost[PREDICTED] == result[PREDICTED]
    assert (
        prune.run(POINT, session(storage, data_root, settings, "again", requested=(PREDICTED,)))[PREDICTED]
        == cost[PREDICTED]
    )
    (line,) = first.store.keys(LINES)
    files = first.store.get(LINES, line)
    assert files is not None
    known = json.loads(files["line.json"])
    assert len(known["sums_ms"]) == len(known["measured_ms"]) == 4
    assert min(known["sums_ms"]) > 0
    assert len(first.store.keys(TABLES)) == 1
    # Another number of threads is another machine; and a driver without a GPU knows nothing of trials on GPUs.
    assert PREDICTED not in prune.cost(
        POINT, session(storage, data_root, settings, "k", requested=(PREDICTED,), cpus=2)
    )
    assert PREDICTED not in prune.cost(
        POINT, session(storage, data_root, settings, "k", requested=(PREDICTED,), gpus=1)
    )


def test_the_front_gets_the_runtimes_and_batches_that_are_listed(
    storage: Path, data_root: Path, settings: Settings
) -> None:
    listed = {"runtimes": ["eager", "onnxruntime"], "batches": [1, 2]}
    more = Settings.model_validate(settings.model_dump(mode="json") | {"latency": listed})
    run_in = session(storage, data_root, more, "front")
    prune.run(POINT, run_in)
    result = prune.measure(POINT, run_in)
    names = {"latency_ms", "latency_ms_eager_b2", "latency_ms_onnxruntime_b1", "latency_ms_onnxruntime_b2"}
    assert {name for name in result if name.startswith("latency_ms")} == names
    assert {name for name in result if name.startswith("baseline_latency_ms")} == {f"baseline_{n}" for n in names}
    assert {"latency_iqr_ms", "latency_p95_ms", "latency_passes_eager_b2", "test_accuracy"} <= set(result)


def definition(
    data_root: Path, trial: str = "trials.prune:run", space: dict[str, Any] | None = None, **more: Any
) -> StudyDefinition:
    return StudyDefinition(
        parse_study(
            {
                "study": "s",
                "trial": trial,
                "data_root": str(data_root),
                "space": space or {name: [value] for name, value in POINT.items()},
                **more,
            }
        )
    )


def test_keys_change_only_where_latency_is_asked_for(data_root: Path) -> None:
    plain = definition(data_root)
    listed = definition(data_root, settings={"latency": {"runtimes": ["onnxruntime"]}})
    asked = definition(data_root, search={"objectives": {"val_accuracy": "max", "latency_ms": "min"}})
    bound = definition(data_root, search={"constraints": {"latency_ms": {"max": 5}}})
    looser = definition(data_root, search={"constraints": {"latency_ms": {"max": 6}}})
    keys = [q.key(POINT) for q in (plain, listed, asked, bound, looser)]
    assert keys[0] == keys[1] != keys[2] == keys[3] == keys[4]
    assert (plain.context().requested, asked.context().requested) == ((), ("latency_ms",))


@pytest.mark.parametrize("name", METRICS)
def test_every_name_may_be_an_objective(data_root: Path, name: str) -> None:
    assert definition(data_root, search={"objectives": {"val_accuracy": "max", name: "min"}}).requested == (name,)


def test_a_segmentation_search_measures_and_does_not_predict(tmp_path: Path) -> None:
    assert set(micronet.ON_REQUEST) == set(METRICS) - {PREDICTED}
    space = {"dataset": ["synthetic_buildings"], "base": [8]}
    with pytest.raises(InputError, match=f"search.objectives.{PREDICTED}: unknown metric"):
        definition(tmp_path, "trials.micronet:run", space, search={"objectives": {"val_miou": "max", PREDICTED: "min"}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runtimes": ["tensorrt"]}, "settings.latency.runtimes.0: 'tensorrt' is not allowed"),
        ({"runtimes": []}, "settings.latency.runtimes: .* at least one entry is needed"),
        ({"batches": [0]}, "settings.latency.batches.0: 0 is not allowed"),
        ({"threads": 1}, "settings.latency.threads: unknown key"),
    ],
)
def test_bad_settings_are_named(data_root: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        definition(data_root, settings={"latency": given})


def test_a_table_of_a_device_predicts_and_refuses_before_the_training(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessed, named = "predicted_latency_ms@pi", ("val_accuracy", "latency_ms@pi")
    away = session(storage, data_root, settings, "device", named=named)
    first = prune.run(POINT, away)
    assert guessed not in first  # nothing is known
    prune.deploy(POINT, away)
    described = away.store.get(DEPLOYED, away.key, [LAYERS])[LAYERS]
    layers = [Layer(*layer) for layer in json.loads(described)]
    assert sum(layer.macs for layer in layers) == first["conv_linear_macs"]
    for factor in range(1, 5):  # networks of these kinds of layers, on a device that takes 1 ms for a million MACs
        wider = [Layer(layer.kind, factor * layer.macs, layer.moved) for layer in layers]
        took = {"latency_ms@pi": 1e-6 * sum(layer.macs for layer in wider)}
        remember(away.store, "pi", layers_file(wider), took)
    expected = pytest.approx(1e-6 * first["conv_linear_macs"], rel=0.05)
    assert prune.cost(POINT, away)[guessed] == expected
    assert guessed not in prune.cost(POINT, session(storage, data_root, settings, "nobody asks"))

    limits = {guessed: Bound(max=0.5e-6 * first["conv_linear_macs"])}
    limited = session(storage, data_root, settings, "limited", named=(*named, guessed), constraints=limits)
    with monkeypatch.context() as patch:
        patch.setattr(network_trial, "fit", None)
        with pytest.raises(Infeasible) as error:
            prune.run(POINT, limited)
    assert error.value.metrics[guessed] == expected
    assert prune.run(POINT, session(storage, data_root, settings, "again", named=named))[guessed] == expected
