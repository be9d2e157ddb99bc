"""The keys of trials, baselines, scores and searches: what is on disk under them is reused by later versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rssearch.config import imports
from rssearch.config.loading import parse_study
from rssearch.config.settings import Settings
from rssearch.study.definition import StudyDefinition
from rssearch.trials import keys as keys_module
from rssearch.trials.keys import Keys
from rssearch.trials.point import PruningPoint

ROOT = Path("data")


@pytest.fixture(autouse=True)
def _any_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "fingerprint", lambda *_: "f" * 64)


def keys(
    dataset: str, model: str, settings: dict[str, Any], objectives: dict[str, str] | None = None
) -> dict[str, str]:
    document = {
        "study": "s",
        "trial": "trials.prune:run",
        "space": {"dataset": [dataset], "model": [model], "method": ["lfp"], "rate": [0.5], "seed": [1]},
        "settings": settings | {"train": {"epochs": 3, **settings.get("train", {})}},
        "search": {"objectives": objectives} if objectives else {},
    }
    definition = StudyDefinition(parse_study(document))
    (point,), local = definition.points, definition.config.settings
    searched = {name: value for name, value in point.items() if name != "rate"} | {"macs_ratio": 0.5}
    plain = Keys(PruningPoint(point, local), ROOT)
    return {
        "trial": definition.key(point),
        "baseline": plain.baseline,
        "data": plain.data,
        "score": plain.scores,
        "search": Keys(PruningPoint(searched, local), ROOT).search,
    }


def test_keys_of_the_first_studies_stay() -> None:
    """Literals. Whoever has to change them throws away what users have computed.

    Those of trials and searches changed last with the default of `nas.score_lr`, and those of trials that leave it out
    with that of `finetune.lr`."""
    before = {"epochs": 5, "lr": 0.01, "recalibrate_batches": 10}
    assert keys("synthetic_scenes", "resnet20", {"model": {"shortcut": "A"}, "finetune": before}) == {
        "trial": "e15469b572299982",
        "baseline": "3bef4836afaf9989",
        "data": "ce2d0f68da71ea36",
        "score": "892e153a591fc1d8",
        "search": "ed12373ae1436f07",
    }


def test_keys_that_came_later_are_left_out_at_their_defaults() -> None:
    """What earlier releases computed without them is found, also where a YAML names the default."""
    plain = keys("synthetic_scenes", "resnet20", {"finetune": {}})
    named = {"class_weights": None, "sampling": "shuffled", "focal_gamma": 2.0}
    document = {"train": named, "finetune": named, "augment": {"band_dropout": 0}}
    assert keys("synthetic_scenes", "resnet20", document) == plain
    other = keys("synthetic_scenes", "resnet20", {"finetune": {}, "augment": {"band_dropout": 0.1}})
    assert {name for name in plain if plain[name] == other[name]} == {"data"}
    other = keys("synthetic_scenes", "resnet20", {"finetune": {"sampling": "balanced"}})
    assert {name for name in plain if plain[name] != other[name]} == {"trial"}
    for recipe in ({"class_weights": "balanced"}, {"class_weights": {"lake": 2}}, {"sampling": "balanced"}):
        other = keys("synthetic_scenes", "resnet20", {"train": recipe, "finetune": {}})
        assert {name for name in plain if plain[name] == other[name]} == {"data"}


def test_where_to_cut_is_left_out_of_the_keys_at_its_default_and_changes_trials_alone() -> None:
    plain = keys("synthetic_scenes", "resnet20", {})
    assert keys("synthetic_scenes", "resnet20", {"pruning": {"groups": "all", "keep": {}}}) == plain
    for pruning in ({"groups": "inner"}, {"keep": {"conv1": 1.0}}):
        other = keys("synthetic_scenes", "resnet20", {"pruning": pruning})
        assert {name for name in plain if plain[name] != other[name]} == {"trial"}


def test_only_rankings_of_all_channels_are_cut_anew() -> None:
    def cut(**point: Any) -> int:
        values = {"dataset": "synthetic_scenes", "model": "resnet20", "rate": 0.5, **point}
        return int(Keys(PruningPoint(values, Settings()), ROOT).identity()["code"]["cut"])

    assert [cut(method=name) for name in ("l1", "compound", "none", "channel_nas")] == [1, 1, 1, 1]
    assert [cut(method=name) for name in ("bn_scale", "slimming", "lamp", "taylor")] == [2, 2, 2, 2]
    assert cut(method="l1", allocation="global") == 2
    assert cut(method="bn_scale", allocation="uniform") == 1


def test_options_of_another_network_leave_the_baseline_as_it_is() -> None:
    alone = keys("synthetic_scenes", "resnet20", {"model": {"shortcut": "A"}})
    beside = keys("synthetic_scenes", "resnet20", {"model": {"shortcut": "A", "networks": {"unet": {"base": 8}}}})
    own = keys("synthetic_scenes", "resnet20", {"model": {"networks": {"resnet20": {"shortcut": "A"}}}})
    assert {n for n in alone if alone[n] != beside[n]} == {"trial"}
    assert {n for n in alone if alone[n] != own[n]} == {"trial"}


def test_patches_are_part_of_a_scene_sets_key() -> None:
    objectives = {"val_miou": "max", "macs": "min"}
    plain = keys("synthetic_buildings", "unet", {}, objectives)
    smaller = keys("synthetic_buildings", "unet", {"patches": {"size": 64}}, objectives)
    assert not any(plain[name] == smaller[name] for name in plain)


def test_the_source_of_ones_own_network_and_method_is_part_of_what_depends_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keys_of(model: str, method: str, **sources: str) -> dict[str, str]:
        monkeypatch.setattr(imports, "fingerprint", lambda name: sources[name.partition(":")[2]])
        document = {"study": "s", "trial": "trials.prune:run", "settings": {"train": {"epochs": 3}}}
        space = {"dataset": ["synthetic_scenes"], "model": [model], "method": [method], "macs_ratio": [0.5]}
        definition = StudyDefinition(parse_study({**document, "space": space}))
        (point,), local = definition.points, definition.config.settings
        found = Keys(PruningPoint(point, local), ROOT)
        return {
            "trial": definition.key(point),
            "baseline": found.baseline,
            "data": found.data,
            "score": found.scores,
            "search": found.search,
        }

    def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
        return {name for name in before if before[name] != after[name]}

    one = keys_of("tests.support.own:tiny", "tests.support.own:spread", tiny="1", spread="1")
    assert changed(one, keys_of("tests.support.own:tiny", "tests.support.own:spread", tiny="1", spread="1")) == set()
    other_method = keys_of("tests.support.own:tiny", "tests.support.own:spread", tiny="1", spread="2")
    assert changed(one, other_method) == {"trial", "score"}
    other_model = keys_of("tests.support.own:tiny", "tests.support.own:spread", tiny="2", spread="1")
    assert changed(one, other_model) == {"trial", "baseline", "score", "search"}


def test_memory_is_measured_again_where_code_of_ones_own_changed(tmp_path: Path) -> None:
    def keys_with(*sources: tuple[str, bytes]) -> set[str]:
        space = {"dataset": ["synthetic_scenes"], "model": ["tests.support.own:tiny"], "method": ["l1"], "rate": [0.5]}
        document = {"study": "s", "trial": "trials.prune:run", "space": space, "storage": str(tmp_path)}
        definition = StudyDefinition(parse_study(document))
        assert [path for path, _ in definition.context().sources] == [
            "tests/__init__.py",
            "tests/support/__init__.py",
            "tests/support/own.py",
        ]
        definition._sources = sources
        return set(definition.peak_memory_points())

    before = keys_with(("own.py", b"1"))
    assert len(before) == 1
    assert keys_with(("own.py", b"1")) == before != keys_with(("own.py", b"2"))


def test_what_a_split_file_says_is_part_of_the_keys_and_its_name_is_not(tmp_path: Path) -> None:
    first, same, other = (str(tmp_path / f"{name}.csv") for name in ("first", "same", "other"))
    Path(first).write_text("path,split\na,train\nb,val\n")
    Path(same).write_text("split;path\r\nval;b\r\ntrain;a\r\n")
    Path(other).write_text("path,split\na,train\nb,test\n")

    def keys_of(**split: str) -> dict[str, str]:
        return keys("synthetic_scenes", "resnet20", {"split": split})

    plain, read, again, changed = keys_of(), keys_of(file=first), keys_of(file=same), keys_of(file=other)
    assert read == again
    for one, two in ((plain, read), (plain, changed), (read, changed)):
        assert not any(one[name] == two[name] for name in one)


@pytest.mark.parametrize("split", [{"group": "(a)"}, {"by": "block", "size": "1km"}])
def test_rules_of_a_division_are_part_of_the_keys(split: dict[str, str]) -> None:
    plain, ruled = keys("synthetic_scenes", "resnet20", {}), keys("synthetic_scenes", "resnet20", {"split": split})
    assert not any(plain[name] == ruled[name] for name in plain)
