"""rssearch.report.recorded: a study that has been run is read back, and one of its trials chosen."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from rssearch.errors import InputError
from rssearch.report.recorded import Recorded, choose, read
from rssearch.storage.journal import Journal
from rssearch.storage.records import TrialRecord
from tests.support.commands import refused, run
from tests.support.records import ended

OBJECTIVES: dict[str, Any] = {"val_accuracy": "max", "macs": "min"}
# Accuracy and MACs: a front of four with its knee at k3, and one trial that is dominated.
POINTS = {
    "k1aa": (0.60, 10_000_000),
    "k2aa": (0.70, 19_000_000),
    "k3bb": (0.90, 21_000_000),
    "k4bb": (0.92, 90_000_000),
    "k5cc": (0.65, 50_000_000),
}


def _trial(key: str, accuracy: float, macs: int, **more: Any) -> dict[str, Any]:
    about = {"point": {"dataset": more.pop("dataset", "lakes"), "rate": 0.5}}
    return ended(key, **about | {"metrics": {"val_accuracy": accuracy, "macs": macs}} | more)


def _write(storage: Path, records: list[dict[str, Any]], *, listed: list[str] | None = None, **search: Any) -> None:
    """A study's folder as a search leaves it."""
    folder = storage / "scenes"
    folder.mkdir(parents=True)
    document = {"study": "scenes", "trial": "tests.support.toy:plain", "space": {"rate": [0.5]}, "search": search}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    journal = Journal(folder / "trials.jsonl")
    for record in records:
        journal.add(TrialRecord.from_json(record))
    with (folder / "trials.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["key", "status"])
        keys = [r["key"] for r in records] if listed is None else listed
        writer.writerows([key, "finished"] for key in keys)


@pytest.fixture
def found(tmp_path: Path) -> Recorded:
    _write(tmp_path, [_trial(key, *values) for key, values in POINTS.items()])
    return read("scenes", tmp_path)


def test_rows_are_those_of_the_last_session(tmp_path: Path) -> None:
    records = [
        _trial("old", 0.5, 1),
        _trial("a", 0.6, 2, measured={"test_accuracy": 0.55}),
        ended("baseline-x", kind="baseline", point={}, metrics={}),
        _trial("b", 0.7, 3, status="failed", reason="the loss is nan", metrics={}),
    ]
    _write(tmp_path, records, listed=["b", "a", "not-in-the-journal"], constraints={"macs": {"max": 5}})
    found = read("scenes", tmp_path)
    assert [row["key"] for row in found.rows] == ["b", "a"]
    assert found.rows[1]["test_accuracy"] == 0.55
    assert found.rows[0]["reason"] == "the loss is nan"
    assert (found.study, found.folder, found.storage) == ("scenes", tmp_path / "scenes", tmp_path)
    assert dict(found.objectives) == OBJECTIVES
    assert found.constraints["macs"].max == 5
    assert [row["key"] for row in found.front()[0].members] == ["a"]


def test_a_study_that_has_not_ended_a_trial_has_no_rows(tmp_path: Path) -> None:
    _write(tmp_path, [])
    (tmp_path / "scenes" / "trials.csv").unlink()
    found = read("scenes", tmp_path)
    assert found.rows == []
    with pytest.raises(InputError, match="study scenes has no finished trial on its front yet"):
        choose(found)


def test_a_damaged_list_of_trials_is_named(tmp_path: Path) -> None:
    _write(tmp_path, [_trial("a", 0.6, 2)])
    listed = tmp_path / "scenes" / "trials.csv"
    listed.write_bytes(b'key\n"' + b"x" * 200_000 + b"\n")
    with pytest.raises(InputError, match=r"trials.csv is damaged .*; `rssearch search` writes it again"):
        read("scenes", tmp_path)
    listed.write_bytes(b"key\na\n\xff\0\n")
    assert [row["key"] for row in read("scenes", tmp_path).rows] == ["a"]


@pytest.mark.parametrize("content", [None, b"", b"noise\n", b"key\nunknown\n"])
def test_a_list_of_trials_that_names_none_costs_no_trial(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    _write(tmp_path, [_trial("a", 0.6, 2), _trial("b", 0.7, 3)])
    listed = tmp_path / "scenes" / "trials.csv"
    listed.unlink() if content is None else listed.write_bytes(content)
    assert [row["key"] for row in read("scenes", tmp_path).rows] == ["a", "b"]
    assert "is not there or damaged: these are all 2 trials of the journal" in caplog.text


def test_trials_that_ran_or_are_listed_twice_are_no_rows(tmp_path: Path) -> None:
    running = {"kind": "running", "key": "b", "point": {"rate": 0.5}, "history": []}
    _write(tmp_path, [_trial("a", 0.6, 2), running], listed=["a", "b", "a"])
    assert [row["key"] for row in read("scenes", tmp_path).rows] == ["a"]


def test_no_metric_says_which_trial_it_is_or_how_it_ended(tmp_path: Path) -> None:
    record = _trial("a", 0.6, 2, measured={"key": ["x"], "status": "failed", "test_accuracy": 0.5})
    _write(tmp_path, [record | {"metrics": record["metrics"] | {"reason": "none"}}])
    (row,) = read("scenes", tmp_path).rows
    assert (row["key"], row["status"], row["reason"], row["test_accuracy"]) == ("a", "finished", None, 0.5)


def test_a_study_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no study 'scenes' in .*; there are no studies"):
        read("scenes", tmp_path)
    _write(tmp_path, [])
    with pytest.raises(InputError, match=r"there is no study 'scene' in .*; there are: scenes"):
        read("scene", tmp_path)


@pytest.mark.parametrize(
    ("best", "key"),
    [
        ("knee", "k3bb"),
        ("accuracy", "k4bb"),
        ("macs<=20e6", "k2aa"),
        ("macs<=20M", "k2aa"),
        ("macs<=20000000", "k2aa"),
        ("macs <= 0.021 G", "k3bb"),
        ("macs<=2.1e7", "k3bb"),
        ("macs<=2.1e+7", "k3bb"),
        ("macs<=10000K", "k1aa"),
        ("macs<=1G", "k4bb"),
        ("macs<=10000k", "k1aa"),
        ("val_accuracy>=0.65", "k2aa"),
        ("val_accuracy>=0.9", "k3bb"),
        ("val_accuracy >= 9.1e-1", "k4bb"),
        ("macs>=20M", "k4bb"),
        ("val_accuracy<=0.8", "k1aa"),
        ("rate<=0.5", "k4bb"),
    ],
)
def test_the_best_of_the_front(found: Recorded, best: str, key: str) -> None:
    assert choose(found, best=best)["key"] == key


@pytest.mark.parametrize(
    "best",
    ["", "kneee", "macs", "macs<20M", "macs<=", "macs<=1.2.3", "macs<=20T", "macs<=1e999", "<=3", "macs<=a", "1<=2"],
)
def test_a_wish_that_is_not_understood(found: Recorded, best: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(found, best=best)
    assert str(caught.value) == (
        f"--best {best}: must be knee, accuracy, or a bound of a metric such as 'macs<=20M', 'latency_ms<=5' or "
        "'val_miou>=0.6'"
    )


@pytest.mark.parametrize(
    ("best", "message"),
    [
        ("macs<=9.9M", "no member of the front is that small; the smallest macs is 10,000,000"),
        ("macs<=-5", "no member of the front is that small"),
        ("val_accuracy>=0.93", "no member of the front is that large; the largest val_accuracy is 0.92"),
        (
            "latency_ms<=5",
            "no member of the front has the metric latency_ms. There are: macs, rate, val_accuracy.",
        ),
        ("val_acuracy>=0.5", "has the metric val_acuracy. Did you mean 'val_accuracy'? There are: macs, rate, val"),
        ("status<=5", "no member of the front has the metric status."),
    ],
)
def test_a_bound_that_no_member_keeps(found: Recorded, best: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        choose(found, best=best)
    assert str(caught.value).startswith(f"--best {best}: ")
    assert message in str(caught.value)


def test_a_bound_of_what_is_no_objective(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    latencies = {"k1aa": 9.0, "k2aa": 3.5, "k3bb": 4.5}
    records = [
        _trial(key, *values, measured={"latency_ms": latencies[key]} if key in latencies else None)
        for key, values in POINTS.items()
    ]
    _write(tmp_path, records)
    found = read("scenes", tmp_path)
    assert choose(found, best="latency_ms<=5")["key"] == "k3bb"  # k4bb is better, but was not timed
    assert "1 of the 4 members of the front have no latency_ms, and are not chosen" in caplog.text
    assert choose(found, best="latency_ms<=4")["key"] == "k2aa"
    with pytest.raises(InputError, match=r"the smallest latency_ms is 3\.5"):
        choose(found, best="latency_ms<=1")


def test_of_several_other_objectives_the_quality_decides(tmp_path: Path) -> None:
    _write(
        tmp_path,
        [
            _trial(key, *v, metrics={"val_accuracy": v[0], "macs": v[1], "params": v[1] // 10})
            for key, v in POINTS.items()
        ],
        objectives={"params": "min", "val_accuracy": "max", "macs": "min"},
    )
    found = read("scenes", tmp_path)
    assert choose(found, best="params<=2M")["key"] == "k2aa"
    assert choose(found, best="val_accuracy>=0.7")["key"] == "k2aa"


def test_a_bound_of_the_only_objective(tmp_path: Path) -> None:
    _write(tmp_path, [_trial(key, *v) for key, v in POINTS.items()], objectives={"val_accuracy": "max"})
    assert choose(read("scenes", tmp_path), best="val_accuracy>=0.9")["key"] == "k4bb"


def test_accuracy_is_the_objective_that_is_to_be_large(tmp_path: Path) -> None:
    _write(
        tmp_path,
        [_trial(key, *values) for key, values in POINTS.items()],
        objectives={"macs": "min", "val_accuracy": "max"},
    )
    found = read("scenes", tmp_path)
    assert choose(found, best="accuracy")["key"] == "k4bb"
    assert choose(found, best="macs<=20M")["key"] == "k2aa"


def test_without_such_an_objective_it_is_the_first(tmp_path: Path) -> None:
    _write(tmp_path, [_trial(key, *values) for key, values in POINTS.items()], objectives={"macs": "min"})
    assert choose(read("scenes", tmp_path), best="accuracy")["key"] == "k1aa"


def test_a_limit_needs_what_it_limits(tmp_path: Path) -> None:
    _write(tmp_path, [_trial("a", 0.5, 1, metrics={"val_accuracy": 0.5})], objectives={"val_accuracy": "max"})
    with pytest.raises(InputError, match=r"has the metric macs\. There are: rate, val_accuracy"):
        choose(read("scenes", tmp_path), best="macs<=1M")


@pytest.mark.parametrize(("prefix", "key"), [("k5", "k5cc"), ("k3bb", "k3bb")])
def test_a_trial_by_its_key(found: Recorded, prefix: str, key: str) -> None:
    assert choose(found, trial=prefix, best="accuracy")["key"] == key


def test_a_key_that_names_none_or_several(found: Recorded) -> None:
    with pytest.raises(
        InputError, match="--trial zz: none of the finished trials of scenes begin so; keys: k1aa, k2aa, k3bb, k4bb"
    ):
        choose(found, trial="zz")
    with pytest.raises(InputError, match="--trial k: 5 finished trials of scenes begin so; keys: k1aa"):
        choose(found, trial="k")


def test_a_failed_trial_is_not_chosen(tmp_path: Path) -> None:
    _write(tmp_path, [_trial("a1", 0.5, 1), _trial("a2", 0.5, 1, status="failed", metrics={})])
    assert choose(read("scenes", tmp_path), trial="a")["key"] == "a1"


def test_fronts_of_several_datasets_need_a_key(tmp_path: Path) -> None:
    _write(tmp_path, [_trial("a", 0.5, 1, dataset="lakes"), _trial("b", 0.6, 2, dataset="roads")])
    found = read("scenes", tmp_path)
    with pytest.raises(
        InputError, match="study scenes has a front for each of lakes, roads: name one trial with --trial KEY"
    ):
        choose(found)
    assert choose(found, trial="b")["dataset"] == "roads"


def test_a_dataset_without_a_member_is_no_choice(tmp_path: Path) -> None:
    failed = _trial("b", 0.6, 2, dataset="roads", status="failed", metrics={})
    _write(tmp_path, [_trial("a", 0.5, 1, dataset="lakes"), failed])
    assert choose(read("scenes", tmp_path))["key"] == "a"


# the commands that read a study


@pytest.mark.usefixtures("found")
def test_front_prints_and_writes(tmp_path: Path) -> None:
    result = run("front", "scenes", "--storage", str(tmp_path))
    assert (result.status, result.err) == (0, "")
    assert "k3bb" in result.out
    assert "k5cc" not in result.out
    listed = run("front", "scenes", "--storage", str(tmp_path), "--format", "csv").out
    assert [row["key"] for row in csv.DictReader(listed.splitlines())] == ["k1aa", "k2aa", "k3bb", "k4bb"]
    written = run("front", "scenes", "--storage", str(tmp_path), "--format", "html", "--out", str(tmp_path / "o"))
    assert written.out == f"{tmp_path}/o/front.html\n"
    assert (tmp_path / "o" / "front.html").is_file()


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["front", "scenes", "--format", "pdf"], "unknown format 'pdf'"),
        (["front", "scene"], "there are: scenes"),
        (["export", "scenes", "--out", "m", "--best", "best"], "--best best: must be knee, accuracy, or a bound of a"),
        (
            ["export", "scenes", "--out", "m", "--trial", "zz"],
            "--trial zz: none of the finished trials of scenes begin so",
        ),
        (["export", "scenes", "--out", "m"], "trial k3bb: its weights are not in"),
        (["export", "scenes", "--out", "."], "--out .: is there already"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments, "--storage", str(tmp_path)), message)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
