"""trials.deployed: bytes, activations and bit operations of a trial before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rssearch.config.loading import parse_study
from rssearch.config.schema import Bound
from rssearch.config.settings import Settings
from rssearch.cost import activations
from rssearch.errors import Infeasible, InputError
from rssearch.metrics import axis, human, title_of
from rssearch.study.definition import StudyDefinition
from rssearch.trial.session import Context, Session
from rssearch.trials import deployed, network_trial, prune
from rssearch.trials.deployed import BOPS, METRICS, PEAK, WEIGHT_BYTES

POINT = {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "rate": 0.5, "seed": 0}


def session(storage: Path, data_root: Path, settings: Settings, **more: Any) -> Session:
    return Session(Context("s", str(storage), str(data_root), settings, **more), "key", POINT)


def test_they_are_known_before_training_and_what_the_trial_reports(
    storage: Path, data_root: Path, settings: Settings
) -> None:
    run_in = session(storage, data_root, settings, requested=METRICS)
    before = prune.cost(POINT, run_in)
    after = prune.run(POINT, run_in)
    assert {name: after[name] for name in METRICS} == {name: before[name] for name in METRICS}
    assert before[BOPS] == before["conv_linear_macs"] * 32 * 32
    whole = prune.unpruned(POINT, run_in)
    for name in METRICS:
        assert 0 < before[name] < whole[f"baseline_{name}"]
    assert before[WEIGHT_BYTES] > 4 * before["params"]  # the statistics of normalisations, too


def test_a_study_that_does_not_ask_has_no_such_columns(storage: Path, data_root: Path, settings: Settings) -> None:
    plain = session(storage, data_root, settings)
    assert not {*METRICS} & prune.cost(POINT, plain).keys()
    assert not [name for name in prune.unpruned(POINT, plain) if "bytes" in name or "bops" in name]


def test_a_network_that_is_too_large_is_not_trained(
    storage: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its baseline is in the store since the first test."""
    run_in = session(storage, data_root, settings, requested=(PEAK,), constraints={PEAK: Bound(max=1000)})
    monkeypatch.setattr(network_trial, "fit", lambda *_, **__: pytest.fail("it was trained"))
    with pytest.raises(Infeasible) as refused:
        prune.run(POINT, run_in)
    assert refused.value.metrics[PEAK] > 1000


def test_fewer_bits_take_less() -> None:
    numbers = deployed.Numbers(weights=10, activations=6, macs=100)
    found = {
        precision: tuple(deployed.metrics(numbers, {"precision": precision}, METRICS).values())
        for precision in ("fp32", "fp16", "bf16", "int8", "int8_qat")
    }
    assert found["fp32"] == (40, 24, 102_400)
    assert found["fp16"] == found["bf16"] == (20, 12, 25_600)
    assert found["int8"] == found["int8_qat"] == (10, 6, 6_400)


def test_widths_alone_decide(data_root: Path, storage: Path, settings: Settings) -> None:
    trial = prune._planned(POINT, session(storage, data_root, settings))
    kept = trial.kept(session(storage, data_root, settings).store)
    assert kept
    model = trial.pruned(kept)
    assert deployed.of_widths(trial.architecture, kept) == deployed.of_model(model, trial.architecture.shape)
    with torch.no_grad():
        assert activations.weights(model) == sum(
            v.numel() for v in model.state_dict().values() if v.is_floating_point()
        )


@pytest.mark.parametrize("name", METRICS)
def test_a_study_may_name_them_and_keys_change_only_then(tmp_path: Path, data_root: Path, name: str) -> None:
    def key(**search: Any) -> str:
        document = {
            "study": "s",
            "trial": "trials.prune:run",
            "space": {name: [value] for name, value in POINT.items()},
            "settings": {"input_size": 32},
            "search": search,
            "data_root": str(data_root),
            "storage": str(tmp_path),
        }
        definition = StudyDefinition(parse_study(document))
        return definition.key(definition.points[0])

    plain = {"objectives": {"val_accuracy": "max", "macs": "min"}}
    asked = {"objectives": {"val_accuracy": "max", "macs": "min", name: "min"}}
    assert key(**plain) == key(**plain, constraints={"macs": {"max": 1e9}}) != key(**asked)
    with pytest.raises(InputError, match="bop"):
        key(objectives={"val_accuracy": "max", "bop": "min"})


def test_they_are_read_with_their_units() -> None:
    assert human(WEIGHT_BYTES, 11_200_000) == "11.2 MB"
    assert human(PEAK, 98304) == "98.3 kB"
    assert human(BOPS, 1.8e12) == "1.8 T"
    assert title_of(BOPS) == "BOPs"
    assert axis(PEAK, [98304.0]) == ("Peak activation size (kB)", 1e-3)
