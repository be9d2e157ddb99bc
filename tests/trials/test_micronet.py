"""The architecture search trials.micronet: what is refused, what a trial does, and a study from end to end."""

from __future__ import annotations

import csv
import json
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rssearch.config import shipped
from rssearch.config.loading import load_study, override_settings, parse_study
from rssearch.config.schema import StudyConfig
from rssearch.config.settings import Settings
from rssearch.config.space import grid
from rssearch.errors import InputError, OutOfMemory
from rssearch.nas import atrous
from rssearch.study import run as study
from rssearch.study.definition import StudyDefinition
from rssearch.train import TrainContext
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, micronet, network_trial, prune
from rssearch.trials.planned import PlannedTrial
from rssearch.trials.pruning_trial import PruningTrial

POINT = {"dataset": "synthetic_buildings", "rates": "1,2", "levels": 2, "base": 8, "seed": 0}
SETTINGS = {
    "patches": {"size": 64},
    "model": {"networks": {"micronet": {"batch_norm": True}}},
    "train": {"epochs": 2, "batch_size": 16, "lr": 0.05},
}
PRUNED = {"dataset": "synthetic_buildings", "model": "micronet", "method": "none", "rate": 0.0, "seed": 0}
NETWORK = {"batch_norm": True, "rates": [1, 2], "levels": 2, "base": 8}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(SETTINGS)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def session(
    storage: Path, local: Settings, point: dict[str, Any], key: str = "k", reports: list[Any] | None = None
) -> Session:
    context = Context("s", str(storage), str(storage), local)
    return Session(context, key, point, None if reports is None else reports.append)


def given(point: dict[str, Any], local: Settings) -> dict[str, Any]:
    """What a running trial gets: its point, and the settings of the study."""
    return {**point, "settings": local.model_dump(mode="json")}


# One trial


@pytest.fixture(scope="module")
def trained(storage: Path, settings: Settings) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    reports: list[dict[str, Any]] = []
    return micronet.run(given(POINT, settings), session(storage, settings, POINT, reports=reports)), reports


def test_a_trial_reports_what_the_study_may_ask_for(
    trained: tuple[dict[str, Any], list[dict[str, Any]]], storage: Path, settings: Settings
) -> None:
    result, reports = trained
    assert set(micronet.METRICS) - set(micronet.ON_REQUEST) <= set(result)
    assert result["model"] == "micronet"
    assert [epoch["epoch"] for epoch in reports] == [epoch["epoch"] for epoch in result["history"]] == [1, 2]
    assert {"val_miou", "val_pixel_accuracy", "val_loss"} <= set(reports[-1])
    before = micronet.cost(POINT, session(storage, settings, POINT))
    assert before == {name: result[name] for name in micronet.COST_METRICS}
    assert micronet.unpruned(POINT, session(storage, settings, POINT)) == {"classes": 2}
    assert (before["receptive_field"], before["coverage"]) == (
        atrous.encoder_decoder_field([(1, 2)] * 2, [(2, 1)] * 2),
        1,
    )


def test_a_training_that_ran_out_of_memory_gets_micro_batches(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fit(*_: Any, context: TrainContext, **__: Any) -> None:
        seen.append(context.micro_batches)
        raise OutOfMemory("out of memory")

    monkeypatch.setattr(network_trial, "fit", fit)
    run_in = session(tmp_path, settings, POINT)
    run_in.micro_batches = 4  # as after two tries
    with pytest.raises(OutOfMemory):
        micronet.run(given(POINT, settings), run_in)
    assert seen == [4]


def test_the_trained_network_is_a_pruning_studys_baseline(
    trained: tuple[dict[str, Any], list[dict[str, Any]]],
    storage: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network_trial, "fit", lambda *_, **__: pytest.fail("trained again"))
    local = override_settings(settings, {"model.networks": {"micronet": NETWORK}})
    (needed,) = prune.preparations([PRUNED], local, storage, session(storage, local, PRUNED).store)
    assert needed.done
    _, metrics, _ = baselines.baseline(PruningTrial.open(PRUNED, session(storage, local, PRUNED)))
    result, _ = trained
    assert {name: metrics[name] for name in metrics} == {name: result[name] for name in metrics}


def test_a_pruning_studys_baseline_is_a_trained_network(tmp_path: Path, settings: Settings) -> None:
    local = override_settings(settings, {"model.networks": {"micronet": NETWORK}, "train.epochs": 1})
    _, metrics, _ = baselines.baseline(PruningTrial.open(PRUNED, session(tmp_path, local, PRUNED)))
    reports: list[dict[str, Any]] = []
    short = override_settings(settings, {"train.epochs": 1})
    point = POINT | {"model": "micronet"}
    result = micronet.run(given(point, short), session(tmp_path, short, point, reports=reports))
    assert not point.keys() & result.keys()  # else a column of the table would be there twice
    assert (result["val_miou"], result["train_seconds"]) == (metrics["val_miou"], metrics["train_seconds"])
    assert reports == []


def test_an_interrupted_trial_goes_on_from_its_last_epoch(
    trained: tuple[dict[str, Any], list[dict[str, Any]]], tmp_path: Path, settings: Settings
) -> None:
    def stop(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    context = Context("s", str(tmp_path), str(tmp_path), settings)
    with pytest.raises(KeyboardInterrupt):
        micronet.run(given(POINT, settings), Session(context, "k", POINT, stop))
    reports: list[dict[str, Any]] = []
    result = micronet.run(given(POINT, settings), session(tmp_path, settings, POINT, reports=reports))
    assert [epoch["epoch"] for epoch in reports] == [2]
    whole, _ = trained
    assert (result["val_miou"], result["val_loss"]) == (whole["val_miou"], whole["val_loss"])
    assert [e["train_loss"] for e in result["history"]] == [e["train_loss"] for e in whole["history"]]


def test_coverage_is_that_of_the_worst_cascade(storage: Path, settings: Settings) -> None:
    point = POINT | {"rates": "1,2/2,3/1,1", "levels": 3}
    found = micronet.cost(point, session(storage, settings, point))
    assert found["coverage"] == 9 / 11


def test_networks_are_named_by_their_rates(storage: Path, settings: Settings) -> None:
    named = {"dataset": "synthetic_buildings", "model": "micronet:1,2", "levels": 2, "base": 8}
    micronet.check(named, settings)
    wanted = session(storage, settings, POINT)
    assert micronet.cost(named, session(storage, settings, named)) == micronet.cost(POINT, wanted)


def test_the_plan_estimates_by_the_epochs_of_the_training(
    storage: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PlannedTrial, "epoch_seconds", lambda _, batch_size, session: 10.0 * batch_size)
    assert micronet.estimate(POINT, session(storage, settings, POINT), 99) == 2 * 10 * 16


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": None}, "space.dataset: is required, as a list of names"),
        ({"rate": 0.5}, "space: unknown dimension of micronet 'rate'. Did you mean 'rates'?"),
        ({"model": "unet"}, "space: unknown dimension of unet 'rates'. "),
        ({"method": "l1"}, "space: unknown dimension of micronet 'method'. "),
        ({"model": "micronett"}, "space.model: unknown model 'micronett'. Did you mean 'micronet'?"),
        ({"rates": "1;2"}, "space: the rates '1;2' of a micronet are not whole numbers with commas"),
        ({"rates": "1,2/1,2/1,2"}, "space.model: micronet: "),
        ({"base": 0}, "space.model: micronet: base is 0, but must be a whole number of at least 1"),
        ({"squeeze": 2}, "space.model: micronet: squeeze is 2, but must be a number above 0 and at most 1"),
        ({"skips": "ad"}, "'ad'"),
        ({"dataset": "synthetic_scenes"}, "'micronet' is a network for segmentation, but 'synthetic_scenes' needs one"),
        (
            {"rates": "2,3"},
            "space.rates: the cascade 2,3 reaches 82% of its receptive field, and so is not 'dense' as "
            "settings.options.cascades asks; it may be dense, gcd, any",
        ),
        ({"decoder_rates": "2,2"}, "space.rates: the cascade 2,2 reaches"),
        ({"rates": "2,2", "options.cascades": "gcd"}, "and so is not 'gcd'"),
        ({"options.cascades": "dens"}, "settings.options.cascades: unknown criterion 'dens'. Did you mean 'dense'?"),
        ({"model.networks.micronet.bass": 3}, "has no option 'bass'"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        micronet.check(POINT | change, settings)
    assert message in str(caught.value)


def test_check_refuses_networks_for_classification(settings: Settings) -> None:
    plain = {"dataset": "synthetic_buildings", "model": "resnet20"}
    with pytest.raises(InputError, match="'resnet20' is a network for classification, but 'synthetic_buildings' needs"):
        micronet.check(plain, settings)


@pytest.mark.parametrize(("rates", "criterion"), [("2,3", "gcd"), ("2,3", "any"), ("2,2", "any"), ("1,2", "dense")])
def test_check_accepts_cascades_as_the_study_allows(rates: str, criterion: str, settings: Settings) -> None:
    micronet.check(POINT | {"rates": rates, "options.cascades": criterion}, settings)


@pytest.mark.parametrize("name", ["val_accuracy", "macs_ratio"])
@pytest.mark.parametrize("section", ["objectives", "constraints"])
def test_metrics_that_no_trial_reports_are_refused(name: str, section: str) -> None:
    wanted: dict[str, Any] = {"objectives": {"val_miou": "max"}}
    wanted[section] = {name: "max"} if section == "objectives" else {name: {"max": 0.5}}
    space = {dimension: [value] for dimension, value in POINT.items()}
    document = {"study": "s", "trial": "trials.micronet:run", "space": space, "search": wanted, "settings": SETTINGS}
    with pytest.raises(InputError, match=rf"search\.{section}\.{name}: unknown metric '{name}'.* Known: .*coverage"):
        StudyDefinition(parse_study(document))


# The shipped space


def test_every_point_of_the_shipped_space_can_run() -> None:
    config = load_study(shipped.find("micronet"))
    points = list(grid(config.space))
    begin = time.perf_counter()
    for point in points:
        micronet.check(point, config.settings)
    assert len(points) == 1782
    assert time.perf_counter() - begin < 10
    micronet.check_search(points[0], config.search)


def test_the_shipped_space_has_all_short_cascades_without_holes() -> None:
    config = load_study(shipped.find("micronet"))
    found = {tuple(map(int, str(point["rates"]).split(","))) for point in grid(config.space)}
    short = {cascade for length in (2, 3) for cascade in atrous.cascades(length, 3)}
    assert {cascade for cascade in found if len(cascade) <= 3} == short
    assert found - short == {(1, 1, 2, 3), (1, 1, 1, 2, 3)}


# A study


def small(storage: Path) -> StudyConfig:
    return parse_study(
        {
            "study": "search",
            "trial": "trials.micronet:run",
            "space": {"dataset": ["synthetic_buildings"], "rates": ["1,1", "1,2"], "levels": [2], "base": [8]},
            "settings": SETTINGS | {"train": {"epochs": 1, "batch_size": 16}},
            "search": {"objectives": {"val_miou": "max", "receptive_field": "max"}},
            "storage": str(storage),
        }
    )


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_study_from_end_to_end(tmp_path: Path) -> None:
    def run() -> str:
        text = StringIO()
        assert study.search(small(tmp_path), console=Console(file=text, width=200)) == 0, text.getvalue()
        return text.getvalue()

    run()
    folder = tmp_path / "search"
    with (folder / "trials.csv").open() as file:
        trials = {row["rates"]: row for row in csv.DictReader(file)}
    assert {row["status"] for row in trials.values()} == {"finished"}
    for rates, row in trials.items():
        point = {name: value for name, value in POINT.items() if name != "seed"} | {"rates": rates}
        expected = micronet.cost(point, session(tmp_path, small(tmp_path).settings, point))
        assert {name: float(row[name]) for name in expected} == expected
        assert 0 <= float(row["val_miou"]) <= float(row["val_pixel_accuracy"]) <= 1
    assert float(trials["1,2"]["receptive_field"]) > float(trials["1,1"]["receptive_field"])
    (front,) = json.loads((folder / "front.json").read_text())["fronts"]
    pictures = sorted((folder / "predictions").iterdir())
    assert [path.stem for path in pictures] == sorted(member["key"] for member in front["members"])
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 300_000 for path in pictures)
    assert (folder / "front.html").read_text().count("<figure>") == len(pictures)
    artifacts = sorted((tmp_path / "mlartifacts").rglob("predictions.png"))
    assert sorted(path.read_bytes() for path in artifacts) == sorted(path.read_bytes() for path in pictures)
    assert all(member["test_miou"] is not None for member in front["members"])
    again = run()
    assert "running" not in again
    assert "measuring" not in again
    with (folder / "trials.csv").open() as file:
        assert {row["rates"]: row for row in csv.DictReader(file)} == trials
