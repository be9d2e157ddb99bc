"""What a study leaves behind, from made-up trials with known fronts."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rssearch.config.schema import Bound
from rssearch.errors import InputError
from rssearch.front import gains
from rssearch.front import trials as fronts
from rssearch.report import columns, files, tables
from rssearch.storage import artifacts

TWO = {"val_accuracy": "max", "macs": "min"}


def trial(key, accuracy, macs, **more):
    row = {
        "key": key,
        "status": "finished",
        "dataset": "eurosat",
        "model": "resnet18",
        "method": "l1",
        "rate": 0.5,
        "seed": 0,
        "val_accuracy": accuracy,
        "test_accuracy": None,
        "macs": macs,
        "params": macs // 10,
        "macs_ratio": macs / 100e6,
        "params_ratio": macs / 100e6,
        "baseline_val_accuracy": 0.95,
        "baseline_macs": 100_000_000,
        "baseline_params": 10_000_000,
        "train_seconds": 1.5,
        "reason": None,
    }
    return {**row, **more}


def study():
    """The front is a, c, d; the knee is c."""
    return [
        trial("d", 0.94, 80_000_000, method="lfp"),
        trial("a", 0.60, 10_000_000),
        trial("b", 0.55, 20_000_000, method="lfp"),
        trial("c", 0.90, 25_000_000),
        trial("n", float("nan"), 5_000_000),
        trial("i", None, 1_000_000, status="infeasible", reason="macs_ratio 0.01 is below 0.05"),
        trial("f", 0.99, 1_000_000, status="failed", reason="the loss is nan"),
    ]


def keys(rows):
    return [row["key"] for row in rows]


def test_front_rows_are_finished_feasible_and_not_dominated_by_rising_cost():
    assert keys(fronts.front_rows(study(), TWO)) == ["a", "c", "d"]
    assert fronts.front_rows(study(), TWO)[0] == study()[1]  # with every column


def test_constraints_take_finished_trials_off_the_front():
    bounds = {"macs": Bound(max=30e6), "val_accuracy": Bound(min=0.7)}
    assert keys(fronts.front_rows(study(), TWO, bounds)) == ["c"]
    front = fronts.fronts(study(), TWO, bounds)[0]
    assert keys(front.infeasible) == ["d", "a", "b", "i"]
    # a limit on what a trial does not have breaks nothing
    assert keys(fronts.front_rows(study(), TWO, {"latency_ms": Bound(max=1)})) == ["a", "c", "d"]


def test_every_trial_is_in_one_class():
    front = fronts.fronts(study(), TWO)[0]
    assert [keys(rows) for rows in (front.members, front.dominated, front.infeasible, front.failed)] == [
        ["a", "c", "d"],
        ["b"],
        ["i"],
        ["n", "f"],
    ]
    assert front.note is None
    assert front.knee["key"] == "c"


def test_ties_are_all_members_in_the_order_of_their_keys():
    rows = [trial("z", 0.9, 10), trial("y", 0.9, 10), trial("x", 0.9, 11)]
    assert keys(fronts.front_rows(rows, TWO)) == ["y", "z"]


def test_hypervolume_is_measured_from_the_baseline():
    front = fronts.fronts(study(), TWO)[0]
    assert front.reference == {"val_accuracy": 0.0, "macs": 100e6}
    expected = 0.60 * 90e6 + 0.30 * 75e6 + 0.04 * 20e6
    assert front.hypervolume == pytest.approx(expected)
    assert front.relative_hypervolume == pytest.approx(expected / 100e6)
    # another trial that is worse moves nothing, even if it costs more than all others
    again = fronts.fronts([*study(), trial("w", 0.1, 99_000_000)], TWO)[0]
    assert again.hypervolume == pytest.approx(expected)


def test_the_reference_begins_at_chance_and_stays_where_it_is_fixed():
    rows = [row | {"classes": 10} for row in study()]
    assert fronts.fronts(rows, TWO)[0].reference == {"val_accuracy": 0.1, "macs": 100e6}
    larger = [*rows, trial("w", 0.95, 150_000_000, model="vgg16_bn", baseline_macs=400_000_000)]
    assert fronts.fronts(larger, TWO)[0].reference["macs"] == 400e6
    kept = {"eurosat": {"val_accuracy": 0.1, "macs": 100e6}}
    (front,) = fronts.fronts(larger, TWO, None, kept)
    assert front.reference == kept["eurosat"]
    expected = 0.50 * 90e6 + 0.30 * 75e6 + 0.04 * 20e6  # the new one costs more than the reference
    assert front.hypervolume == pytest.approx(expected)
    assert front.knee["key"] == "c"
    assert fronts.progress(front)[-1] == front.relative_hypervolume


def test_a_dominated_trial_moves_neither_reference_nor_knee_without_a_baseline():
    rows = [{"key": k, "status": "finished", "score": s, "size": c} for k, s, c in [("p", 3, 2), ("q", 5, 4)]]
    (before,) = fronts.fronts(rows, {"score": "max", "size": "min"})
    (after,) = fronts.fronts(
        [*rows, {"key": "r", "status": "finished", "score": 1, "size": 1000}], {"score": "max", "size": "min"}
    )
    assert (after.reference, after.knee, after.hypervolume) == (before.reference, before.knee, before.hypervolume)


def test_progress_is_the_hypervolume_after_each_trial():
    (front,) = fronts.fronts(study(), TWO)  # in the order d a b c n i f
    volumes = fronts.progress(front)
    one, two = 0.94 * 20, 0.60 * 90 + 0.34 * 20
    assert volumes == pytest.approx([one / 100, two / 100, two / 100, *[0.773] * 4])
    assert volumes[-1] == front.relative_hypervolume
    alone = [{"key": "p", "status": "finished", "score": 3.0, "size": 2.0}]
    alone.append({"key": "q", "status": "finished", "score": 5.0, "size": 4.0})
    (front,) = fronts.fronts(alone, {"score": "max", "size": "min"})
    assert fronts.progress(front) == pytest.approx([1.5, 1.5])  # no baseline: by the worst size, 4
    assert fronts.progress(fronts.fronts([trial("f", None, 1, status="failed")], TWO)[0]) == [0.0]


def test_progress_with_three_objectives_ends_at_the_hypervolume():
    rng = np.random.default_rng(0)
    rows = [trial(str(i), a, int(1e8 * b), train_seconds=c) for i, (a, b, c) in enumerate(rng.random((40, 3)))]
    (front,) = fronts.fronts(rows, {**TWO, "train_seconds": "min"})
    volumes = fronts.progress(front)
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(front.relative_hypervolume or front.hypervolume)


def test_without_a_baseline_the_worst_cost_is_the_reference():
    rows = [{"key": "p", "status": "finished", "score": 3.0, "size": 2.0}]
    rows.append({"key": "q", "status": "finished", "score": 5.0, "size": 4.0})
    front = fronts.fronts(rows, {"score": "max", "size": "min"})[0]
    assert front.reference == {"score": 0.0, "size": 4.0}
    assert front.hypervolume == 6.0
    assert front.baselines == []


def test_a_ratio_has_the_baseline_one():
    front = fronts.fronts(study(), {"val_accuracy": "max", "macs_ratio": "min"})[0]
    assert front.reference == {"val_accuracy": 0.0, "macs_ratio": 1.0}
    before = {"val_accuracy": 0.95, "macs": 100e6, "params": 10e6, "macs_ratio": 1.0, "params_ratio": 1.0}
    assert front.baselines == [{"dataset": "eurosat", "model": "resnet18", **before}]


def test_baselines_are_the_mean_over_seeds():
    rows = [trial("a", 0.9, 1, baseline_val_accuracy=0.95), trial("b", 0.9, 2, baseline_val_accuracy=0.95)]
    rows += [trial("c", 0.9, 3, baseline_val_accuracy=0.97, seed=1), trial("e", 0.9, 3, model="vgg16_bn")]
    found = [(row["model"], row["val_accuracy"], row["macs"]) for row in fronts.fronts(rows, TWO)[0].baselines]
    assert found == [("resnet18", pytest.approx(0.96), 100e6), ("vgg16_bn", 0.95, 100e6)]


def two_datasets():
    others = [trial("u" + row["key"], row["val_accuracy"], row["macs"], dataset="ucmerced") for row in study()[:4]]
    return [*others[:2], *study(), *others[2:]]


def test_each_dataset_has_its_own_front():
    rows = two_datasets()
    for row in rows:  # worse everywhere: one common front would lose it
        if row["dataset"] == "ucmerced":
            row["val_accuracy"] -= 0.2
    found = fronts.fronts(rows, TWO)
    assert [front.dataset for front in found] == ["eurosat", "ucmerced"]
    assert keys(fronts.front_rows(rows, TWO)) == ["a", "c", "d", "ua", "uc", "ud"]
    document = json.loads(files.format_front(rows, TWO, "json", study="s"))
    volumes = [front["hypervolume"] for front in document["fronts"]]
    assert volumes[0] > volumes[1] > 0
    assert document["hypervolume"] == pytest.approx(np.mean(volumes))


def test_one_objective_has_the_best_trial_as_front():
    front = fronts.fronts(study(), {"val_accuracy": "max"})[0]
    assert keys(front.members) == ["d"]
    assert front.knee["key"] == "d"
    assert front.hypervolume == pytest.approx(0.94)


def test_three_objectives():
    three = {**TWO, "train_seconds": "min"}
    rows = [*study(), trial("t", 0.5, 50_000_000, train_seconds=0.5)]
    assert keys(fronts.front_rows(rows, three)) == ["a", "c", "t", "d"]


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


def shown(table, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_table_fits_a_terminal_and_speaks_to_people():
    rows = [{**row, "key": row["key"] * 16, "val_loss": row["macs"] / 1e9, "split_hash": "e" * 64} for row in study()]
    text = shown(files.format_front(rows, TWO, "table", study="eurosat-methods"))
    assert [" ".join(line.split()) for line in text.splitlines()] == [
        "eurosat-methods",
        "Val. MACs",
        "Method acc. Diff. MACs left Key",
        "─" * 73,
        "baseline 95.0 % 100 M 100.0 %",
        f"l1 60.0 % −35.0 10 M 10.0 % {'a' * 8}",
        f"★ l1 90.0 % −5.0 25 M 25.0 % {'c' * 8}",
        f"lfp 94.0 % −1.0 80 M 80.0 % {'d' * 8}",
        "★ knee",
        "Difference: percentage points to the baseline, the network before pruning",
        "★ against its baseline: validation accuracy −5.0 points, 25.0 % of the",
        "MACs, 25.0 % of the parameters",
        "The same in all trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0",
    ]
    assert "ucmerced" in shown(files.format_front(two_datasets(), TWO, "table", study="s"))


def test_a_dimension_that_varies_in_the_study_keeps_its_column_on_a_front_of_one_method():
    text = shown(files.format_front(study()[1:4], TWO, "table", study="s"))
    assert text.count("l1") == 2
    assert "Method" in text


def gained(key, latency, wide, **more):
    """A trial that is measured beside its baseline."""
    whole = {"test_accuracy": 0.7, "latency_ms": 3.0, "latency_iqr_ms": 0.2, "bytes": 40_000_000}
    row = trial(key, 0.6, 10_000_000, test_accuracy=0.68, latency_ms=latency, latency_iqr_ms=wide, bytes=4_000_000)
    return row | {f"baseline_{name}": value for name, value in whole.items()} | more


def test_table_of_a_study_where_all_varies_folds_no_word_and_no_number():
    rows = [
        gained(f"{i:08x}" * 2, 1.5 + i, 0.2, val_accuracy=0.5 + i / 10, macs=10_000_000 + i, seed=i, dataset="ds")
        | {"model": ("resnet18", "mobilenet_v3_large")[i % 2], "method": ("compound", "lfp")[i % 2], "rate": i / 10}
        for i in range(4)
    ]
    for width, words in ((100, ("mobilenet_v3_large ", "compound ")), (80, ("mob… ", "com… "))):
        text = shown(files.format_front(rows, TWO, "table", study="s"), width).replace("\u00a0", " ")
        lines = text.splitlines()
        assert max(map(len, lines)) <= width
        assert lines.index("★ knee".ljust(len(lines[0]))) == 1 + 2 + 1 + 2 + 4  # title, head, line, baselines, members
        for whole in (*words, " 68.0 %", " −2.0 ", " 1.5 (0.2)‡ ", " 0.667× 00000003"):
            assert whole in text


def test_table_says_what_was_lost_and_gained():
    rows = [gained("a", 1.5, 0.1), gained("b", 2.0, 0.1, val_accuracy=0.8, macs=50_000_000)]
    text = " ".join(shown(files.format_front(rows, TWO, "table", study="s"), 100).split())
    assert "baseline 95.0 % 70.0 % 100 M 100.0 % 3 (0.2) 1×" in text
    assert "★ 60.0 % −35.0 68.0 % −2.0 10 M 10.0 % 1.5 (0.1) 2× a" in text
    assert (
        "★ against its baseline: validation accuracy −35.0 points, test accuracy −2.0 points, 10.0 % of the MACs, "
        "10.0 % of the parameters, 4 MB instead of 40 MB, 2× as fast"
    ) in text
    assert "‡" not in text  # all spreads are below a tenth
    assert "Latency: median (interquartile range)" in text
    lines = files.format_front(rows, TWO, "md", study="s").splitlines()
    assert lines[4].startswith(
        "| baseline | 95.0 % |  | 70.0 % |  | 100 M | 100.0 % | 10 M | 100.0 % | 40 MB | 3 (0.2) |"
    )
    frame = list(csv.DictReader(io.StringIO(files.format_front(rows, TWO, "csv", study="s"))))
    assert float(frame[0]["speedup"]) == 2.0
    assert float(frame[0]["test_accuracy_difference"]) == pytest.approx(-0.02)
    assert float(frame[0]["baseline_test_accuracy"]) == 0.7
    assert float(frame[0]["bytes_ratio"]) == 0.1


def test_a_disturbed_latency_is_marked_and_explained_everywhere():
    rows = [gained("a", 1.5, 0.2), gained("b", 2.0, 0.1, val_accuracy=0.8, macs=50_000_000)]
    for name in ("table", "md"):
        made = files.format_front(rows, TWO, name, study="s")
        text = made if name == "md" else shown(made, 100).replace("\u00a0", " ")
        assert "1.5 (0.2)‡" in text
        assert "2×‡" in text  # the speed-up rests on it
        assert "2 (0.1)‡" not in text
        assert "1.5×‡" not in text
        assert "‡ interquartile range above a tenth of the median" in text
    assert r"1.5 (0.2)$\ddagger$" in files.format_front(rows, TWO, "tex", study="s")


def test_without_a_baseline_there_is_nothing_to_compare():
    rows = [
        {"key": f"k{i}", "status": "finished", "model": "m", "val_miou": 0.5 + i / 10, "macs": 10 * i, "params": 5}
        for i in (1, 2)
    ]
    rows = [row | {"latency_ms": 1.0, "latency_iqr_ms": 0.01, "bytes": 10} for row in rows]
    text = files.format_front(rows, {"val_miou": "max", "macs": "min"}, "md", study="s")
    assert "|  | Validation mIoU | MACs | Latency (ms) |" in text
    for word in ("baseline", "Difference", "Speed", "Size", "Parameters"):
        assert word not in text


def test_a_long_table_is_cut_for_a_description():
    rows = [gained(f"k{i:03}", 1.5, 0.1, val_accuracy=0.5 + i / 1000, macs=10_000_000 + i) for i in range(200)]
    text = files.format_front(rows, TWO, "md", study="s")
    short = tables.cut_table(text, 4000)
    assert 3500 < len(short) <= 4000
    lines = short.splitlines()
    (said,) = (line for line in lines if "more rows" in line)
    assert len([line for line in lines if line.startswith("| ")]) - 2 + int(said.split()[0]) == 201
    assert lines[-1].startswith("★ knee")
    assert tables.cut_table(text, len(text)) == text


def test_table_shows_the_dimensions_of_a_trial_of_ones_own():
    rows = [
        {"key": f"k{i}", "status": "finished", "score": float(i), "size": i, "width": 8 * i, "same": 1, "tag": "[red]"}
        for i in (1, 2)
    ]
    text = shown(tables.table(rows, {"score": "max", "size": "min"}, dimensions=["width", "same", "tag", "absent"]))
    head, _, first, _, _, *notes = text.splitlines()
    assert head.split() == ["Width", "Score", "Size", "Key"]
    assert first.split() == ["8", "1", "1", "k1"]
    assert " ".join(" ".join(notes).split()) == "The same in all trials: Same 1, Tag [red]"


HOSTILE = r"a_b & 50% #1 {x} \y ~ ^ $z$ <b>|[l](u)*`"


def test_latex_is_a_table_of_booktabs():
    text = files.format_front(study(), TWO, "tex", study="my_study")
    assert text.splitlines() == [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{Pareto front of the study my\_study. $\star$ knee. Difference: percentage points to the baseline, "
        r"the network before pruning. $\star$ against its baseline: validation accuracy $-$5.0 points, 25.0~\% of the "
        r"MACs, 25.0~\% of the parameters. The same in all trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0.}",
        r"\begin{tabular}{llrrrrrr}",
        r"\toprule",
        r" & Method & Validation accuracy & Difference (points) & MACs & MACs left & Parameters & Parameters left \\",
        r"\midrule",
        r" & baseline & 95.0~\% &  & 100~M & 100.0~\% & 10~M & 100.0~\% \\",
        r" & l1 & 60.0~\% & $-$35.0 & 10~M & 10.0~\% & 1~M & 10.0~\% \\",
        r"$\star$ & l1 & 90.0~\% & $-$5.0 & 25~M & 25.0~\% & 2.5~M & 25.0~\% \\",
        r" & lfp & 94.0~\% & $-$1.0 & 80~M & 80.0~\% & 8~M & 80.0~\% \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_latex_escapes_what_is_special():
    text = files.format_front([trial("a", 0.9, 1, method=HOSTILE), *study()], TWO, "tex", study="s")
    (line,) = (line for line in text.splitlines() if "a\\_b" in line)
    assert line.split(" & ")[1] == (
        r"a\_b \& 50\% \#1 \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \$z\$ "
        r"\textless{}b\textgreater{}\textbar{}[l](u)*`"
    )


def test_markdown_is_a_table():
    text = files.format_front(study(), TWO, "md", study="my_study")
    assert text.splitlines() == [
        "# my\\_study",
        "",
        "|  | Method | Validation accuracy | Difference (points) | MACs | MACs left | Parameters | Parameters left |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "|  | baseline | 95.0 % |  | 100 M | 100.0 % | 10 M | 100.0 % |",
        "|  | l1 | 60.0 % | −35.0 | 10 M | 10.0 % | 1 M | 10.0 % |",
        "| ★ | l1 | 90.0 % | −5.0 | 25 M | 25.0 % | 2.5 M | 25.0 % |",
        "|  | lfp | 94.0 % | −1.0 | 80 M | 80.0 % | 8 M | 80.0 % |",
        "",
        "★ knee. Difference: percentage points to the baseline, the network before pruning. ★ against its baseline: "
        "validation accuracy −5.0 points, 25.0 % of the MACs, 25.0 % of the parameters. "
        "The same in all trials: Dataset eurosat, Model resnet18, Rate 0.5, Seed 0.",
    ]


def test_markdown_escapes_what_is_special():
    text = files.format_front([trial("a", 0.9, 1, method=HOSTILE + "\n\n# no"), *study()], TWO, "md", study="s")
    (line,) = (line for line in text.splitlines() if "a\\_b" in line)
    cell = r"a\_b \& 50% \#1 {x} \\y \~ ^ \$z\$ \<b\>\|\[l\](u)\*\` \# no"
    assert line == f"| ★ | {cell} | 90.0 % | −5.0 | 1 | 0.0 % | 0 | 0.0 % |"


def test_texts_of_an_empty_front_say_so():
    for name in ("tex", "md"):
        assert "No finished and feasible trial: the front is empty." in files.format_front([], TWO, name, study="s")


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
