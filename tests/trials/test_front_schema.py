"""docs/front_schema.md knows every field of files that real trials leave, and its type."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rssearch.config.schema import Bound
from rssearch.config.settings import Settings
from rssearch.report import files as report
from rssearch.storage.journal import flat
from rssearch.trial.session import Context, Session
from rssearch.trials import micronet, prune
from tests.support.records import record
from tests.trials.test_segmentation import data_root as scene_root
from tests.trials.test_segmentation import settings as scene_settings

__all__ = ["scene_root", "scene_settings"]  # fixtures

PAGE = Path(__file__).parents[2] / "docs" / "front_schema.md"
ALLOWED: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "mapping": (dict,),
    "list": (list,),
    "list of text": (list,),
    "list of mappings": (list,),
    "any": (str, int, float, bool, list, dict),
}
Table = Mapping[str, str]


def section(title: str) -> Table:
    """Field -> type, of the table below a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"# {title}\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.startswith("| `")]
    return {name: row[1] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


TRIAL, MEAN = section("Fields of a trial"), section("Fields of a configuration")
DOCUMENT, FRONT, MEANS = section("Fields of front.json"), section("Objects of `fronts`"), section("Objects of `means`")


def type_of(field: str, table: Table) -> str:
    """The documented type of a field; `<word>` in a documented name stands for any text."""
    if field in table:
        return table[field]
    patterns = {
        re.sub(r"<[^>]+>", "(.+)", name.replace(".", r"\.")): kind for name, kind in table.items() if "<" in name
    }
    fits = [kind for pattern, kind in patterns.items() if re.fullmatch(pattern, field)]
    assert fits, f"{field} is not documented"
    return fits[0]


def check(values: Mapping[str, Any], table: Table, dimensions: tuple[str, ...] = ()) -> None:
    """Every field is documented, or a dimension of the space, and has its type unless it is not known."""
    for field, value in values.items():
        if field not in dimensions and value is not None:
            kind = type_of(field, table)
            assert isinstance(value, ALLOWED[kind]), f"{field} is {value!r}, and not {kind}"


def row(module: Any, point: dict[str, Any], session: Session) -> dict[str, Any]:
    """A trial, run and measured, as a study records it."""
    metrics = module.run(point | {"settings": session.settings.model_dump(mode="json")}, session)
    metrics.pop("history", None)
    measured = module.measure(point, session)
    return flat(record(session.key, point=point, metrics=metrics, measured=measured))


@pytest.fixture(scope="module")
def classified(storage: Path, data_root: Path, settings: Settings) -> list[dict[str, Any]]:
    """Two seeds of one configuration, a stopped trial and a failed one."""
    points: list[dict[str, Any]] = [
        {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "macs_ratio": 0.5, "seed": seed}
        for seed in (0, 1)
    ]
    epochs: list[dict[str, Any]] = []
    rows = []
    for point in points:
        context = Context("s", str(storage), str(data_root), settings)
        session = Session(context, f"schema{point['seed']}", {**point, "finetune.lr": 0.01}, epochs.append)
        rows.append(row(prune, {**point, "finetune.lr": 0.01}, session))
    stopped = record("stopped", "stopped", point=points[0], metrics=epochs[0], reason="why")
    failed = record("failed", "failed", point=points[0], metrics={}, reason="why")
    return [*rows, flat(stopped), flat(failed)]


def files(folder: Path, rows: list[dict[str, Any]], quality: str, dimensions: list[str]) -> dict[str, Any]:
    """What is written of a study: the parsed front.json, and the names of the columns of each CSV file."""
    report.write_trials_csv(folder / "trials.csv", rows)
    report.write_front(
        folder,
        rows,
        {quality: "max", "macs": "min"},
        study="s",
        constraints={"macs": Bound(max=1e12)},
        dimensions=dimensions,
        formats=["csv", "json"],
    )
    heads = {path.name: next(csv.reader(path.open(newline=""))) for path in folder.glob("*.csv")}
    return {"front.json": json.loads((folder / "front.json").read_text()), **heads}


def test_every_field_of_a_study_with_seeds_is_documented(classified: list[dict[str, Any]], tmp_path: Path) -> None:
    asked = ["dataset", "model", "method", "requested_macs_ratio", "finetune.lr", "seed"]
    written = files(tmp_path, classified, "val_accuracy", asked)
    document = written["front.json"]
    assert document.keys() == DOCUMENT.keys()
    check(document, DOCUMENT)
    (front,), (means,) = document["fronts"], document["means"]
    assert front.keys() == FRONT.keys()
    check(front, FRONT)
    assert means.keys() == MEANS.keys()
    check({name: value for name, value in means.items() if MEANS[name] != "as above"}, MEANS)
    for member in [*front["members"], *classified]:
        check(member, TRIAL)
    assert {"test_accuracy", "latency_ms", "requested_macs_ratio", "finetune.lr"} <= front["members"][0].keys()
    averaged = {name: "number" if kind == "integer" else kind for name, kind in TRIAL.items()} | MEAN
    for member in means["members"]:
        check(member, averaged)
        assert "val_loss_std" in member
    for name in ("trials.csv", "front.csv"):
        assert [type_of(column, TRIAL) for column in written[name]]
    assert [type_of(column, averaged) for column in written["means.csv"]]


def test_every_field_of_segmentation_studies_is_documented(
    storage: Path, scene_root: Path, scene_settings: Settings, tmp_path: Path
) -> None:
    dataset = {"dataset": "segmentation_folder:scenes", "seed": 0}
    context = Context("s", str(storage), str(scene_root), scene_settings)
    pruned: dict[str, Any] = {**dataset, "model": "unet", "method": "l1", "rate": 0.5}
    searched: dict[str, Any] = {**dataset, "rates": "1,2", "levels": 2, "base": 8}
    rows = [
        row(prune, pruned, Session(context, "pruned", pruned)),
        row(micronet, searched, Session(context, "searched", searched)),
    ]
    written = files(tmp_path, rows, "val_miou", ["rate"])
    assert written["front.json"]["means"] is None
    for member in rows:
        check(member, TRIAL, ("rates", "levels", "base"))
    assert {"test_miou", "coverage", "receptive_field"} <= {*written["trials.csv"]}
    for column in {*written["trials.csv"], *written["front.csv"]} - {"rates", "levels", "base"}:
        type_of(column, TRIAL)


def test_no_field_is_made_up() -> None:
    with pytest.raises(AssertionError, match="made_up is not documented"):
        type_of("made_up", TRIAL)
    assert type_of("latency_ms_onnxruntime_b32", TRIAL) == "number"
    assert type_of("baseline_val_accuracy", TRIAL) == "number"
