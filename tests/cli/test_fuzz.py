"""Whatever stands in a study's YAML or behind an option: it is understood, or refused in one short message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rssearch.config.loading import parse_study
from rssearch.trials import architecture
from tests.support.commands import Result, run, study_with

RECORD: dict[str, Any] = {"status": "finished", "title": "t", "started": 1.0, "ended": 2.0, "reason": None, "notes": []}

# As they stand in a YAML or on a command line.
NUMBERS = [
    *(
        "1e999",
        "-1e999",
        ".inf",
        ".nan",
        "-0.0",
        "1e-999",
        "9" * 25,
        "9" * 5000,
        "-" + "9" * 5000,
        "9223372036854775807",
    ),
    *("010", "1:30", "1_000", "0x10", "0b1", "0o17", "yes", "no", "~", "1.5", "-1", "0", "1e3", "3.0", "'3'", "+"),
]
SCALARS = [
    *(
        "2020-13-45",
        "2020-01-01",
        "12:61:61",
        "!!timestamp x",
        "!!int x",
        "!!bool x",
        "!!float x",
        "!!binary x",
        "=",
        "<<",
    ),
    *(
        "!!python/object/apply:os.system [ls]",
        "!!python/name:os.system",
        "!x",
        "!",
        "&a *a",
        "*a",
        "&a [*a]",
        "&a {b: *a}",
    ),
    *(
        "[",
        "{",
        "'",
        '"',
        "]",
        "- - - -",
        "? ?",
        "%YAML 9",
        "---",
        "...",
        "# x",
        "|",
        ">",
        "\t",
        "a: b: c",
        "[1, [2, [3]]]",
    ),
    *(
        '"\\0"',
        '"\\ud800"',
        '"\\e[31m"',
        '"\\x"',
        "[red]x[/red]",
        "\u202e",
        "x" * 5000,
        "[" * 2000,
        "[" + "x, " * 3000 + "]",
    ),
    *(
        "{low: 0, high: 100000000}",
        "{low: 010, high: 1:30}",
        "{low: 0.0, high: 1.0}",
        "{low: 1, high: 1e999}",
        "{}",
        "[]",
    ),
    *("{low: -1e308, high: 1e308}", "{low: 0, high: 1, step: 1e-300}", "[yes, 1, 1.0, true]", "{1: 2}", "{yes: 2}"),
    *(
        "{<<: 3}",
        "{a: 1, a: 2}",
        "\ufeff",
        "\x85",
        "\x00",
        "\x1b[2J",
        "\ud800",
        "os:system",
        "tests.support.toy:plain",
        "null",
    ),
]
PATHS = [
    *("~nobody-here/x", "/proc/x", "/dev/null", "/dev/null/x", "/dev/full", "my.yaml", "my.yaml/x", "loop", "loop/x"),
    *("a" * 300, "/".join(["a" * 200] * 30), "x\0y", "\x1b[31mx", "s4://b/x", "s3://", "file://", "://"),
    *("mlflow.db", "store", "mlartifacts", "mlflow.db-wal", "MLflow.db", "../s", "[red]", "é"),
]
MODELS = [
    "micronet:" + "9" * 5000,
    "micronet:1,1/1",
    "unet",
    "torchvision:x",
    "timm:x",
    "resnet20:x",
    "a.b:c",
    ":",
    "x" * 300,
]


def _keys(plain: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in plain.items():
        yield before + name
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{name}.")


KEYS = sorted({*_keys(parse_study(study_with({})).resolved()), "space.seed", "space.train.lr", "settings.split.x"})
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from([*SCALARS, *PATHS, *MODELS]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=20),
    st.recursive(
        st.sampled_from(NUMBERS), lambda x: st.lists(x, max_size=3).map(lambda v: f"[{', '.join(v)}]"), max_leaves=5
    ),
)
ASSIGNMENTS = st.tuples(st.sampled_from(KEYS), VALUES).map(lambda pair: ["plan", "my.yaml", "--set", "=".join(pair)])
OPTIONS = st.one_of(
    st.tuples(
        st.sampled_from(
            [
                *(
                    "plan my.yaml --storage",
                    "plan my.yaml --data-root",
                    "plan",
                    "front",
                    "front s --storage",
                    "ui --storage",
                ),
                *("front s --format csv --out", "compare s s --format json --out", "export s --out", "data verify"),
                *("data verify --data-root", "data verify eurosat --data-root", "search my.yaml --storage", "papers"),
            ]
        ),
        st.sampled_from(PATHS),
    ),
    st.tuples(
        st.sampled_from(
            [
                *(
                    "export s --out m --trial",
                    "export s --out m --best",
                    "front s --format",
                    "ui --port",
                    "register s --name",
                ),
                *(
                    "plan my.yaml --set",
                    "compare s",
                    "data fetch",
                    "papers",
                    "data verify",
                    "plan my.yaml",
                    "search --nope",
                ),
            ]
        ),
        VALUES,
    ),
).map(lambda pair: [*pair[0].split(), pair[1]])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study, and the record of another. Steps of a training are not timed."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "my.yaml").write_text(yaml.safe_dump(study_with({})))
    (folder / "loop").symlink_to(folder / "loop")
    study = folder / "results" / "s"
    study.mkdir(parents=True)
    (study / "study.yaml").write_text(yaml.safe_dump(study_with({})))
    point = {"dataset": "synthetic_scenes", "model": "resnet20", "method": "l1", "rate": 0.5}
    metrics = {"val_accuracy": 0.5, "macs": 1000}
    record = RECORD | {"key": "0" * 16, "point": point, "metrics": metrics}
    (study / "trials.jsonl").write_text(json.dumps(record) + "\n")
    (study / "trials.csv").write_text(f"key,status\n{'0' * 16},finished\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        patch.setattr(architecture, "_seconds_per_image", lambda *_: 1e-3)
        patch.setattr("rssearch.backend.tune.connected", _no_ray)
        yield folder


def _no_ray(*_: Any, **__: Any) -> Any:
    from rssearch.errors import InputError

    raise InputError("as far as Ray")


def _fits(result: Result) -> None:
    assert result.status in (0, 2), result
    assert "Traceback" not in result.out + result.err
    assert not {"\x1b", "\x00", "\x9b", "\u202e"} & {*result.err, *result.out}
    assert len(result.err) < 5000
    if result.status == 2:
        assert result.err


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def fuzz(cases: int) -> settings:
    """The same cases each time; 500 in all."""
    unhealthy = list(HealthCheck)  # such as a fixture that all cases share
    return settings(max_examples=cases, derandomize=True, deadline=None, database=None, suppress_health_check=unhealthy)


@fuzz(300)
@given(st.one_of(ASSIGNMENTS, ASSIGNMENTS, OPTIONS))
def test_options(place: Path, arguments: list[str]) -> None:
    before = _files(place)
    result = run(*arguments)
    _fits(result)
    if result.status == 2:
        assert _files(place) == before


@fuzz(200)
@given(st.data())
def test_files(place: Path, data: st.DataObject) -> None:
    text = (place / "my.yaml").read_text()
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.sampled_from([begin, begin + 1, text.find("\n", begin) if "\n" in text[begin:] else len(text)]))
    inserted = data.draw(VALUES | st.sampled_from(["\n", ": ", "- ", "  ", ", "]))
    content = (text[:begin] + inserted + text[end:]).encode("utf-8", "surrogatepass")
    content = data.draw(st.sampled_from([content, content, content, content[:begin], b"\xff" + content]))
    (place / "odd.yaml").write_bytes(content)
    before = _files(place)
    _fits(run("plan", "odd.yaml"))
    assert _files(place) == before
