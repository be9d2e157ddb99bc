"""Losses against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F

from rssearch.data import IGNORE
from rssearch.train.losses import adaptive_mining, cross_entropy, distillation, focal


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(16, 10, generator=generator, dtype=torch.float32) * 3
    return logits, torch.randint(10, (16,), generator=generator)


def test_cross_entropy_with_label_smoothing(batch):
    logits, targets = batch
    smooth = 0.9 * F.one_hot(targets, 10) + 0.1 / 10
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    assert cross_entropy(logits, targets, 0.1).item() == pytest.approx(expected.item(), rel=1e-6)
    assert cross_entropy(torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)).item() == pytest.approx(math.log(8))


def test_distillation_is_the_scaled_divergence():
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0 * math.log(3), 0.0]])
    # at T = 4 the teacher says (3/4, 1/4) and the student (1/2, 1/2)
    expected = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert distillation(student, teacher, 4.0).item() == pytest.approx(expected, rel=1e-5)


def test_distillation_is_zero_for_equal_distributions_and_positive_else(batch):
    logits, _ = batch
    assert distillation(logits, logits + 5, 4.0).item() == pytest.approx(0, abs=1e-5)
    assert distillation(logits, logits.flip(1), 4.0).item() > 0.1


def test_distillation_gradient_approaches_matching_logits_at_high_temperature(batch):
    # Hinton et al. 2015, eq. (4): for large T the gradient is (z - v) / K for logits of zero mean
    student = (batch[0] - batch[0].mean(1, keepdim=True)).requires_grad_()
    teacher = student.detach().flip(1)
    distillation(student, teacher, 1e3).backward()
    expected = (student.detach() - teacher) / 10 / len(teacher)
    assert torch.allclose(student.grad, expected, atol=2e-3)


def test_mining_term_lies_in_its_bounds():
    for classes, top in ((10, 1.2712), (21, 1.1099), (45, 1.0475)):
        right, targets = torch.full((3, classes), -50.0), torch.tensor([0, 1, 2])
        right[range(3), targets] = 50.0
        for logits, expected in ((right, 1.0), (-right, top)):
            # with the logits turned around all mass lies on the other classes
            term = adaptive_mining(logits, targets) - cross_entropy(logits, targets)
            assert term.item() == pytest.approx(expected, abs=1e-4)


def test_mining_gradient_equals_its_formula(batch):
    logits, targets = batch
    logits = logits.clone().requires_grad_()
    (adaptive_mining(logits, targets) - cross_entropy(logits, targets)).backward()
    p = logits.detach().softmax(1)
    hit = p.gather(1, targets[:, None])
    d = 2 * (1 - hit) / 10
    weight = torch.exp(d + d**2) * (1 + 2 * d) * 2 / 10 * hit
    expected = -weight * (F.one_hot(targets, 10) - p) / len(targets)
    assert torch.allclose(logits.grad, expected, atol=1e-6)


def test_mining_smooths_only_the_cross_entropy(batch):
    logits, targets = batch
    smoothed = adaptive_mining(logits, targets, 0.2) - cross_entropy(logits, targets, 0.2)
    plain = adaptive_mining(logits, targets) - cross_entropy(logits, targets)
    assert smoothed.item() == pytest.approx(plain.item(), abs=1e-5)


def test_losses_are_float32_whatever_the_logits_are(batch):
    logits, targets = batch
    half = logits.bfloat16()
    labelled = (loss(half, targets) for loss in (cross_entropy, adaptive_mining, focal))
    for loss in (*labelled, distillation(half, half, 2.0)):
        assert loss.dtype == torch.float32


def test_dense_logits_are_averaged_over_pixels(batch):
    logits, targets = batch
    dense, labels = logits.reshape(4, 4, 10).permute(0, 2, 1), targets.reshape(4, 4)
    for loss in (cross_entropy, adaptive_mining, focal):
        assert loss(dense, labels).item() == pytest.approx(loss(logits, targets).item(), rel=1e-6)
    other = dense.flip(1)
    assert distillation(dense, other, 4.0).item() == pytest.approx(
        distillation(logits, logits.flip(1), 4.0).item(), rel=1e-5
    )


@pytest.mark.parametrize("loss", [cross_entropy, adaptive_mining, focal])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pixels_without_a_label_count_nowhere(loss, smoothing, batch):
    logits, targets = batch
    dense, labels = logits.reshape(4, 4, 10).permute(0, 2, 1), targets.reshape(4, 4).clone()
    labels[1:, 2] = IGNORE
    counted = (labels != IGNORE).ravel()
    expected = loss(logits[counted], targets[counted], smoothing)
    assert loss(dense, labels, smoothing).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(dense, torch.full_like(labels, IGNORE), smoothing) == 0


def test_distillation_can_leave_pixels_out(batch):
    logits, targets = batch
    dense, labels = logits.reshape(4, 4, 10).permute(0, 2, 1), targets.reshape(4, 4).clone()
    labels[1:, 2] = IGNORE
    counted = (labels != IGNORE).ravel()
    expected = distillation(logits[counted], logits.flip(1)[counted], 4.0)
    assert distillation(dense, dense.flip(1), 4.0, labels).item() == pytest.approx(expected.item(), rel=1e-6)
    assert distillation(logits, logits.flip(1), 4.0, targets) == distillation(logits, logits.flip(1), 4.0)


@pytest.mark.parametrize("loss", [cross_entropy, adaptive_mining, focal])
def test_an_image_may_have_the_class_255(loss):
    logits, label = torch.zeros(1, 300), torch.tensor([IGNORE])
    assert loss(logits, label).item() == pytest.approx(loss(logits, torch.tensor([7])).item())
    assert loss(logits, label) > 1


def test_a_weighted_loss_is_a_mean_over_the_samples(batch):
    logits, targets = batch
    weight = torch.arange(1.0, 11.0)
    for loss in (cross_entropy, adaptive_mining, focal):
        each = torch.stack([loss(logits[i : i + 1], targets[i : i + 1]) for i in range(16)])
        expected = (each * weight[targets]).mean()
        assert loss(logits, targets, 0.0, weight).item() == pytest.approx(expected.item(), rel=1e-6)
        assert loss(logits, targets, 0.1, torch.ones(10)).item() == pytest.approx(loss(logits, targets, 0.1).item())
    reference = F.cross_entropy(logits, targets, weight, label_smoothing=0.1)  # divided by the weights of the batch
    found = cross_entropy(logits, targets, 0.1, weight)
    assert found.item() == pytest.approx((reference * weight[targets].mean()).item(), rel=1e-6)


def test_focal_loss_by_its_formula(batch):
    logits, targets = batch
    p = logits.softmax(1)
    for gamma, smoothing in ((2.0, 0.0), (0.5, 0.0), (2.0, 0.2)):
        label = (1 - smoothing) * F.one_hot(targets, 10) + smoothing / 10
        weight = torch.linspace(0.5, 2, 10)
        expected = -(label * weight * (1 - p) ** gamma * p.log()).sum(1).mean()
        assert focal(logits, targets, smoothing, weight, gamma).item() == pytest.approx(expected.item(), rel=1e-5)
    for smoothing in (0.0, 0.2):
        plain = cross_entropy(logits, targets, smoothing)
        assert focal(logits, targets, smoothing, gamma=0.0).item() == pytest.approx(plain.item(), rel=1e-6)


def test_focal_loss_has_a_gradient_where_a_network_is_certain():
    for gamma in (0.0, 0.5, 1.0, 2.0):
        logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
        loss = focal(logits, torch.tensor([0, 0]), gamma=gamma)
        loss.backward()
        assert loss.item() == pytest.approx(100)
        assert torch.equal(logits.grad, torch.tensor([[0.0, 0.0], [-0.5, 0.5]]))
