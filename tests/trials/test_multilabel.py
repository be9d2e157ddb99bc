"""Pruning studies on images with several labels: what a trial measures, keeps and exports, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssearch.bundle import preprocessing, table, usage
from rssearch.bundle.__main__ import _check_options, _parser
from rssearch.bundle.predict import Network, probabilities
from rssearch.config.schema import Search
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.report import members
from rssearch.trial.session import Context, Session
from rssearch.trials import prune, tasks
from rssearch.trials.results import MODELS
from tests.support.fakes import multilabel, picture

POINT = {"dataset": "multilabel_folder:several", "model": "resnet20", "method": "l1", "rate": 0.5, "seed": 0}
RECIPE = {"epochs": 1, "batch_size": 16, "lr": 0.05}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("data")
    multilabel(found)
    return found


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(
        {
            "input_size": 16,
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "train": RECIPE,
            "finetune": RECIPE | {"distill": 0.5, "label_smoothing": 0.1},
            "pruning": {"score_batches": 1, "score_batch_size": 8},
        }
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.mark.parametrize("method", ["l1", "taylor", "compound", "channel_nas"])
def test_a_trial_measures_average_precision_and_f1(storage: Path, root: Path, settings: Settings, method: str) -> None:
    amount = {"macs_ratio": 0.6} if method == "channel_nas" else {"rate": 0.5}
    point: dict[str, Any] = {name: POINT[name] for name in ("dataset", "model", "seed")} | {"method": method, **amount}
    prune.check(point, settings)
    session = Session(Context("s", str(storage), str(root), settings), method, point)
    found = prune.run(point, session)
    assert set(tasks.metrics("multilabel")) <= set(found)
    assert {"baseline_val_map", "baseline_val_macro_f1", "baseline_val_micro_f1"} <= set(found)
    assert not [name for name in found if "accuracy" in name]
    measured = prune.measure(point, session)
    assert {"test_map", "test_macro_f1", "test_micro_f1", "test_per_class", "baseline_test_map"} <= set(measured)
    kept = session.store.get(MODELS, session.key)
    assert kept is not None
    about = json.loads(kept["about.json"])
    assert (about["task"], about["threshold"]) == ("multilabel", 0.5)


def test_objectives_of_other_tasks_are_refused() -> None:
    prune.check_search(POINT, Search(objectives={"val_map": "max", "val_recall_rare": "max"}))
    with pytest.raises(InputError, match=r"search.objectives.val_accuracy: .* is a dataset for multilabel, whose"):
        prune.check_search(POINT, Search(objectives={"val_accuracy": "max"}))


@pytest.mark.parametrize(
    ("point", "change", "message"),
    [
        ({}, {"train": {"loss": "focal"}}, "settings.train.loss: 'focal' is for one label"),
        ({}, {"finetune": {"class_weights": "balanced"}}, "settings.finetune.class_weights: is for one label"),
        ({}, {"patches": {"size": 64}}, "is a dataset for multilabel, which is not cut into patches"),
        ({"model": "unet"}, {}, "'unet' is a network for segmentation, but .* needs one for multilabel: .*resnet20"),
    ],
)
def test_what_is_for_other_tasks_is_refused(point: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prune.check(POINT | point, Settings.model_validate(change))


def test_files_of_the_test_split() -> None:
    labels, chances = np.array([[1, 1], [0, 1]]), np.array([[0.5, 0.2], [0.75, 0.25]], np.float32)
    rows = list(csv.reader(io.StringIO(members.labels_csv(("a.png",) * 2, labels, chances, ("x", "y")).decode())))
    assert rows == [
        ["path", "true", "predicted", "probability:x", "probability:y"],
        ["a.png", "x;y", "x", "0.5", "0.2"],
        ["a.png", "y", "x", "0.75", "0.25"],
    ]


class Logits:
    """A session that gives the same logits for every image."""

    def run(self, _: Any, inputs: dict[str, Any]) -> list[Any]:
        return [np.tile(np.array([[0.0, -200, 3]], np.float32), (len(inputs["image"]), 1))]


def network(task: str = "multilabel") -> Network:
    about = {
        "task": task, "classes": ["x", "y", "z"], "input_shape": [3, 8, 8], "mean": [0.0] * 3, "std": [1.0] * 3,
        "onnx": {"input": "image", "output": "logits"}, "threshold": 0.5,
    }  # fmt: skip
    return Network(Logits(), about)  # type: ignore[arg-type]


def test_predictions_are_sigmoids(tmp_path: Path) -> None:
    picture(0, (8, 8)).save(tmp_path / "a.png")
    found = probabilities(network(), tmp_path / "a.png")
    np.testing.assert_allclose(found, [0.5, 0, 1 / (1 + np.exp(-3))], rtol=1e-6)
    assert probabilities(network("classification"), tmp_path / "a.png").sum() == pytest.approx(1)
    assert network("classification").threshold is None


def test_a_table_has_those_above_the_threshold(tmp_path: Path) -> None:
    with table.opened(tmp_path / "o.csv", ["x", "y", "z"], masks=False, threshold=0.5) as write:
        write({"image": "a.png", "classes": {"z": 0.9, "x": 0.5, "y": 0.25}})
        write({"image": "b.png", "classes": {"z": 0.1, "x": 0.1, "y": 0.25}})
    rows = list(csv.reader((tmp_path / "o.csv").open()))
    assert rows[0] == ["file", "classes", "probability:x", "probability:y", "probability:z"]
    assert [row[1] for row in rows[1:]] == ["x;z", ""]


def test_what_a_bundle_says_is_checked() -> None:
    asked = _parser().parse_args(["bundle", "a.png", "--grid"])
    with pytest.raises(InputError, match="--grid: the images of this network have several classes"):
        _check_options(asked, network())
    for wrong in (0, 1, "0.5", None):
        with pytest.raises((ValueError, TypeError), match=r"threshold|not supported|bad operand"):
            preprocessing.check({**network().about, "threshold": wrong}, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("bands", [None, ["red", "nir"]])
def test_the_card_shows_sigmoids_and_the_threshold(bands: list[str] | None) -> None:
    count = 3 if bands is None else len(bands)
    about = {**network().about, "bands": bands, "input_shape": [count, 8, 8], "mean": [0] * count, "std": [1] * count}
    if bands is not None:
        about |= {"dtype": "uint16", "scale": {"low": [0, 0], "high": [1, 1]}}
    found = usage.texts(about)
    for name in ("predict", "use", *(["alone"] if bands is None else [])):
        assert "threshold" in found[name], name
        assert "softmax" not in found[name], name
    assert ".sigmoid()[0]" in found["use"]
