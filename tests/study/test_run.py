"""rssearch.study, runner and tracking: whole studies on Ray Tune with trials that need no network."""

from __future__ import annotations

import csv
import json
import math
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.errors import InputError
from rssearch.storage.journal import Journal
from rssearch.study import run as study
from rssearch.study.definition import StudyDefinition
from tests.support.databases import put_into
from tests.support.records import ended

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def make(tmp_path: Path, function: str, space: dict[str, Any], **more: Any) -> StudyConfig:
    """A study of toy trials, one after the other if not told otherwise: a worker starts for longer than they run."""
    document = {"study": "s", "trial": f"tests.support.toy:{function}", "space": space, "storage": str(tmp_path)}
    return parse_study(document | {"resources": {"max_concurrent": 1}} | more)


def run(config: StudyConfig, **options: Any) -> tuple[int, str]:
    text = StringIO()
    if config.tracking_uri is None and Path(config.storage).is_dir():
        put_into(Path(config.storage))
    status = study.search(config, console=Console(file=text, width=200), **options)
    return status, text.getvalue()


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "s" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def runs(tmp_path: Path, kind: str | None = "trial") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("s")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return [r for r in found if kind is None or r.data.tags["rssearch.kind"] == kind]


def test_csv_front_and_mlflow_agree(tmp_path: Path) -> None:
    config = make(tmp_path, "plain", {"rate": [0.1, 0.5, 0.9], "seed": [0, 1]}, resources={})
    status, text = run(config)
    assert status == 0
    table = {row["key"]: row for row in rows(tmp_path)}
    assert len(table) == 6
    for row in table.values():
        assert float(row["val_accuracy"]) == 1 - float(row["rate"]) ** 2
    found = {r.data.tags["rssearch.key"]: r for r in runs(tmp_path)}
    assert found.keys() == table.keys()
    for key, r in found.items():
        assert r.info.status == "FINISHED"
        assert r.data.metrics["val_accuracy"] == float(table[key]["val_accuracy"])
        assert r.data.params["rate"] == table[key]["rate"]
        assert r.info.run_name == f"rate={table[key]['rate']} seed={table[key]['seed']}"
    front = json.loads((tmp_path / "s" / "front.json").read_text())
    pareto = {key for key, r in found.items() if r.data.tags["rssearch.pareto"] == "true"}
    assert len(pareto) == 6  # both seeds of a rate are equal, so none dominates the other
    assert {member["key"] for member in front["fronts"][0]["members"]} == pareto
    (summary,) = runs(tmp_path, "study")
    assert summary.data.metrics["trials_finished"] == 6
    assert summary.data.metrics["hypervolume"] > 0
    assert summary.data.metrics["best/val_accuracy"] == max(float(row["val_accuracy"]) for row in table.values())
    assert summary.data.metrics["best/macs"] == min(float(row["macs"]) for row in table.values())
    assert "front.html" in text
    for name in ("front.csv", "front.png", "front.html", "study.yaml", "environment.json"):
        assert (tmp_path / "s" / name).stat().st_size > 0


def test_summary_run_carries_the_files_and_the_hypervolume_over_time(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    run(make(tmp_path, "plain", {"rate": [0.1, 0.5, 0.9]}))
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (summary,) = runs(tmp_path, "study")
    names = {item.path for item in client.list_artifacts(summary.info.run_id)}
    assert names == {
        "study.yaml", "environment.json", "trials.csv", "front.csv", "front.json", "front.png", "front.html",
    }  # fmt: skip
    history = client.get_metric_history(summary.info.run_id, "hypervolume")
    steps = [m.step for m in history]
    assert steps == sorted(set(steps))  # trials that end within half a second of one another share a look at the front
    assert steps[-1] == 3
    volumes = [m.value for m in history]
    assert volumes == sorted(volumes)


def test_epochs_of_a_plain_trainable_are_recorded(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    status, _ = run(make(tmp_path, "reporting", {"rate": [0.5]}))
    assert status == 0
    (only,) = runs(tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    history = client.get_metric_history(only.info.run_id, "val_accuracy")
    assert {(m.step, m.value) for m in history} == {(1, 0.25), (2, 0.5), (3, 0.75)}
    assert only.data.metrics["best/val_accuracy"] == 0.75
    assert rows(tmp_path)[0]["val_accuracy"] == "0.75"


def test_searching_again_runs_nothing_twice_and_a_new_rate_only_its_cells(tmp_path: Path) -> None:
    run(make(tmp_path, "plain", {"rate": [0.1, 0.5]}))
    before = (tmp_path / "s" / "trials.jsonl").read_bytes()
    run(make(tmp_path, "plain", {"rate": [0.1, 0.5]}))
    assert (tmp_path / "s" / "trials.jsonl").read_bytes() == before
    run(make(tmp_path, "plain", {"rate": [0.1, 0.5, 0.7]}))
    after = (tmp_path / "s" / "trials.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b'"kind": "trial"') == 3
    assert len(runs(tmp_path)) == 3
    assert len(runs(tmp_path, "study")) == 1


def test_other_settings_are_another_question(tmp_path: Path) -> None:
    run(make(tmp_path, "plain", {"rate": [0.1]}))
    run(make(tmp_path, "plain", {"rate": [0.1]}, settings={"train": {"epochs": 3}}))
    assert len(rows(tmp_path)) == 1
    assert len(Journal(tmp_path / "s" / "trials.jsonl").records) == 2
    assert len(runs(tmp_path)) == 2


def test_fresh_begins_anew_and_deletes_nothing(tmp_path: Path) -> None:
    config = make(tmp_path, "plain", {"rate": [0.1, 0.5]})
    run(config)
    run(config, fresh=True)
    assert len(rows(tmp_path)) == 2
    old = list((tmp_path / "s").glob("trials-until-*.jsonl"))
    assert len(old) == 1
    assert len(Journal(old[0]).records) == 2
    tags = [r.data.tags.get("rssearch.superseded") for r in runs(tmp_path)]
    assert sorted(tags, key=str) == [None, None, "true", "true"]
    run(config)
    assert len(runs(tmp_path)) == 4


def test_failures_have_their_reasons_and_the_study_goes_on(tmp_path: Path) -> None:
    config = make(tmp_path, "failing", {"mode": ["raises", "diverges", "nan", "lacks", "works"]})
    status, text = run(config)
    assert status == 1
    reasons = {row["mode"]: (row["status"], row["reason"]) for row in rows(tmp_path)}
    assert reasons["raises"] == ("failed", "ValueError: a bug in the trial")
    assert reasons["diverges"] == ("failed", "the loss is nan in epoch 2")
    assert reasons["nan"][0] == reasons["lacks"][0] == "failed"
    assert "an objective is missing or not finite: val_accuracy = nan" in reasons["nan"][1]
    assert reasons["works"] == ("finished", "")
    assert "4 trials failed:" in text
    found = {r.data.params["mode"]: r for r in runs(tmp_path)}
    assert found["raises"].info.status == "FAILED"
    assert found["raises"].data.tags["rssearch.reason"] == "ValueError: a bug in the trial"
    assert found["works"].info.status == "FINISHED"


def test_a_dead_worker_is_replaced_and_its_trial_goes_on(tmp_path: Path) -> None:
    status, text = run(make(tmp_path, "dying", {"deaths": [0, 2]}, resources={"max_failures": 3}))
    assert status == 0
    values = {row["deaths"]: float(row["val_accuracy"]) for row in rows(tmp_path)}
    assert values == {"0": 0.0, "2": 2.0}
    assert text.count("its worker died (The actor died unexpectedly") == 2
    assert len(runs(tmp_path)) == 2


def test_a_worker_that_always_dies_fails_its_trial_alone(tmp_path: Path) -> None:
    status, _ = run(make(tmp_path, "dying", {"deaths": [0, 9]}, resources={"max_failures": 1}))
    assert status == 1
    assert {row["deaths"]: row["status"] for row in rows(tmp_path)} == {"0": "finished", "9": "failed"}
    reason = next(row["reason"] for row in rows(tmp_path) if row["deaths"] == "9")
    assert reason.startswith("its worker died: The actor died unexpectedly")


GROUPED = {"group": ["a", "b"], "rate": [0.2, 0.6]}


def test_hooks_are_called_on_their_way(tmp_path: Path) -> None:
    config = make(tmp_path, "grouped", GROUPED, search={"constraints": {"macs_ratio": {"max": 0.5}}})
    status, _ = run(config)
    assert status == 0
    table = rows(tmp_path)
    assert {(row["group"], row["rate"]): row["status"] for row in table} == {
        ("a", "0.2"): "infeasible", ("a", "0.6"): "finished", ("b", "0.2"): "infeasible", ("b", "0.6"): "finished",
    }  # fmt: skip
    assert {row["test_accuracy"] for row in table if row["status"] == "finished"} == {"0.25"}
    assert {row["test_accuracy"] for row in table if row["status"] == "infeasible"} == {""}
    infeasible = next(row for row in table if row["status"] == "infeasible")
    assert (infeasible["macs"], infeasible["val_accuracy"]) == ("80.0", "")
    assert len(runs(tmp_path, "baseline")) == 2
    assert all(
        r.data.metrics.get("test_accuracy") == 0.25 for r in runs(tmp_path) if r.data.tags["rssearch.pareto"] == "true"
    )
    assert not (tmp_path / "s" / "predictions").exists()


def test_baselines_trials_and_measurements_share_their_worker(tmp_path: Path) -> None:
    log = tmp_path / "signed"
    assert run(make(tmp_path, "grouped", GROUPED, settings={"options": {"signed": str(log)}}))[0] == 0
    called = [line.split() for line in log.read_text().splitlines()]
    assert [function for function, _ in called] == ["prepare"] * 2 + ["grouped"] * 4 + ["measure"] * 4
    assert len({process for _, process in called}) == 1


def test_pictures_of_the_front_are_kept_embedded_and_attached(tmp_path: Path) -> None:
    from mlflow.artifacts import load_text

    space = {"group": ["a"], "rate": [0.2, 0.4, 0.6], "picture": ["drawn"]}
    config = make(tmp_path, "grouped", space)
    limited = make(tmp_path, "grouped", space, search={"constraints": {"macs": {"max": 70}}})

    def kept() -> set[str]:
        return {path.read_text() for path in (tmp_path / "s" / "predictions").iterdir()}

    def embedded() -> int:
        return (tmp_path / "s" / "front.html").read_text().count("<figure>")

    assert run(config)[0] == 0
    assert kept() == {"drawn 0.2", "drawn 0.4", "drawn 0.6"}
    assert embedded() == 3
    for found in runs(tmp_path):
        assert load_text(f"{found.info.artifact_uri}/predictions.png") == f"drawn {found.data.params['rate']}"
    run(limited)  # a picture leaves the study with its trial the front, and comes back from the store
    assert kept() == {"drawn 0.4", "drawn 0.6"}
    assert embedded() == 2
    _, text = run(config)
    assert "measuring" not in text
    assert kept() == {"drawn 0.2", "drawn 0.4", "drawn 0.6"}


def test_baselines_are_made_once_and_shared_by_studies(tmp_path: Path) -> None:
    run(make(tmp_path, "grouped", {"group": ["a"], "rate": [0.2]}))
    stamp = next((tmp_path / "store" / "toys" / "a").iterdir()).stat().st_mtime_ns
    config = make(tmp_path, "grouped", {"group": ["a"], "rate": [0.2, 0.6]})
    status, _ = run(config.model_copy(update={"study": "other"}))
    assert status == 0
    assert next((tmp_path / "store" / "toys" / "a").iterdir()).stat().st_mtime_ns == stamp


def test_a_failed_baseline_fails_its_trials_alone(tmp_path: Path) -> None:
    status, text = run(make(tmp_path, "grouped", {"group": ["a", "bad"], "rate": [0.2, 0.6]}))
    assert status == 1
    assert text.count("the loss is nan in epoch 1") == 2  # when it fails, and once at the end for both trials
    assert "2 trials failed:" in text
    table = rows(tmp_path)
    assert {row["group"]: row["status"] for row in table} == {"a": "finished", "bad": "failed"}
    assert {row["reason"] for row in table if row["group"] == "bad"} == {
        "its baseline failed: the loss is nan in epoch 1"
    }


def test_a_small_budget_prepares_nothing_that_no_trial_needs(tmp_path: Path) -> None:
    space = {"group": ["a", "b", "c", "d"], "rate": [0.2]}
    status, text = run(make(tmp_path, "grouped", space, search={"sampler": "random", "trials": 2}))
    assert status == 0
    assert "baselines and scores" not in text
    assert len(list((tmp_path / "store" / "toys").glob("*/manifest.json"))) == 2


def test_what_depends_on_a_range_is_left_to_the_trials(tmp_path: Path) -> None:
    space = {
        "dataset": ["synthetic_scenes"],
        "model": ["resnet20"],
        "method": ["l1", "channel_nas"],
        "macs_ratio": [0.5],
        "nas.strength": {"low": 1.0, "high": 9.0},
    }
    document = {"study": "s", "trial": "trials.prune:run", "space": space, "storage": str(tmp_path)}
    definition = StudyDefinition(parse_study(document | {"search": {"sampler": "random", "trials": 9}}))
    assert len(definition.preparations(definition.points)) == 3  # a baseline, and a search for each end of the range
    assert [dict(p.parts) for p in definition.sure_preparations()] == [{"baselines": 1, "scores": 1}]
    fixed = parse_study(document | {"space": space | {"nas.strength": [1.0, 9.0]}})
    assert len(StudyDefinition(fixed).sure_preparations()) == 3


def test_plan_counts_and_trains_nothing(tmp_path: Path) -> None:
    config = make(tmp_path, "grouped", GROUPED, search={"constraints": {"macs_ratio": {"max": 0.5}}})
    plan = study.plan(config)
    assert (plan.trials, plan.finished, plan.baselines, plan.baselines_ready) == (4, 0, 2, 0)
    assert plan.macs == (40, 80)
    assert plan.infeasible == 2
    assert not (tmp_path / "s").exists()
    run(config)
    plan = study.plan(config)
    assert (plan.finished, plan.baselines_ready) == (2, 2)
    assert plan.hours is not None
    assert math.isfinite(plan.hours)


def test_a_bad_point_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'refused' is not allowed"):
        run(make(tmp_path / "r", "grouped", {"group": ["a", "refused"], "rate": [0.1]}))
    assert not (tmp_path / "r").exists()


def test_two_drivers_do_not_run_one_study(tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "s").mkdir()
    with FileLock(tmp_path / "s" / ".lock"), pytest.raises(InputError, match="being run by another process"):
        run(make(tmp_path, "plain", {"rate": [0.1]}))


def test_optuna_proposes_within_the_budget(tmp_path: Path) -> None:
    space = {"rate": {"low": 0.1, "high": 0.9}, "seed": {"low": 0, "high": 5}}
    config = make(tmp_path, "plain", space, search={"sampler": "nsga2", "trials": 12}, resources={})
    status, _ = run(config)
    assert status == 0
    assert len({row["key"] for row in rows(tmp_path)}) == 12
    run(config.model_copy(update={"search": config.search.model_copy(update={"trials": 15})}))
    assert len({row["key"] for row in rows(tmp_path)}) == 15
    assert len(runs(tmp_path)) == 15


def test_mlflow_away_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = make(tmp_path, "plain", {"rate": [0.1, 0.5]}, tracking_uri="http://127.0.0.1:9")  # nobody listens
    status, text = run(config)
    assert status == 0
    assert "MLflow was away: 2 runs wait" in text
    assert len(rows(tmp_path)) == 2
    back = config.model_copy(update={"tracking_uri": None})
    status, text = run(back)
    assert status == 0
    assert "MLflow was away" not in text
    found = runs(tmp_path)
    assert len(found) == 2
    assert {r.data.metrics["val_accuracy"] for r in found} == {1 - 0.1**2, 1 - 0.5**2}


@pytest.mark.parametrize("then", ["ends", "saves", "lasts"])
def test_a_storage_that_is_deleted_ends_its_study(tmp_path: Path, then: str) -> None:
    storage = tmp_path / "results"
    config = make(storage, "deleting", {"then": [then], "rate": [0.1, 0.2]}, resources={"max_concurrent": 1})
    status, text = run(config)
    assert status == 1
    assert f"{storage / 's'} was deleted, moved or replaced while the study ran" in text
    assert not storage.exists()


def test_a_damaged_line_of_the_journal_costs_its_trial_alone(tmp_path: Path) -> None:
    config = make(tmp_path, "plain", {"rate": [0.1, 0.2, 0.3]})
    path = tmp_path / "s" / "trials.jsonl"
    path.parent.mkdir()
    keys = {rate: StudyDefinition(config).key({"rate": rate}) for rate in (0.1, 0.2, 0.3)}
    known = [ended(keys[r], point={"rate": r}, measured={"test_accuracy": 0.25}) for r in (0.1, 0.2, 0.3)]
    lines = [json.dumps(record).encode() + b"\n" for record in (*known, {"key": keys[0.2], "measured": {"t": 1}})]
    lines[1] = lines[1][:100] + b"\n"
    path.write_bytes(b"".join(lines))
    assert run(config)[0] == 0
    written = path.read_bytes().splitlines(keepends=True)
    assert written[:4] == lines
    assert [json.loads(line)["key"] for line in written[4:]] == [keys[0.2], keys[0.2]]  # it ran, and was measured
    assert sorted(row["rate"] for row in rows(tmp_path)) == ["0.1", "0.2", "0.3"]
    assert len(runs(tmp_path)) == 3


def test_no_secret_of_a_uri_is_printed_or_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a server that is away, of a trial that failed, and of an option."""
    config = make(
        tmp_path,
        "quoting",
        {"where": ["https://space-token@host/x"]},
        tracking_uri="http://ada:tracking-password@127.0.0.1:9/?key=tracking-key",  # nobody listens
        settings={"options": {"hook": "https://hook-token@host/x", "size": 3}},
    )
    status, text = run(config)
    assert status == 1
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"study.yaml", "environment.json", "front.html", "trials.csv", "trials.jsonl"} <= {p.name for p in written}
    everywhere = {"console": text, "log": caplog.text} | {
        p.name: b.decode(errors="replace") for p, b in written.items()
    }
    for secret in ("tracking-password", "tracking-key", "hook-token"):
        assert [name for name, content in everywhere.items() if secret in content] == []
    # What a study resumes from has its points as they are; nobody is shown that file.
    assert [name for name, content in everywhere.items() if "space-token" in content] == ["trials.jsonl"]
    (row,) = rows(tmp_path)
    assert (row["where"], row["reason"]) == (
        "https://***@host/x",
        "ValueError: https://***@host/x/job: refused for '***'",
    )
    document = yaml.safe_load((tmp_path / "s" / "study.yaml").read_text())
    assert document["tracking_uri"] == "http://***@127.0.0.1:9/?***"
    assert document["settings"]["options"] == {"hook": "https://***@host/x", "size": 3}


@pytest.mark.slow
def test_memory_does_not_grow_over_100_trials(tmp_path: Path) -> None:
    config = make(tmp_path, "hungry", {"index": {"low": 0, "high": 99}}, resources={"max_concurrent": 1})
    status, _ = run(config)
    assert status == 0
    table = sorted(rows(tmp_path), key=lambda row: int(float(row["macs"])))
    used = [float(row["rss"]) for row in table]
    assert len(used) == 100
    # The allocator gives memory back in its own time, so single values scatter by 100 MiB. Each trial takes 32 MiB:
    # keeping a tenth of it would make a difference of 192 MiB between the two medians.
    assert median(used[70:]) - median(used[10:40]) < 150 * 2**20
