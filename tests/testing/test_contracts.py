"""Every part of the registries keeps to its contract; parts that break one clause are told so by that clause."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rssearch import models, pruning
from rssearch.testing import (
    METHOD_CLAUSES,
    NETWORK_CLAUSES,
    TRIAL_CLAUSES,
    ContractError,
    check_dataset,
    check_method,
    check_network,
    check_trial,
)
from rssearch.testing.clauses import check
from rssearch.testing.methods import MethodPart
from rssearch.testing.networks import NetworkPart
from tests.support.apart import apart
from tests.support.fakes import tree

LARGE = {"resnet50", "resnet34"}
HUGE = "vgg16_bn"  # half a gigabyte a copy
NETWORKS = [pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in models.list_models() if n != HUGE]
SETTINGS = {"train": {"epochs": 2, "batch_size": 8}, "finetune": {"epochs": 2, "batch_size": 8}}


@lru_cache(maxsize=2)  # each keeps several copies
def network(name: str) -> NetworkPart:
    return NetworkPart(name, (3, 32, 32))


@pytest.mark.parametrize("clause", NETWORK_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, clause: Any) -> None:
    clause(network(name))


@pytest.mark.slow
def test_a_network_of_half_a_gigabyte() -> None:
    apart(partial(check_network, shape=(3, 64, 64)), HUGE)


@pytest.mark.parametrize("clause", METHOD_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", pruning.list_methods())
def test_methods(name: str, clause: Any) -> None:
    clause(MethodPart(name, network("resnet20")))


@pytest.mark.parametrize("name", pruning.list_methods())
def test_methods_on_a_network_for_segmentation(name: str) -> None:
    check_method(name, model="unet", model_options={"base": 8, "levels": 2, "batch_norm": True})


TRIALS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "prune": (
        "trials.prune:run",
        {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "macs_ratio": 0.5, "seed": 0},
        SETTINGS | {"input_size": 16},
    ),
    "channel_nas": (
        "trials.channel_nas:run",
        {"dataset": "folder:scenes", "model": "resnet20", "macs_ratio": 0.5},
        SETTINGS | {"input_size": 16},
    ),
    "micronet": (
        "trials.micronet:run",
        {"dataset": "synthetic_buildings", "rates": "1,2,3", "levels": 1, "base": 16},
        SETTINGS | {"patches": {"size": 64}, "train": {"epochs": 2, "batch_size": 4}},
    ),
    "curves": ("trials.curves:synthetic", {"rate": 0.5, "lr": 0.1}, {"train": {"epochs": 3}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
def test_trials(name: str, tmp_path: Path) -> None:
    tree(tmp_path / "scenes", ["forest", "lake"], 12)
    target, point, settings = TRIALS[name]
    check_trial(target, point, settings=settings, data_root=tmp_path)


def test_a_dataset_of_ones_own(tmp_path: Path) -> None:
    tree(tmp_path / "scenes", ["forest", "lake"], 12)
    check_dataset("folder:scenes", tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "scenes" / "lake" / "torn.png")
    (tmp_path / "scenes" / "lake" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    with pytest.raises(ContractError, match=r"of 9 clauses do not hold\n- Images are \[N, C, H, W\]"):
        check_dataset("folder:scenes", tmp_path)


BROKEN = "tests.support.broken"


def broken_clauses(error: ContractError) -> set[str]:
    """The first lines of the clauses that do not hold."""
    return {line.removeprefix("- ") for line in str(error).splitlines() if line.startswith("- ")}


def text(clause: Any) -> str:
    return str(clause.__doc__).strip().splitlines()[0]


@pytest.mark.parametrize(
    ("part", "clause"),
    [
        ("unseeded", "creation_follows_the_seed"),
        ("too_few_logits", "logits_have_their_shape"),
        ("across_the_batch", "images_do_not_depend_on_each_other"),
        ("with_an_unused_layer", "every_parameter_learns"),
        ("nothing_to_prune", "channels_can_be_pruned"),
    ],
)
def test_a_broken_network_is_told_its_clause(part: str, clause: str) -> None:
    check_network(f"{BROKEN}:sound", shape=(3, 8, 8))
    with pytest.raises(ContractError) as caught:
        check_network(f"{BROKEN}:{part}", shape=(3, 8, 8))
    assert text(next(c for c in NETWORK_CLAUSES if c.__name__ == clause)) in broken_clauses(caught.value)
    assert str(caught.value).startswith(f"{BROKEN}:{part}: ")


@pytest.mark.parametrize(
    ("part", "clause"),
    [
        ("not_finite", "scores_have_their_shape"),
        ("of_another_width", "scores_have_their_shape"),
        ("by_chance", "scores_repeat_themselves"),
        ("by_force", "the_network_stays"),
        ("with_gradients", "the_network_stays"),
    ],
)
def test_a_broken_method_is_told_its_clause(part: str, clause: str) -> None:
    check_method(f"{BROKEN}:norms")
    with pytest.raises(ContractError) as caught:
        check_method(f"{BROKEN}:{part}")
    assert text(next(c for c in METHOD_CLAUSES if c.__name__ == clause)) in broken_clauses(caught.value)


@pytest.mark.parametrize(
    ("part", "clause"),
    [
        ("restless", "a_second_run_gives_the_same"),
        ("short", "epochs_are_reported"),
        ("forgetful", "an_interrupted_run_ends_as_a_whole_one"),
        ("silent", "results_are_numbers_with_names"),
    ],
)
def test_a_broken_trial_is_told_its_clause(part: str, clause: str) -> None:
    check_trial(f"{BROKEN}:steady", {"rate": 0.25})
    with pytest.raises(ContractError) as caught:
        check_trial(f"{BROKEN}:{part}", {"rate": 0.25})
    assert broken_clauses(caught.value) >= {text(next(c for c in TRIAL_CLAUSES if c.__name__ == clause))}


def test_the_first_reason_is_the_cause() -> None:
    def holds(_: int) -> None:
        """It holds."""

    def breaks(_: int) -> None:
        """It breaks.

        More about it.
        """
        raise KeyError("x")

    with pytest.raises(ContractError) as caught:
        check("mine", 1, [holds, breaks])
    assert str(caught.value) == "mine: 1 of 2 clauses do not hold\n- It breaks.\n  KeyError: 'x'"
    assert isinstance(caught.value.__cause__, KeyError)
    check("mine", 1, [holds])
