"""Dice and Lovasz losses against their definitions, and against segmentation_models_pytorch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rssearch.data import IGNORE
from rssearch.train.overlap import dice, lovasz
from tests.support.late import Late

smp = Late("segmentation_models_pytorch")

LOSSES = [dice, lovasz]


def masks(images: int = 3, classes: int = 4, size: int = 6) -> tuple[Tensor, Tensor]:
    """Logits, and masks of which the first has no pixel of the last class."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(images, classes, size, size, generator=generator)
    targets = torch.randint(classes, (images, size, size), generator=generator)
    targets[0, targets[0] == classes - 1] = 0
    return logits, targets


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, [logits])[0]


def test_dice_is_that_of_the_library_over_the_classes_that_are_there() -> None:
    library = smp.losses.DiceLoss("multiclass", ignore_index=IGNORE)
    logits, targets = masks()
    targets[1, :2] = IGNORE
    logits.requires_grad_()
    for image, mask in zip(logits.split(1), targets.split(1), strict=True):
        there = len(set(mask.unique().tolist()) - {IGNORE})
        # The library's mean is over all classes, where those that are not there count 0.
        expected = library(image, mask) * 4 / there
        found = dice(image, mask)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradient(found, logits), gradient(expected, logits))


@pytest.mark.parametrize("ignored", [0, 2])
def test_lovasz_is_that_of_the_library_for_each_image(ignored: int) -> None:
    losses = smp.losses
    library = losses.LovaszLoss("multiclass", per_image=True, ignore_index=IGNORE)
    logits, targets = masks()
    logits.requires_grad_()
    targets[:, :ignored] = IGNORE  # as many in each image: the library does not weigh them
    expected, found = library(logits, targets), lovasz(logits, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, logits), gradient(expected, logits))


def test_of_sure_predictions_they_are_the_measures_themselves() -> None:
    targets = torch.tensor([[[0, 0, 1, 1]]])
    logits = 100 * torch.nn.functional.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 3).permute(0, 3, 1, 2).float()
    # class 0: 1 pixel of 1 predicted and 2 true; class 1: 2 of 3 predicted and 2 true
    assert dice(logits, targets).item() == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)
    assert lovasz(logits, targets).item() == pytest.approx(1 - (1 / 2 + 2 / 3) / 2)
    for loss in LOSSES:
        assert loss(logits, torch.tensor([[[0, 1, 1, 1]]])).item() == pytest.approx(0, abs=1e-6)
    weight = torch.tensor([3.0, 1.0, 50.0])  # the third class is not there
    assert dice(logits, targets, weight).item() == pytest.approx(1 - (3 * 2 / 3 + 4 / 5) / 4)
    assert lovasz(logits, targets, weight).item() == pytest.approx(1 - (3 * 1 / 2 + 2 / 3) / 4)


@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_without_a_label_change_nothing(loss) -> None:
    logits, targets = masks()
    targets[:, 3:] = IGNORE
    other = logits.clone()
    other[:, :, 3:] = -logits[:, :, 3:]
    assert loss(logits, targets) == loss(other, targets)
    torch.testing.assert_close(loss(logits, targets), loss(logits[:, :, :3], targets[:, :3]))
    other.requires_grad_()
    slope = gradient(loss(other, targets), other)
    assert not slope[:, :, 3:].any()
    assert slope[:, :, :3].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_images_count_by_their_labelled_pixels(loss) -> None:
    logits, targets = masks()
    whole = torch.stack([loss(image, mask) for image, mask in zip(logits.split(1), targets.split(1), strict=True)])
    torch.testing.assert_close(loss(logits, targets), whole.mean())
    targets[0] = IGNORE
    targets[1, :2] = IGNORE  # 24 pixels are left of 36
    parts = torch.stack([loss(image, mask) for image, mask in zip(logits.split(1), targets.split(1), strict=True)])
    assert parts[0] == 0
    torch.testing.assert_close(loss(logits, targets), (24 * parts[1] + 36 * parts[2]) / 60)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_label_there_is_neither_loss_nor_gradient(loss) -> None:
    logits, targets = masks()
    logits.requires_grad_()
    found = loss(logits, torch.full_like(targets, IGNORE), torch.ones(4))
    assert found.item() == 0
    assert not gradient(found, logits).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_they_are_computed_in_float32(loss) -> None:
    logits, targets = masks()
    half = logits.bfloat16()
    assert loss(half, targets).dtype == torch.float32
    torch.testing.assert_close(loss(half, targets), loss(half.float(), targets), rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_gpu_gives_what_the_cpu_gives(loss) -> None:
    logits, targets = masks(size=32)
    targets[1, :9] = IGNORE
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    values, slopes = [], []
    for device in ("cpu", "cuda", "cuda"):
        moved = logits.detach().to(device).requires_grad_()
        value = loss(moved, targets.to(device), weight.to(device))
        values.append(value.item())
        slopes.append(gradient(value, moved).cpu())
    assert values[1] == values[2] == pytest.approx(values[0], rel=1e-5)
    assert torch.equal(slopes[1], slopes[2])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-7)
