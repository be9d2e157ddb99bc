"""What becomes of single classes: which are given up, in tables, on the page, and as files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rssearch.errors import InputError
from rssearch.front import seeds
from rssearch.front.trials import fronts
from rssearch.report import classes, files, members, page, per_class
from rssearch.report.recorded import Recorded, choose
from rssearch.scores import PerClass, Scores
from rssearch.trial.interface import MEMBERS
from tests.support.fronts import TWO, shown, trial

NAMES = ("forest", "river <b>", "=town", "lake")
WHOLE = np.array([[9, 1, 0, 0], [2, 8, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])
LOST = np.array([[10, 0, 0, 0], [7, 3, 0, 0], [4, 0, 6, 0], [0, 0, 0, 0]])  # less than half of the rivers
NONE = np.array([[10, 0, 0, 0], [10, 0, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])


def counted(matrix: Any) -> dict[str, Any]:
    return PerClass.of(matrix, NAMES).to_json()


def member(key: str, accuracy: float, macs: int, matrix: Any, **more: Any) -> dict[str, Any]:
    """A trial that is measured beside its baseline."""
    known = {"test_per_class": counted(matrix), "baseline_test_per_class": counted(WHOLE), "baseline_id": "b"}
    return trial(key, accuracy, macs, **known, baseline_key="baseline-b", **more)


def study() -> list[dict[str, Any]]:
    return [
        member("none", 0.6, 10_000_000, NONE, rate=0.9),
        member("lost", 0.7, 20_000_000, LOST, rate=0.7),
        member("kept", 0.9, 50_000_000, WHOLE, rate=0.1),
    ]


def section(rows: list[dict[str, Any]], folder: Path | None = None, links: str | None = None) -> str:
    """The page's section on classes."""
    text = page.page(fronts(rows, TWO), "s", {}, ["method", "rate"], folder, None, links).decode()
    found = re.search(r"<section><h2>Classes.*?</section>", text, re.DOTALL)
    return "" if found is None else found[0]


def test_what_is_given_up_by_hand() -> None:
    none, lost, kept = (classes.of_row(row) for row in study())
    assert none is not None
    assert lost is not None
    assert kept is not None
    assert (none.given_up, lost.given_up, kept.given_up) == (["river <b>"], ["river <b>"], [])
    assert lost.lost("recall") == [False, True, False, False]  # 3 of 10 instead of 8; the lake is nowhere
    np.testing.assert_allclose(lost.differences("recall"), [0.1, -0.5, -0.4, np.nan])
    half = classes.of_row(member("half", 0.5, 1, np.array([[9, 1, 0, 0], [6, 4, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])))
    assert half is not None
    assert half.lost("recall") == [False] * 4  # half of 8 of 10 is not less than half


def test_a_class_that_the_baseline_does_not_know_either_is_said() -> None:
    row = member("a", 0.6, 1, NONE) | {"baseline_test_per_class": counted(NONE)}
    assert classes.sentences([row], {"a": "l1"}) == ["gives up: river <b> (as the baseline) (l1)"]
    alone = trial("a", 0.6, 1, val_per_class=counted(NONE))  # without a baseline: what is never recognised
    found = classes.of_row(alone)
    assert found is not None
    assert (found.split, found.given_up, found.before) == ("val", ["river <b>"], None)


def test_of_many_some_are_named() -> None:
    rows = [member(f"k{i}", 0.1, i, NONE) for i in range(9)]
    many = PerClass.of(np.zeros((12, 12), int) + np.eye(12, k=1, dtype=int), list("abcdefghijkl")).to_json()
    line = "gives up: a, b, c, d, e, f, g, h and 3 more (l1)"  # of the last class there is no sample
    assert classes.sentences([trial("x", 0, 1, test_per_class=many)], {"x": "l1"}) == [line]
    lines = classes.sentences(rows, {row["key"]: row["key"] for row in rows})
    assert len(lines) == 7
    assert lines[-1] == "3 more give up classes: see per_class.csv"


def test_tables_say_what_is_given_up() -> None:
    text = " ".join(shown(files.format_front(study(), TWO, "table", study="s"), 100).split())
    assert "▼ gives up a class: recall or IoU 0, or less than half of the baseline's" in text
    assert "gives up: river <b> (rate 0.9)" in text
    assert "gives up: river <b> (rate 0.7)" in text
    assert "▼ 0.7 70.0 %" in text
    written = files.format_front(study(), TWO, "md", study="s")
    assert isinstance(written, str)
    assert r"gives up: river \<b\> (rate 0.9)" in written
    tex = files.format_front(study(), TWO, "tex", study="s")
    assert isinstance(tex, str)
    assert r"$\bigtriangledown$" in tex


def test_tables_of_records_without_counts_are_as_before() -> None:
    plain = [{name: value for name, value in row.items() if "per_class" not in name} for row in study()]
    text = shown(files.format_front(plain, TWO, "table", study="s"), 100)
    assert "▼" not in text
    assert "gives up" not in text
    assert section(plain) == ""
    assert per_class.table(plain) is None


def test_the_page_shows_each_class_beside_the_baseline() -> None:
    text = section(study())
    assert text.count('<p class="lost">') == 2
    assert "▼ l1, rate 0.9 gives up 1 of 4 classes: river &lt;b&gt;" not in text  # the method does not vary
    assert "▼ rate 0.9 gives up 1 of 4 classes: river &lt;b&gt;" in text
    recall, iou = re.findall(r"<details.*?</details>", text, re.DOTALL)[:2]
    assert recall.startswith("<details open><summary>Recall of each class on the test split")
    assert iou.startswith("<details><summary>IoU")
    rows = [re.findall(r"<td.*?</td>", line) for line in re.findall(r"<tr>(.*?)</tr>", recall)[1:]]
    assert [re.sub("<.*?>", "", row[0]) for row in rows] == ["forest", "river &lt;b&gt;", "=town", "lake"]
    assert [re.sub("<.*?>", " ", cell).split() for cell in rows[1]] == [
        *(["river", "&lt;b&gt;"], ["10"], ["80.0"], ["0.0", "−80.0"], ["30.0", "−50.0"], ["80.0", "0.0"])
    ]
    assert ["lost" in cell for cell in rows[1]] == [False, False, False, True, True, False]
    assert not any("lost" in cell for row in (rows[0], rows[2], rows[3]) for cell in row)
    assert rows[3][2:] == ['<td class="number">n/a</td>'] * 4


def test_the_page_says_where_nothing_is_given_up() -> None:
    text = section([member("kept", 0.9, 1, WHOLE)])
    assert "No network of the front gives up a class." in text
    assert "lost" not in text


def test_the_page_holds_confusion_matrices_and_leads_to_the_files(tmp_path: Path) -> None:
    for key in ("baseline-b", "lost"):
        (tmp_path / "study" / MEMBERS / key).mkdir(parents=True)
        (tmp_path / "study" / MEMBERS / key / "confusion.png").write_bytes(b"png")
    text = section(study(), tmp_path / "study", "")
    assert re.findall(r"<summary>Confusion matrix of (.*?)</summary>", text) == ["baseline", "★ rate 0.7"]
    assert text.count("data:image/png;base64,cG5n") == 2
    assert '<a href="members/lost/predictions.csv">predictions.csv</a>' in text
    elsewhere = section(study(), tmp_path / "study")
    assert "<a " not in elsewhere
    written = files.write_front(tmp_path / "out", study(), TWO, study="s", folder=tmp_path / "study", formats=["html"])
    assert f'href="{(tmp_path / "study").as_uri()}/members/lost/confusion.csv"' in written[0].read_text()


def test_seeds_are_counted_together() -> None:
    rows = [member(f"k{seed}", 0.5 + seed / 10, 10, matrix, seed=seed) for seed, matrix in enumerate((NONE, LOST))]
    (mean,) = seeds.means(rows, ["rate", "seed"])
    found = classes.of_row(mean)
    assert found is not None
    assert found.counted.right.tolist() == (NONE + LOST).diagonal().tolist()
    assert found.counted.true.tolist() == [20, 20, 20, 0]
    names = [name for row in csv.reader(io.StringIO(files._csv([mean]))) for name in row]
    assert not any(name.endswith("per_class") for name in names)


def test_counts_are_no_columns() -> None:
    for name in ("csv", "json"):
        text = files.format_front(study(), TWO, name, study="s")
        assert isinstance(text, str)
        assert "per_class" not in text


def test_per_class_csv_has_members_and_baselines_once() -> None:
    content = per_class.table(study())
    assert content is not None
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [row["key"] for row in rows] == [*["baseline-b"] * 4, *["none"] * 4, *["lost"] * 4, *["kept"] * 4]
    river = {row["key"]: row for row in rows if row["class"] == "river <b>"}
    assert river["lost"] | {"recall_difference": ""} == {
        **{"key": "lost", "dataset": "eurosat", "model": "resnet18", "method": "l1", "split": "test"},
        **{"class": "river <b>", "samples": "10", "predicted": "3", "right": "3", "recall_difference": ""},
        **{"accuracy": "0.3", "recall": "0.3", "precision": "1.0", "f1": repr(6 / 13), "iou": "0.3"},
        "iou_difference": repr(0.3 - 8 / 11),
    }
    assert river["baseline-b"]["method"] == "baseline"
    assert [row["recall"] for row in rows if row["class"] == "lake"] == [""] * 4
    assert rows[2]["class"] == "'=town"  # no formula


def test_best_takes_a_metric_of_one_class() -> None:
    found = Recorded("s", Path(), Path(), TWO, {}, study(), ["rate"], {})
    assert choose(found, best="test_recall_river_b>=0.25")["key"] == "kept"
    assert choose(found, best="test_recall_river_b<=0.25")["key"] == "none"
    with pytest.raises(
        InputError, match=r"has no class 'rivr_b'\. Did you mean 'test_recall_river_b'\? Its classes: fo"
    ):
        choose(found, best="test_recall_rivr_b>=0.25")
    with pytest.raises(InputError, match=r"has the metric test_recal_town\. Did you mean 'test_recall_town'\?"):
        choose(found, best="test_recal_town>=0.25")


# Files of one network


def test_the_picture_names_what_is_never_recognised_in_red() -> None:
    scores = Scores("classification", NAMES, NONE, np.zeros((3, 16), np.int64), 0.0)
    (panel, _) = members.draw(scores).axes
    colours = [label.get_color() for label in panel.get_yticklabels()]
    assert [colour == "#A00000" for colour in colours] == [False, True, False, False]
    assert panel.get_title() == "66.7 % of 30 test images right, macro F1 55.6 %"
    assert [text.get_text() for text in panel.texts] == ["100", "100", "100"]


@pytest.mark.parametrize("count", [2, 40, 300])
def test_pictures_of_any_number_of_classes_have_a_reasonable_size(count: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (count, count))
    names = [f"{number} $class_{number}$ " * 5 for number in range(count)]
    found = members.files(Scores("classification", tuple(names), matrix, np.zeros((3, 16), np.int64), 0.0), b"")
    picture = Image.open(io.BytesIO(found["confusion.png"]))
    assert 300 < picture.width < 1600
    assert len(found["confusion.png"]) < 400_000


def test_too_many_probabilities_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    chances = np.array([[0.25, 0.75], [1, 0]], np.float32)
    arguments = (["=a/1", "b/2"], np.array([0, 0]), chances, ["=a", "b"])
    assert members.predictions_csv(*arguments).decode().splitlines() == [
        *("path,true,predicted,probability,probability:=a,probability:b", "'=a/1,'=a,b,0.75,0.25,0.75"),
        "b/2,'=a,'=a,1,1,0",
    ]
    monkeypatch.setattr(members, "MOST", 3)
    assert members.predictions_csv(*arguments).decode().splitlines()[0] == "path,true,predicted,probability"
