"""The shipped experiments of the papers: every point of them, and of the variants in their comments, can run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from rssearch import models
from rssearch.config import shipped
from rssearch.config.loading import load_study, parse_assignment
from rssearch.config.schema import StudyConfig
from rssearch.config.space import grid
from rssearch.papers import PAPERS
from rssearch.trial.hooks import resolve

SHIPPED = {name: path for name, path in shipped.shipped().items() if name.startswith("papers/")}


def _commands(path: Path) -> list[str]:
    """The commands in a YAML's comments, each with its continued lines."""
    comments = "\n".join(line.removeprefix("#") for line in path.read_text().splitlines() if line.startswith("#"))
    return re.findall(r"^   (rssearch search \S.*)$", re.sub(r"\\\n +", "", comments), re.MULTILINE)


VARIANTS = [(name, "") for name in SHIPPED] + [
    (name, text) for name, path in SHIPPED.items() for text in _commands(path)
]


def _study(name: str, command: str) -> StudyConfig:
    words = shlex.split(command)
    assert words[:4] == ["rssearch", "search", name, "--set"] or not words
    assert words[3::2] == ["--set"] * len(words[4::2])
    return load_study(shipped.find(name), dict(parse_assignment(word) for word in words[4::2]))


def test_every_paper_has_its_experiment_and_a_short_run_of_it() -> None:
    assert set(SHIPPED) >= {f"papers/{name}" for name in PAPERS}
    for name, path in SHIPPED.items():
        short = next(command for command in _commands(path) if "-short" in command)
        config = _study(name, short)
        assert config.settings.train.epochs == 1
        assert config.settings.finetune.epochs == 1 or config.trial == "trials.micronet:run"  # fine-tunes nothing


def test_the_comments_are_read_whole() -> None:
    first, *_ = _commands(SHIPPED["papers/lfp"])
    assert first.endswith("--set settings.train.epochs=1 --set settings.finetune.epochs=1")
    assert len(_commands(SHIPPED["papers/lfp"])) == 4


@pytest.mark.parametrize(("name", "command"), VARIANTS)
def test_every_point_can_run(name: str, command: str) -> None:
    config = _study(name, command)
    points = list(grid(config.space))
    _, trial = resolve(config.trial)
    assert points
    for point in points:
        trial.check(point, config.settings)
        trial.check_search(point, config.search)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # what the papers (RemoteTrimmer: its code) state of the recipes
        ("lfp", {"epochs": 300, "batch_size": 256, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.005}),
        ("compound", {"batch_size": 64}),
        ("remotetrimmer", {"epochs": 40, "batch_size": 64, "lr": 0.01, "momentum": 0, "weight_decay": 0,
                           "schedule": "step", "milestones": (0.5, 0.75), "gamma": 0.1}),
    ],
)  # fmt: skip
def test_recipes_are_those_of_the_papers(name: str, expected: dict[str, Any]) -> None:
    settings = _study(f"papers/{name}", "").settings
    finetune = settings.finetune.model_dump()
    assert finetune == finetune | expected
    assert settings.finetune.optimizer == "sgd"


def test_the_networks_and_the_recipe_of_micronet_are_those_of_the_paper() -> None:
    """Table 2 in its order, and section 3.2; the parameters are exact."""
    config = _study("papers/micronet", "")
    names = [point["model"] for point in grid(config.space)]
    with torch.device("meta"):  # shapes alone
        counts = [sum(p.numel() for p in models.create(str(name), 2).parameters()) for name in names]
    assert counts == [31_024_960, 5_358_744, 926_896, 926_896, 926_896, 1_055_920, 1_184_944]
    recipe = config.settings.train.model_dump()
    assert recipe == recipe | {"optimizer": "sgd", "epochs": 20, "batch_size": 2, "lr": 0.001, "momentum": 0.9}
    assert config.settings.patches.size == 500


def test_studies_have_names_of_their_own() -> None:
    """Variants on other data are other questions: they must not share a folder with the experiment itself."""
    seen: dict[str, list[object]] = {}
    for name, command in VARIANTS:
        config = _study(name, command)
        seen.setdefault(config.study, []).append((config.space["dataset"], config.settings))
    assert all(questions[1:] == questions[:-1] for questions in seen.values())
