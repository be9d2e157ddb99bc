"""Metrics of classes in trials: what they report, what members of the front and baselines leave, what is asked for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssearch.config.loading import parse_study
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.report.members import FILES
from rssearch.scores import PerClass
from rssearch.storage.journal import Journal
from rssearch.study import class_metrics
from rssearch.study.definition import StudyDefinition
from rssearch.trial.interface import MEMBERS
from rssearch.trial.session import Context, Session
from rssearch.trials import images, micronet, prune
from rssearch.trials.keys import BASELINES
from rssearch.trials.point import PruningPoint
from rssearch.trials.pruning_trial import PruningTrial
from tests.support.late import Late
from tests.support.records import record
from tests.trials.test_segmentation import data_root as scene_root
from tests.trials.test_segmentation import settings as scene_settings

sk = Late("sklearn.metrics")

__all__ = ["scene_root", "scene_settings"]  # fixtures

POINT: dict[str, Any] = {"dataset": "folder:scenes", "model": "resnet20", "method": "l1", "rate": 0.5, "seed": 0}
SCENES: dict[str, Any] = {"dataset": "segmentation_folder:scenes", "model": "unet", "method": "l1", "rate": 0.5}
NAMED = ("val_recall_river", "val_iou_town", "macs")


def opened(storage: Path, root: Path, settings: Settings, point: dict[str, Any], key: str) -> Session:
    return Session(Context("s", str(storage), str(root), settings, named=NAMED), key, point)


def read(files: dict[str, bytes], name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(files[name].decode(), newline="")))


def matrix_of(files: dict[str, bytes]) -> np.ndarray[Any, Any]:
    return np.array([[int(value) for value in list(row.values())[1:]] for row in read(files, "confusion.csv")])


@pytest.fixture(scope="module")
def classified(storage: Path, data_root: Path, settings: Settings) -> tuple[Session, dict[str, Any], dict[str, Any]]:
    session = opened(storage, data_root, settings, POINT, "classified")
    return session, prune.run(POINT, session), prune.measure(POINT, session)


def test_a_trial_reports_what_is_asked_of_single_classes(classified: tuple[Session, Any, Any]) -> None:
    _, result, _ = classified
    for before in ("", "baseline_"):
        counted = PerClass.read(result[f"{before}val_per_class"])
        assert counted is not None
        assert counted.classes == ("forest", "river", "town")
        assert counted.true.tolist() == [4, 4, 4]
        assert result[f"{before}val_recall_river"] == counted.right[1] / 4
        assert result[f"{before}val_iou_town"] == counted.rates("iou")[2]
        assert result[f"{before}val_macro_f1"] == counted.macro_f1
    assert {*NAMED[:2]} <= result["history"][-1].keys()
    assert "val_recall_town" not in result


def test_a_member_and_its_baseline_leave_what_they_do_with_the_test_split(
    classified: tuple[Session, Any, Any], data_root: Path
) -> None:
    session, _, measured = classified
    for before, key in (("", session.key), ("baseline_", measured["baseline_key"])):
        files = session.store.get(MEMBERS, key)
        assert files is not None
        assert {*files} == {*FILES}
        assert files["confusion.png"].startswith(b"\x89PNG")
        rows = read(files, "predictions.csv")
        truth, predicted = [row["true"] for row in rows], [row["predicted"] for row in rows]
        assert len(rows) == measured[f"{before}test_images"] == 12
        classes = ["forest", "river", "town"]
        for row in rows:
            assert (data_root / "scenes" / row["path"]).is_file()
            assert row["path"].startswith(f"{row['true']}/")
            shares = {name: float(row[f"probability:{name}"]) for name in classes}
            assert max(shares, key=lambda name: shares[name]) == row["predicted"]
            assert float(row["probability"]) == max(shares.values())
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert measured[f"{before}test_accuracy"] == sk.accuracy_score(truth, predicted)
        macro = sk.f1_score(truth, predicted, average="macro")
        assert measured[f"{before}test_macro_f1"] == pytest.approx(macro, rel=1e-12)
        assert matrix_of(files).tolist() == sk.confusion_matrix(truth, predicted, labels=classes).tolist()
        recalls = sk.recall_score(truth, predicted, labels=classes, average=None)
        assert [float(row["recall"]) for row in read(files, "per_class.csv")] == pytest.approx(recalls.tolist())


def test_of_scenes_the_classes_of_each_are_told(storage: Path, scene_root: Path, scene_settings: Settings) -> None:
    session = opened(storage, scene_root, scene_settings, SCENES, "scenes")
    prune.run(SCENES, session)
    measured = prune.measure(SCENES, session)
    files = session.store.get(MEMBERS, session.key)
    assert files is not None
    rows = read(files, "predictions.csv")
    assert len(rows) == 2 * measured["test_images"] == 4
    total = np.zeros((2, 2), int)
    for place, row in enumerate(rows):
        total[place % 2] += [int(row["predicted:ground"]), int(row["predicted:roof"])]
        assert int(row["pixels"]) == int(row["predicted:ground"]) + int(row["predicted:roof"])
    assert matrix_of(files).tolist() == total.tolist()
    assert measured["test_pixel_accuracy"] == total.trace() / total.sum()
    assert "test_miou_foreground" not in measured


def test_without_a_test_split_nothing_is_left(tmp_path: Path, data_root: Path, settings: Settings) -> None:
    split = {"train": 0.8, "val": 0.2, "test": 0.0}
    settings = Settings.model_validate(settings.model_dump() | {"split": split})
    session = opened(tmp_path, data_root, settings, POINT, "untested")
    prune.run(POINT, session)
    measured = prune.measure(POINT, session)
    assert measured["test_per_class"] is None
    assert "test_accuracy" not in measured
    assert "baseline_key" not in measured
    assert session.store.get(MEMBERS, session.key) is None


def test_a_baseline_of_an_earlier_release_is_validated_once_more(
    tmp_path: Path, data_root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(tmp_path, data_root, settings, POINT, "later")
    whole = PruningTrial(PruningPoint(POINT, settings), session).baseline.metrics
    key = PruningTrial(PruningPoint(POINT, settings), session).keys.baseline
    files = session.store.get(BASELINES, key)
    assert files is not None
    old = {name: value for name, value in whole.items() if name in ("val_accuracy", "val_loss", "macs", "history")}
    session.store.put(BASELINES, key, files | {"metrics.json": json.dumps(old | {"val_loss": 0.25}).encode()})
    again = PruningTrial(PruningPoint(POINT, settings), session).baseline.metrics
    assert again["val_per_class"] == whole["val_per_class"]
    assert again["val_macro_f1"] == whole["val_macro_f1"]
    assert again["val_loss"] == 0.25  # what was measured stays
    monkeypatch.setattr(PruningTrial, "validate", None)  # it is in the store by now
    assert PruningTrial(PruningPoint(POINT, settings), session).baseline.metrics == again


# What a study asks for


def study(tmp_path: Path, root: Path, search: dict[str, Any], point: dict[str, Any] = POINT) -> StudyDefinition:
    document = {
        "study": "s",
        "trial": "trials.prune:run",
        "space": {name: [value] for name, value in point.items()},
        "search": search,
        "data_root": str(root),
        "storage": str(tmp_path),
    }
    return StudyDefinition(parse_study(document, "s.yaml"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "val_recall_rivr",
            "'folder:scenes' has no class 'rivr'. Did you mean 'val_recall_river'? Its classes: forest",
        ),
        ("val_iou_lake", "'folder:scenes' has no class 'lake'. Its classes: forest, river, town."),
        ("val_recal_river", "unknown metric 'val_recal_river'. Did you mean 'val_recall_river'? Known: "),
        ("val_macro_f2", "unknown metric 'val_macro_f2'. Did you mean 'val_macro_f1'?"),
        ("val_miou_foreground", "'folder:scenes' is a dataset for classification, whose trials report val_accuracy"),
    ],
)
def test_what_no_class_has_is_refused_before_anything_starts(
    tmp_path: Path, data_root: Path, name: str, message: str
) -> None:
    for search in ({"objectives": {name: "max"}}, {"constraints": {name: {"min": 0.5}}}):
        with pytest.raises(InputError) as error:
            study(tmp_path / "storage", data_root, search)
        (section,) = search
        assert str(error.value).startswith(f"search.{section}.{name}: {message}")
    assert not (tmp_path / "storage").exists()


def test_a_background_must_be_there(tmp_path: Path, scene_root: Path) -> None:
    with pytest.raises(InputError, match=r"search.objectives.val_miou_foreground: .* has no class called 'background'"):
        study(tmp_path, scene_root, {"objectives": {"val_miou_foreground": "max"}}, SCENES)
    assert micronet.PER_CLASS == prune.PER_CLASS


def test_epochs_report_them_for_early_stopping(tmp_path: Path, data_root: Path) -> None:
    search = {"objectives": {"val_recall_river": "max"}, "early_stopping": "asha", "sampler": "random"}
    found = study(tmp_path, data_root, search)
    assert found.early_stopping_objectives == {"val_recall_river": "max"}
    assert found.context().named == ("val_recall_river",)


def test_a_constraint_on_a_class_does_not_change_a_trial(tmp_path: Path, data_root: Path) -> None:
    plain = study(tmp_path, data_root, {})
    asked = study(tmp_path, data_root, {"constraints": {"val_recall_river": {"min": 0.5}}})
    assert plain.key(POINT) == asked.key(POINT)


def test_finished_trials_tell_what_is_asked_later_or_run_again(
    tmp_path: Path, data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = study(tmp_path, data_root, {"constraints": {"val_recall_river": {"min": 0.5}}})
    journal = Journal(tmp_path / "trials.jsonl")
    counted = PerClass.of(np.array([[4, 0, 0], [1, 3, 0], [0, 0, 4]]), ("forest", "river", "town")).to_json()
    metrics = {"val_accuracy": 0.9, "macs": 1}
    journal.add(record(asked.key(POINT), point=POINT, metrics={**metrics, "val_per_class": counted}))
    (found,) = asked.current(journal)
    assert found.metrics["val_recall_river"] == 0.75
    journal.add(record(asked.key(POINT), point=POINT, metrics=metrics))
    assert asked.current(journal) == []
    assert "has no val_recall_river; it runs again" in caplog.text
    assert len(study(tmp_path, data_root, {}).current(journal)) == 1


def test_a_class_without_a_validation_sample_is_refused(data_root: Path, settings: Settings) -> None:
    found = images.load(PruningPoint(POINT, settings), data_root)
    class_metrics.check_data(NAMED, found)
    river = found.classes.index("river")
    found.indices["val"] = np.array([i for i in found.indices["val"] if found.labels[i] != river])
    class_metrics.check_data(["val_iou_town"], found)
    with pytest.raises(
        InputError, match=r"^val_recall_river is not defined: no validation sample of 'folder:scenes' is"
    ):
        class_metrics.check_data(NAMED, found)


def test_of_scenes_too(scene_root: Path, scene_settings: Settings) -> None:
    found = images.load(PruningPoint(SCENES, scene_settings), scene_root)
    class_metrics.check_data(["val_recall_roof"], found)
    for mask in found.scenes.masks:
        mask[mask == 1] = 0
    with pytest.raises(InputError, match="is of the class 'roof'"):
        class_metrics.check_data(["val_recall_roof"], found)
