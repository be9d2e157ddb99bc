"""What given weights reach, on the console of 80 columns."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rssearch.report import checked
from rssearch.study.console import PlainConsole


def row(normalize: str, quality: float, **more: Any) -> dict[str, Any]:
    given = {"weights": "w.pt", "normalize": normalize, "metric": "accuracy", "quality": quality, "reordered": quality}
    rest = {"best": quality, "accuracy": quality, "certainty": 0.5, "meaning": None, "other_order": None}
    return given | rest | {"warning": None} | more


def printed(rows: list[dict[str, Any]]) -> list[str]:
    console = PlainConsole(file=io.StringIO(), width=80)
    console.print(checked.table(rows))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_nothing_is_cut_and_pixels_are_called_so() -> None:
    name = "{mean: [0], std: [0.00392157]}"
    lines = printed([row("dataset", 0.3), row(name, 0.55, meaning="pixels of 0 to 255")])
    text = " ".join(" ".join(lines).split())
    assert f"{name} 55.0 % 55.0 % 50.0 % (pixels of 0 to 255)" in text
    assert "…" not in text
    assert "55.0 %" in text


def test_of_masks_the_objective_stands_before_the_accuracy_of_pixels() -> None:
    lines = printed([row("none", 0.31, metric="miou", accuracy=0.9)])
    titles = [str(column.header) for column in checked.table([row("none", 0.31, metric="miou")]).columns]
    assert titles == ["Normalize", "mIoU", "In the best order of classes", "Pixel accuracy", "Certainty"]
    assert lines[-1].split() == ["none", "31.0", "%", "31.0", "%", "90.0", "%", "50.0", "%"]


@pytest.mark.parametrize("warning", [None, "the weights w.pt reach 20.0%"])
def test_the_best_order_is_printed(warning: str | None) -> None:
    order = "rows [1, 0] of the last layer (its classes seem to be b, a)"
    rows = [row("none", 0.2, warning=warning), row("imagenet", 0.07, best=0.6, reordered=0.6, other_order=order)]
    assert list(checked.notes(rows)) == [
        warning or "w.pt: nothing is suspicious",
        f"the best order of classes: {order}",
    ]
    said = [row("none", 0.2, warning=f"class order: {order}"), rows[1]]
    assert list(checked.notes(said)) == [f"class order: {order}"]
