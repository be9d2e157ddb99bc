"""Large spaces: a study over them is planned, checked and sampled at the cost of a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config.loading import parse_study
from rssearch.config.space import content_key
from rssearch.errors import InputError
from rssearch.sampling.sampler import CAPABILITIES, Proposer
from rssearch.storage.records import Status
from rssearch.study.definition import StudyDefinition
from rssearch.study.planning import plan
from tests.support.commands import study_with

NAMES = (
    "lr",
    "momentum",
    "weight_decay",
    "gamma",
    "label_smoothing",
    "distill",
    "temperature",
    "bn_l1",
    "warmup_epochs",
)
NUMBERS = [f"{recipe}.{name}" for recipe in ("train", "finetune") for name in NAMES]
REAL: dict[str, Any] = {name: {"low": 0.01, "high": 0.5} for name in NUMBERS}
BINARY: dict[str, Any] = {name: [0.01, 0.5] for name in NUMBERS}
SEEDS: dict[str, Any] = {"seed": {"low": 0, "high": 100_000_000}}


def _study(storage: Path, space: dict[str, Any], **search: Any) -> Any:
    changes = {f"space/{name}": value for name, value in space.items()} | {"storage": str(storage)}
    return parse_study(study_with(changes | {"search": {"sampler": "random", **search}}))


@pytest.mark.parametrize(
    ("space", "count"),
    [(REAL, 1000), (BINARY, 1000), (SEEDS, 2), ({**REAL, **SEEDS}, 1000)],
    ids=["real", "binary", "long", "all"],
)
def test_a_sample_is_checked_and_the_plan_says_so(tmp_path: Path, space: dict[str, Any], count: int) -> None:
    found = plan(_study(tmp_path, space))
    assert (found.checked, found.sampled, found.trials) == (count, True, 60)
    assert found.baselines <= 60
    assert f"space      a sample of {count} points was checked: the space has too many to check each" in found.lines()


def test_a_small_space_is_checked_whole(tmp_path: Path) -> None:
    found = plan(_study(tmp_path, {"seed": {"low": 0, "high": 4}}))
    assert (found.checked, found.sampled) == (5, False)
    assert not any("sample" in line for line in found.lines())


def test_a_mistake_in_a_choice_is_found_whatever_the_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown model 'resnet21'"):
        StudyDefinition(_study(tmp_path, {**REAL, "model": ["resnet20", "resnet56", "resnet21"]}))


def test_a_grid_that_is_too_large_is_refused_with_its_size(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the grid has 262144 cells, more than 100000; take another sampler"):
        StudyDefinition(_study(tmp_path, BINARY, sampler="grid"))
    space = {f"train.{name}": {"low": 0, "high": 100_000_000} for name in ("epochs", "recalibrate_batches")}
    with pytest.raises(InputError, match=r"the grid has about 10\^24 cells"):
        StudyDefinition(_study(tmp_path, {**space, **SEEDS}, sampler="grid"))


def test_what_a_long_range_decides_is_left_to_the_trials(tmp_path: Path) -> None:
    assert StudyDefinition(_study(tmp_path, SEEDS)).sure_preparations() == []  # each seed has a baseline of its own
    (sure,) = StudyDefinition(_study(tmp_path, {"finetune.lr": {"low": 0.1, "high": 0.2}})).sure_preparations()
    assert sure.parts == {"baselines": 1, "scores": 1}


@pytest.mark.parametrize("sampler", [name for name in CAPABILITIES if name not in ("grid", "cmaes")])
@pytest.mark.parametrize("size", ["real", "binary", "long"])
def test_every_sampler_proposes_from_a_large_space(sampler: Any, size: str) -> None:
    spaces: dict[str, dict[str, Any]] = {
        "real": {f"x{i}": {"low": 0.0, "high": 1.0} for i in range(30)},
        "binary": {f"x{i}": [0, 1] for i in range(30)},
        "long": {"x0": {"low": 0, "high": 100_000_000}, "x1": {"low": 0.0, "high": 1.0, "step": 1e-9}},
    }
    document = {"study": "s", "trial": "a:b", "space": spaces[size], "search": {"sampler": sampler, "trials": 3}}
    config = parse_study(document)
    proposer = Proposer(config.space, config.search, key_of=content_key)
    for _ in range(3):
        proposal = proposer.ask()
        assert proposal is not None
        key, point = proposal
        assert list(point) == list(spaces[size])
        proposer.tell(key, Status.FINISHED, {"val_accuracy": 0.5, "macs": 1.0})
    assert proposer.ask() is None
