"""What a network does with the test split, class by class and image by image, as files.

``confusion.csv``, ``confusion.png``, ``per_class.csv`` and ``predictions.csv``: of each member of the front, and of
each baseline. A member whose widths follow from sensitivities has ``sensitivity.png`` as well. Names of classes and
files are texts that no spreadsheet takes for a formula.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rssearch.escaping import csv_cell, printable
from rssearch.metrics import KINDS, human
from rssearch.report.look import DARK, RED
from rssearch.scores import PerClass, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CONFUSION",
    "FILES",
    "KEPT",
    "PER_CLASS",
    "PICTURE",
    "PREDICTIONS",
    "SENSITIVITY",
    "confusion_csv",
    "draw",
    "files",
    "files_of_labels",
    "labels_csv",
    "per_class_csv",
    "per_class_rows",
    "predictions_csv",
    "scenes_csv",
]

CONFUSION, PICTURE, PER_CLASS, PREDICTIONS = "confusion.csv", "confusion.png", "per_class.csv", "predictions.csv"
FILES = (CONFUSION, PICTURE, PER_CLASS, PREDICTIONS)
SENSITIVITY = "sensitivity.png"
KEPT = (*FILES, SENSITIVITY)  # all that a member may have
COUNTS = ("samples", "predicted", "right")
MOST = 20_000_000  # probabilities in a file: about 160 MB
NUMBERED = 32  # classes whose cells have numbers; more have no room
NAMED = 100  # classes whose names are written
NAME = 24  # letters of a name beside the picture
DPI = 110
SHOWN = 0.005  # the least share that is not shown as 0 per cent

Integers = npt.NDArray[np.int64]


def files(scores: Scores, predictions: bytes) -> dict[str, bytes]:
    """The files of one network.

    Args:
        scores: on the test split.
        predictions: as `predictions_csv` or `scenes_csv` writes them.
    """
    return {
        CONFUSION: confusion_csv(scores.matrix, scores.classes),
        PICTURE: _png(draw(scores)),
        PER_CLASS: per_class_csv(scores.per_class),
        PREDICTIONS: predictions,
    }


def files_of_labels(counted: PerClass, predictions: bytes) -> dict[str, bytes]:
    """The files of one network for images with several labels, which have no confusion matrix.

    Args:
        counted: on the test split.
        predictions: as `labels_csv` writes them.
    """
    return {PER_CLASS: per_class_csv(counted), PREDICTIONS: predictions}


def confusion_csv(matrix: Integers, classes: Sequence[str]) -> bytes:
    """A line for each true class, a column for each class that was predicted: images or pixels."""
    head = ["true / predicted", *classes]
    return _csv(head, ([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)))


def per_class_csv(counted: PerClass) -> bytes:
    """A line for each class: counts, then shares of one; what is not defined is empty."""
    rows = per_class_rows(counted)
    return _csv(["class", *COUNTS, *KINDS], ([row[name] for name in ("class", *COUNTS, *KINDS)] for row in rows))


def per_class_rows(counted: PerClass) -> list[dict[str, Any]]:
    """The same as rows by name; NaN where a share is not defined."""
    columns = {
        "class": counted.classes,
        **dict(
            zip(COUNTS, (found.tolist() for found in (counted.true, counted.predicted, counted.right)), strict=True)
        ),
        **{kind: counted.rates(kind).tolist() for kind in KINDS},
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def predictions_csv(
    names: Sequence[str], labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], classes: Sequence[str]
) -> bytes:
    """A line for each image: its path, its class, the predicted one, and the probability of each class.

    Args:
        names: N paths below the dataset; empty where images have no names: then they are numbered.
        labels: int64 [N].
        probabilities: float32 [N, K]. Of more than `MOST` there is only that of the predicted class.
        classes: K names.
    """
    paths: Iterable[Any] = names or range(len(labels))
    predicted = probabilities.argmax(1)
    whole = probabilities.size <= MOST
    table = np.concatenate([probabilities.max(1, keepdims=True), probabilities[:, : None if whole else 0]], 1)
    rows = (
        [path, classes[true], classes[guess], *(f"{value:.6g}" for value in row)]
        for path, true, guess, row in zip(paths, labels.tolist(), predicted.tolist(), table.tolist(), strict=True)
    )
    every = [f"probability:{name}" for name in classes] if whole else []
    return _csv(["path", "true", "predicted", "probability", *every], rows)


def labels_csv(
    names: Sequence[str], labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], classes: Sequence[str]
) -> bytes:
    """A line for each image with several labels: its path, its labels, the predicted ones, and all probabilities.

    Args:
        names: N paths below the dataset; empty where images have no names: then they are numbered.
        labels: int64 [N, K] of 0 and 1.
        probabilities: float32 [N, K]; a label is predicted from 0.5 on.
        classes: K names.
    """
    paths: Iterable[Any] = names or range(len(labels))

    def named(row: Iterable[Any]) -> str:
        return ";".join(name for name, has in zip(classes, row, strict=True) if has)

    rows = (
        [path, named(true), named(value >= 0.5 for value in chances), *(f"{value:.6g}" for value in chances)]
        for path, true, chances in zip(paths, labels.tolist(), probabilities.tolist(), strict=True)
    )
    return _csv(["path", "true", "predicted", *(f"probability:{name}" for name in classes)], rows)


def scenes_csv(scenes: Mapping[str, Integers], classes: Sequence[str]) -> bytes:
    """Of each scene a line for each class: its pixels, its IoU there, and which classes its pixels were given.

    Args:
        scenes: name -> confusion matrix int64 [K, K].
        classes: K names.
    """
    rows = (
        [name, label, sum(row), iou, *row]
        for name, matrix in scenes.items()
        for label, iou, row in zip(
            classes, PerClass.of(matrix, classes).rates("iou").tolist(), matrix.tolist(), strict=True
        )
    )
    return _csv(["path", "true", "pixels", "iou", *(f"predicted:{name}" for name in classes)], rows)


def draw(scores: Scores) -> Figure:
    """The confusion matrix as a picture: shares of each true class, its recall on the diagonal.

    A class that is recognised in less than one of 200 samples has its name in red.

    Returns:
        A Matplotlib figure without the global state of pyplot.
    """
    from matplotlib.figure import Figure

    matrix, classes = scores.matrix, [_short(name) for name in scores.classes]
    count = len(classes)
    sums = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, sums, out=np.zeros(matrix.shape), where=sums > 0)
    side = min(max(3.0, 0.36 * count), 11.0)  # inches
    figure = Figure(figsize=(side + 2.4, side + 1.9), layout="constrained")
    panel = figure.subplots()
    picture = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    samples = "pixels" if scores.task == "segmentation" else "images"
    known = scores.metrics()
    name = "pixel_accuracy" if scores.task == "segmentation" else "accuracy"
    title = f"{human(name, known[name])} of {int(matrix.sum()):,} test {samples} right, macro F1 "
    panel.set_title(title + human("macro_f1", known["macro_f1"]), fontsize=10)
    panel.set(xlabel="predicted", ylabel="true")
    if count <= NAMED:
        size = 9 if count <= NUMBERED else 5
        panel.set_xticks(range(count), classes, rotation=90 if count > 6 else 30, fontsize=size)
        panel.set_yticks(range(count), classes, fontsize=size)
        recall = scores.per_class.rates("recall").tolist()
        for label, value in zip(panel.get_yticklabels(), recall, strict=True):
            label.set_color(RED if value < SHOWN else DARK)
            label.set_fontweight("bold" if value < SHOWN else "normal")
    if count <= NUMBERED:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            share = shares[row, column]
            text = f"{100 * share:.0f}" if share >= SHOWN else "·"
            panel.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if share > 0.6 else DARK)
    figure.colorbar(picture, ax=panel, fraction=0.04, pad=0.02, label="share of the true class")
    return figure


def _short(name: str) -> str:
    text = printable(" ".join(name.split()))
    return (text if len(text) <= NAME else text[: NAME - 1] + "…").replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    """With a palette of 256 colours: a third of the size."""
    from PIL import Image

    whole, small = io.BytesIO(), io.BytesIO()
    figure.savefig(whole, format="png", dpi=DPI)
    picture = Image.open(whole).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, head))
    for row in rows:
        writer.writerow(map(_cell, row))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return csv_cell(value) if isinstance(value, str) else value
