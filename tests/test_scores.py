"""Scores against scikit-learn and torchmetrics, on random labels: with absent classes, ignored pixels, few samples."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rssearch.data import IGNORE
from rssearch.errors import InputError
from rssearch.metrics import KINDS, human, is_quality, is_share, of_class, title_of
from rssearch.scores import PerClass, Scores, check_name, derived, names_of, pooled, slugs
from rssearch.train.tally import Tally
from tests.support.late import Late

sk = Late("sklearn.metrics")
tm = Late("torchmetrics.functional")

CPU = torch.device("cpu")
Case = tuple[Tensor, Tensor]


def labels(seed: int, classes: int, samples: int, absent: tuple[int, ...] = (), never: tuple[int, ...] = ()) -> Case:
    """Logits [N, K] and labels [N]: some classes have no sample, some are never predicted."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, classes, generator=generator)
    there = torch.tensor([index for index in range(classes) if index not in absent])
    truth = there[torch.randint(len(there), (samples,), generator=generator)]
    logits[torch.arange(samples), truth] += 2
    logits[:, list(never)] = -30
    return logits, truth


CASES = [
    labels(0, 2, 50),
    labels(1, 5, 300),
    labels(2, 7, 400, absent=(0, 6)),
    labels(3, 7, 400, never=(3,)),
    labels(4, 7, 400, absent=(2,), never=(2, 5)),
    labels(5, 30, 40),
    labels(6, 3, 1),
]


def scored(logits: Tensor, truth: Tensor, *, masks: bool = False) -> Scores:
    tally = Tally(logits.shape[1], CPU, masks=masks)
    for x, y in zip(logits.split(37), truth.split(37), strict=True):
        tally.add(x, y)
    return tally.scores([f"c{index}" for index in range(logits.shape[1])])


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_scores_are_those_of_scikit_learn(case: Case) -> None:
    logits, truth = case
    predicted, every = logits.argmax(1), list(range(logits.shape[1]))
    found = scored(logits, truth)
    assert found.matrix.tolist() == sk.confusion_matrix(truth, predicted, labels=every).tolist()
    known = found.metrics()
    assert known["accuracy"] == sk.accuracy_score(truth, predicted)
    assert known["macro_f1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"), rel=1e-12)
    recalls = sk.recall_score(truth, predicted, labels=every, average=None, zero_division=np.nan)
    assert known["balanced_accuracy"] == pytest.approx(np.nanmean(recalls), rel=1e-12)
    assert known["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, predicted), rel=1e-12, abs=1e-15, nan_ok=True)
    rates = {kind: found.per_class.rates(kind) for kind in KINDS}
    np.testing.assert_array_equal(rates["recall"], recalls)
    np.testing.assert_array_equal(rates["accuracy"], recalls)
    for kind, score in (("precision", sk.precision_score), ("f1", sk.f1_score), ("iou", sk.jaccard_score)):
        with np.errstate(invalid="ignore"):
            expected = score(truth, predicted, labels=every, average=None, zero_division=0)
        nowhere = [index for index in every if index not in truth and index not in predicted]
        expected[nowhere] = np.nan
        np.testing.assert_allclose(rates[kind], expected, rtol=1e-12, err_msg=kind)


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_scores_are_those_of_torchmetrics(case: Case) -> None:
    logits, truth = case
    classes = logits.shape[1]
    known = scored(logits, truth).metrics()
    with_mean = {"task": "multiclass", "num_classes": classes, "average": "macro"}
    assert known["macro_f1"] == pytest.approx(tm.f1_score(logits, truth, **with_mean).item(), rel=1e-6)
    expected = tm.calibration_error(logits.softmax(1), truth, task="multiclass", num_classes=classes, n_bins=15)
    assert known["ece"] == pytest.approx(expected.item(), abs=1e-6)
    kappa = tm.cohen_kappa(logits, truth, task="multiclass", num_classes=classes).item()
    assert known["kappa"] == pytest.approx(kappa, rel=1e-5, abs=1e-7, nan_ok=True)


def test_certain_networks_are_calibrated_as_torchmetrics_does() -> None:
    """Confidences of exactly 1 and on the edges of bins."""
    probabilities = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.4], [0.2, 0.8], [0.99, 0.01]])
    truth = torch.tensor([0, 1, 0, 0, 0])
    found = scored(probabilities.log().clamp_min(-200), truth).metrics()["ece"]
    expected = tm.calibration_error(probabilities, truth, task="multiclass", num_classes=2, n_bins=15)
    assert found == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(("absent", "never"), [((), ()), ((4,), ()), ((), (1,)), ((2,), (2,))])
def test_masks_are_scored_over_their_labelled_pixels(absent: tuple[int, ...], never: tuple[int, ...]) -> None:
    logits, truth = labels(7, 5, 4 * 6 * 9, absent, never)
    logits, truth = logits.reshape(4, 6, 9, 5).permute(0, 3, 1, 2), truth.reshape(4, 6, 9)
    truth = truth.where(torch.rand(truth.shape, generator=torch.Generator().manual_seed(1)) > 0.3, IGNORE)
    found = scored(logits, truth, masks=True)
    counted = truth != IGNORE
    flat, kept = logits.permute(0, 2, 3, 1)[counted], truth[counted]
    assert found.matrix.tolist() == scored(flat, kept).matrix.tolist()
    known = found.metrics()
    few = {"task": "multiclass", "num_classes": 5, "ignore_index": IGNORE}
    assert known["ece"] == pytest.approx(tm.calibration_error(logits.softmax(1), truth, **few).item(), abs=1e-6)
    assert known["macro_f1"] == pytest.approx(tm.f1_score(logits, truth, average="macro", **few).item(), rel=1e-6)
    assert known["pixel_accuracy"] == (logits.argmax(1) == truth)[counted].double().mean().item()
    ious = sk.jaccard_score(kept, flat.argmax(1), average=None, zero_division=0)  # of the classes that are somewhere
    assert known["miou"] == pytest.approx(ious.mean(), rel=1e-12)
    assert "miou_foreground" not in known


def test_the_batches_make_no_difference() -> None:
    logits, truth = labels(8, 6, 500)
    whole, single = Tally(6, CPU, masks=False), Tally(None, CPU, masks=False)
    whole.add(logits, truth)
    for x, y in zip(logits.split(1), truth.split(1), strict=True):
        single.add(x, y)
    assert (whole.bins == single.bins).all()
    assert (whole.matrix == single.matrix).all()


def test_the_mean_without_background_by_hand() -> None:
    matrix = np.array([[90, 5, 5], [10, 10, 0], [0, 0, 0]])
    counted = PerClass.of(matrix, ("Building", "BACKGROUND", "water"))
    assert counted.rates("iou").tolist() == [90 / 110, 10 / 25, 0.0]
    assert counted.miou_foreground == pytest.approx((90 / 110 + 0) / 2)
    scores = Scores("segmentation", counted.classes, matrix, np.zeros((3, 16), np.int64), 0.0)
    assert scores.metrics()["miou_foreground"] == counted.miou_foreground
    assert PerClass.of(matrix, ("a", "b", "c")).miou_foreground is None


def test_what_is_not_defined() -> None:
    """Of classes: nowhere, only predicted, never predicted."""
    counted = PerClass.of(np.array([[4, 1, 0, 0], [0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]]), ("a", "b", "c", "d"))
    nan = math.nan
    for kind, expected in {
        "recall": [4 / 5, nan, 0, nan],
        "precision": [4 / 6, 0, 0, nan],
        "f1": [8 / 11, 0, 0, nan],
        "iou": [4 / 7, 0, 0, nan],
    }.items():
        np.testing.assert_array_equal(counted.rates(kind), expected)
    assert counted.balanced_accuracy == (4 / 5 + 0) / 2
    assert counted.value("recall", "b") is None
    assert counted.value("recall", "e") is None
    assert math.isnan(PerClass.of(np.array([[7, 0], [0, 0]]), ("a", "b")).kappa)


def test_kappa_is_exact_for_billions_of_pixels() -> None:
    counted = PerClass.of(np.array([[3 * 10**9, 10**9], [10**9, 3 * 10**9]]), ("a", "b"))
    assert counted.kappa == 0.5


def test_names_of_classes_become_parts_of_names() -> None:
    assert slugs(["Water", "Sports & Recreation ", "Straße", "été", "水", "class_4", "--"]) == [
        *("water", "sports_recreation", "strasse", "ete", "class_4", "class_4", "class_6")
    ]
    assert names_of(["a", "b c"])[:4] == ["val_accuracy_a", "val_accuracy_b_c", "val_recall_a", "val_recall_b_c"]
    assert of_class("baseline_val_recall_storage_tank") == ("baseline_val_", "recall", "storage_tank")
    for name in ("val_accuracy", "val_balanced_accuracy", "val_recall_a_difference", "val_iou_a_std", "recall_a"):
        assert of_class(name) is None
    assert is_quality("val_iou_water")
    assert not is_quality("val_ece")
    assert is_share("test_ece")
    assert (human("val_recall_a", 0.5), human("val_kappa", 0.8), title_of("val_macro_f1")) == (
        *("50.0 %", "0.8", "Validation macro F1"),
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("val_recall_watr", r"'d' has no class 'watr'\. Did you mean 'val_recall_water'\? Its classes: land, water\.$"),
        ("val_iou_", r"'d' has no class ''\. Its classes: land, water\.$"),
        ("val_miou_foreground", r"'d' has no class called 'background'\. Its classes: land, water\.$"),
    ],
)
def test_a_class_that_is_not_there_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_name(name, ("Land", "water"), "d")


def test_two_classes_of_one_name_are_refused_where_one_is_asked_for() -> None:
    check_name("val_recall_land", ("land", "Water", "water "), "d")
    with pytest.raises(InputError, match=r"'d' has 2 classes that are written water .*'Water', 'water '"):
        check_name("val_recall_water", ("land", "Water", "water "), "d")
    check_name("val_miou_foreground", ("land", "Background"), "d")
    check_name("macs", (), "d")


def test_a_record_tells_metrics_of_single_classes() -> None:
    counted = PerClass.of(np.array([[3, 1], [2, 2]]), ("land", "water")).to_json()
    record = json.loads(json.dumps({"val_per_class": counted, "val_recall_land": 0.1}))
    names = ["val_recall_land", "val_recall_water", "val_precision_water", "test_recall_water", "val_iou_x", "macs"]
    assert derived(record, names) == {"val_recall_water": 1 / 2, "val_precision_water": 2 / 3}
    twice = pooled([counted, counted])
    assert twice is not None
    assert twice["right"] == [6, 4]
    assert pooled([counted, None]) is None
    assert pooled([]) is None


@pytest.mark.parametrize(
    "damage", [{"true": [1]}, {"right": None}, {"true": [1, "2"]}, {"true": [1, -2]}, {"true": [True, 1]}]
)
def test_damaged_counts_are_none(damage: dict[str, object]) -> None:
    counted = PerClass.of(np.array([[3, 1], [2, 2]]), ("land", "water")).to_json()
    assert PerClass.read(counted) is not None
    assert PerClass.read(counted | damage) is None
    assert PerClass.read(None) is None
