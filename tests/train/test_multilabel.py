"""Images with several labels: losses and metrics against PyTorch and scikit-learn."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rssearch.config.settings import Recipe
from rssearch.errors import InputError, TrialFailed
from rssearch.train import balance, losses
from rssearch.train.multilabel import LabelTally, average_precision
from tests.support.late import Late

sk = Late("sklearn.metrics")


def batch(seed=0, images=60, classes=5, share=0.3, steps=None):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (images, classes)).astype(np.float32))
    if steps:
        logits = (logits * steps).round() / steps  # many images have one score
    return logits, torch.from_numpy((rng.random((images, classes)) < share).astype(np.float32))


def scores(logits, targets, parts=1, classes=None):
    tally = LabelTally()
    for x, y in zip(logits.tensor_split(parts), targets.tensor_split(parts), strict=True):
        tally.add(x, y)
    return tally.scores(classes or [f"c{number}" for number in range(logits.shape[1])])


@pytest.mark.parametrize("steps", [None, 2, 1])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_those_of_scikit_learn(seed, steps):
    logits, targets = batch(seed, steps=steps)
    found = scores(logits, targets).metrics()
    truth, chances = targets.numpy().astype(int), logits.sigmoid().numpy()
    given = (chances >= 0.5).astype(int)
    assert found["map"] == pytest.approx(sk.average_precision_score(truth, chances, average="macro"), abs=1e-12)
    assert found["micro_f1"] == pytest.approx(sk.f1_score(truth, given, average="micro"), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, given, average="macro"), abs=1e-12)
    assert found["loss"] == pytest.approx(F.binary_cross_entropy_with_logits(logits, targets).item(), rel=1e-6)


def test_the_size_of_batches_makes_no_difference():
    logits, targets = batch()
    one, two = scores(logits, targets), scores(logits, targets, 7)
    assert one.metrics() == pytest.approx(two.metrics(), rel=1e-6)
    assert one.precisions.tolist() == two.precisions.tolist()


def test_classes_that_no_image_has_are_left_out_of_the_mean():
    logits, targets = batch(classes=3)
    targets[:, 1] = 0
    found = scores(logits, targets)
    assert np.isnan(found.precisions).tolist() == [False, True, False]
    assert found.metrics()["map"] == pytest.approx(found.precisions[[0, 2]].mean())


def test_metrics_of_single_classes():
    logits, targets = torch.tensor([[2.0, -1], [1, 1], [-1, 3]]), torch.tensor([[1.0, 1], [0, 1], [1, 0]])
    found = scores(logits, targets, classes=["Open water", "b"]).metrics(
        ["recall_open_water", "precision_b", "f1_none"]
    )
    assert found["recall_open_water"] == 0.5
    assert found["precision_b"] == 0.5
    assert np.isnan(found["f1_none"])


def test_average_precision_by_hand():
    assert average_precision(np.array([1, 0, 1], bool), np.array([3.0, 2, 1])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([1, 0], bool), np.array([1.0, 1])) == 0.5  # of one score: no rank between them


def test_a_loss_that_is_no_number_ends_the_trial():
    logits, targets = batch()
    logits[0, 0] = float("nan")
    with pytest.raises(TrialFailed, match="the loss on 60 images outside the training is nan"):
        scores(logits, targets)


def test_losses():
    logits, targets = batch()
    assert losses.cross_entropy(logits, targets) == F.binary_cross_entropy_with_logits(logits, targets)
    smooth = targets * 0.8 + 0.1
    found = losses.cross_entropy(logits, targets, label_smoothing=0.2)
    assert found.item() == pytest.approx(F.binary_cross_entropy_with_logits(logits, smooth).item(), rel=1e-6)
    assert losses.labelled(targets) == len(targets)
    taught, _ = batch(1)
    p, q = (taught / 2).sigmoid().double(), (logits / 2).sigmoid().double()
    by_hand = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean() * 4
    assert losses.distillation(logits, taught, 2.0, targets).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert losses.distillation(logits, logits, 2.0, targets) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "focal"}, "loss: 'focal' is for one label; for multilabel there is cross_entropy"),
        ({"loss": "adaptive_mining"}, "is for one label"),
        ({"loss": "dice"}, "is for one label"),
        ({"class_weights": "balanced"}, "class_weights: is for one label"),
    ],
)
def test_what_is_for_one_label_is_refused(change, message):
    balance.check_task(Recipe(), "multilabel")
    with pytest.raises(InputError, match=message):
        balance.check_task(Recipe(**change), "multilabel")
