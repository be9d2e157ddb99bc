"""What a study leaves behind: its files, from made-up trials with known fronts."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from rssearch.config.schema import Bound
from rssearch.errors import InputError
from rssearch.front import gains
from rssearch.front import trials as fronts
from rssearch.report import columns, files
from rssearch.storage import artifacts
from tests.support.fronts import TWO, keys, shown, study, trial, two_datasets


def test_trials_csv(tmp_path):
    rows = [
        trial("a", 0.1, 7, zeta=[1, 2], alpha="x, y"),
        {"key": "b", "status": "failed", "reason": 'said "no"\nand left', "val_accuracy": float("nan")},
    ]
    path = tmp_path / "new" / "trials.csv"
    files.write_trials_csv(path, rows)
    assert path.read_text().splitlines()[0] == (
        "key,status,dataset,model,method,rate,seed,val_accuracy,test_accuracy,macs,params,macs_ratio,params_ratio,"
        "baseline_val_accuracy,train_seconds,alpha,baseline_macs,baseline_params,reason,val_accuracy_difference,zeta"
    )
    first, second = csv.DictReader(path.open(newline=""))
    assert first["val_accuracy"] == "0.1"
    assert first["test_accuracy"] == ""
    assert first["alpha"] == "x, y"
    assert json.loads(first["zeta"]) == [1, 2]
    assert second["reason"] == 'said "no"\nand left'
    assert second["val_accuracy"] == second["dataset"] == ""


def test_csv_keeps_every_digit_and_numpy_scalars(tmp_path):
    files.write_trials_csv(tmp_path / "t.csv", [trial("a", np.float64(1 / 3), np.int64(7))])
    row = next(csv.DictReader((tmp_path / "t.csv").open()))
    assert float(row["val_accuracy"]) == 1 / 3
    assert row["macs"] == "7"


def test_trials_csv_of_a_study_that_has_none(tmp_path):
    files.write_trials_csv(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_text() == ",".join(columns.COLUMNS) + "\n"


def test_column_order_does_not_depend_on_the_order_of_the_trials(tmp_path):
    heads = []
    for rows in (study(), study()[::-1]):
        files.write_trials_csv(tmp_path / "t.csv", rows)
        heads.append((tmp_path / "t.csv").read_text().splitlines()[0])
    assert heads[0] == heads[1]


def test_front_json(tmp_path):
    bounds = {"macs_ratio": Bound(max=0.9)}
    files.write_front(tmp_path, study(), TWO, study="eurosat-methods", constraints=bounds, formats=["json"])
    document = json.loads((tmp_path / "front.json").read_text())
    members = document["fronts"][0].pop("members")
    assert document["fronts"][0].pop("hypervolume") == document.pop("hypervolume") == pytest.approx(77.3e6)
    assert document["fronts"][0].pop("relative_hypervolume") == document.pop("relative_hypervolume")
    assert document == {
        "schema": "rssearch.front/2",
        "study": "eurosat-methods",
        "objectives": TWO,
        "constraints": {"macs_ratio": {"max": 0.9, "min": None}},
        "fronts": [
            {
                "dataset": "eurosat",
                "finished": 4,
                "infeasible": 1,
                "stopped": 0,
                "failed": 2,
                "note": None,
                "compute": None,
                "compute_parts": {},
                "compute_unknown": 5,
                "compute_from_scratch": None,
                "reference": {"val_accuracy": 0.0, "macs": 100e6},
                "knee": "c",
                "baselines": [
                    {
                        **{"dataset": "eurosat", "model": "resnet18", "val_accuracy": 0.95, "macs": 100e6},
                        **{"params": 10e6, "macs_ratio": 1.0, "params_ratio": 1.0, "val_accuracy_difference": 0.0},
                    }
                ],
            }
        ],
        "means": None,
    }
    assert members == fronts.front_rows(map(gains.compared, study()), TWO)  # every column and digit survives


def test_json_has_no_nan():
    rows = [trial("a", 0.9, 10, latency_ms=float("nan"), rates=(0.1, float("inf")))]
    text = files.format_front(rows, TWO, "json", study="s")
    member = json.loads(text, parse_constant=pytest.fail)["fronts"][0]["members"][0]
    assert member["latency_ms"] is None
    assert member["rates"] == [0.1, None]


def test_front_csv(tmp_path):
    (path,) = files.write_front(tmp_path, study(), TWO, study="s", formats=["csv"])
    rows = list(csv.DictReader(path.open()))
    assert keys(rows) == ["a", "c", "d"]
    assert files.format_front(study(), TWO, "csv", study="s") == path.read_text()


def pixels(path):
    with Image.open(path) as image:
        image.load()
        return image.size, np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("rows", "objectives", "size"),
    [
        (study(), TWO, (1500, 900)),
        (study(), {"val_accuracy": "max"}, (1500, 900)),
        (study(), {"params": "min", "macs": "min"}, (1500, 900)),
        (study(), {"val_accuracy": "max", "test_time": "max"}, (1500, 900)),
        (study(), {**TWO, "params": "min"}, (1500, 900)),
        (two_datasets(), TWO, (2400, 900)),
        ([*two_datasets(), trial("k", 0.5, 3, dataset="resisc45")], {**TWO, "params": "min"}, (2400, 1800)),
        ([], TWO, (1500, 900)),
    ],
)
def test_png_and_html_of_all_kinds_of_studies(tmp_path, rows, objectives, size):
    rows = [{**row, "test_time": 1 / row["macs"]} for row in rows]
    png, html = files.write_front(tmp_path, rows, objectives, study="s", formats=["png", "html"])
    shape, image = pixels(png)
    assert shape == size
    assert (image != 255).any(-1).mean() > 0.005  # something is drawn on the white
    assert html.stat().st_size > 1_000_000  # Plotly is in it


def has_colour(image, colour):
    return (image == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum() > 20


def test_png_shows_methods_baseline_and_constraint(tmp_path):
    from rssearch.report.look import COLOURS, RED

    (path,) = files.write_front(tmp_path, study(), TWO, study="s", formats=["png"])
    image = pixels(path)[1]
    assert has_colour(image, COLOURS[0])  # l1
    assert has_colour(image, COLOURS[1])  # lfp
    assert has_colour(image, "#000000")  # the baseline
    assert not has_colour(image, RED)
    files.write_front(tmp_path, study(), TWO, study="s", formats=["png"], constraints={"macs": Bound(max=9e7)})
    assert has_colour(pixels(path)[1], RED)


def test_plots_leave_no_global_state(tmp_path):
    import matplotlib.pyplot as plt

    files.write_front(tmp_path, study(), TWO, study="s", formats=["png"])
    assert plt.get_fignums() == []


def test_the_line_is_the_attained_staircase():
    from rssearch.report.look import look_of

    def line(objectives):
        found = fronts.fronts(study(), objectives)
        return look_of(found).staircase(found[0])

    xs, ys = line(TWO)
    assert xs == pytest.approx([10, 25, 25, 80, 80])
    assert ys == pytest.approx([60, 60, 90, 90, 94])
    xs, ys = line({"val_accuracy": "max"})  # best so far: the first trial is the best
    assert (xs, ys) == ([1, 7, 7], pytest.approx([94, 94, 94]))
    assert line({**TWO, "params": "min"}) == ([], [])


def test_nothing_finished_is_said(tmp_path):
    rows = [trial("f", None, 10, status="failed"), trial("g", None, 10, status="failed")]
    for name, trials in (("none", []), ("failed", rows)):
        paths = files.write_front(tmp_path / name, trials, TWO, study="s")
        assert [path.name for path in paths] == ["front.csv", "front.json", "front.png", "front.html"]
        front = json.loads(paths[1].read_text())["fronts"][0]
        assert front["note"] == "No finished trial yet."
        assert front["members"] == []
        assert (front["knee"], front["reference"], front["hypervolume"]) == (None, None, 0.0)
        assert front["failed"] == len(trials)
        assert len(paths[0].read_text().splitlines()) == 1
        assert b"No finished trial yet." in paths[3].read_bytes()
    assert "the front is empty" in shown(files.format_front([], TWO, "table", study="s"))


def test_all_infeasible_is_said():
    rows = [trial("a", 0.9, 10), trial("b", None, 5, status="infeasible")]
    front = fronts.fronts(rows, TWO, {"macs": Bound(max=1)})[0]
    assert front.note == "No trial satisfies the constraints. Nearest: b with macs 5."
    assert fronts.fronts(rows[1:], TWO)[0].note == "No trial satisfies the constraints."


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_front(tmp_path, study(), TWO, study="s", formats=["csv", "json"])
    files.write_trials_csv(tmp_path / "trials.csv", study())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 3

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_front(tmp_path, study()[:2], TWO, study="other", formats=["csv", "json"])
    with pytest.raises(OSError, match="No space"):
        files.write_trials_csv(tmp_path / "trials.csv", [])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_formats(tmp_path):
    paths = files.format_front(study(), TWO, "all", study="s", out=tmp_path)
    assert [path.name for path in paths] == [
        f"front.{name}" for name in ("csv", "json", "png", "svg", "html", "tex", "md")
    ]
    for name in ("csv", "json", "tex", "md"):
        assert files.format_front(study(), TWO, name, study="s") == (tmp_path / f"front.{name}").read_text()
    (path,) = files.format_front(study(), TWO, "csv", study="s", out=tmp_path)
    assert path == tmp_path / "front.csv"
    with pytest.raises(InputError, match="give --out DIR"):
        files.format_front(study(), TWO, "png", study="s")
    with pytest.raises(InputError, match=r"unknown format 'jsn'\. Did you mean 'json'"):
        files.format_front(study(), TWO, "jsn", study="s")
    with pytest.raises(InputError, match="unknown format 'pdf'"):
        files.write_front(tmp_path, study(), TWO, study="s", formats=["pdf"])


def test_impossible_objectives():
    with pytest.raises(InputError, match="at least one objective"):
        fronts.fronts(study(), {})
    four = {**TWO, "params": "min", "train_seconds": "min"}
    assert json.loads(files.format_front(study(), four, "json", study="s"))["fronts"][0]["knee"]
    with pytest.raises(InputError, match="at most 3"):
        fronts.fronts(study(), four) and files._render("png", fronts.fronts(study(), four), None, "s", {})


def test_trials_of_networks_have_every_column_of_the_contract(tmp_path):
    files.write_trials_csv(tmp_path / "t.csv", [{"key": "k", "status": "failed", "model": "resnet20", "reason": "why"}])
    head = (tmp_path / "t.csv").read_text().splitlines()[0].split(",")
    assert head == [*(name for name in columns.COLUMNS if "miou" not in name), "reason"]
    files.write_trials_csv(tmp_path / "t.csv", [{"key": "k", "status": "finished", "x": 1}])
    assert (tmp_path / "t.csv").read_text() == "key,status,x\nk,finished,1\n"
