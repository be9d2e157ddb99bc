"""Metrics of segmentation by hand and by brute force, and whole scenes from tiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rssearch.data import IGNORE
from rssearch.errors import InputError, TrialFailed
from rssearch.train import segmentation
from rssearch.train.segmentation import confusion, evaluate_scenes, iou, miou, pixel_accuracy, predict_scene
from tests.support.scenes import scene_set, tiny

CPU = torch.device("cpu")


def test_confusion_by_hand() -> None:
    targets = torch.tensor([[0, 0, 0, 1], [1, 1, IGNORE, 2]])
    predicted = torch.tensor([[0, 1, 0, 1], [1, 0, 2, 1]])
    matrix = confusion(predicted, targets, 4)
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    # intersection over union: 2/(3+3-2), 2/(3+4-2), 0/(1+0-0), and a class that is nowhere
    assert iou(matrix).tolist()[:3] == [0.5, 0.4, 0.0]
    assert math.isnan(iou(matrix)[3])
    assert miou(matrix) == (0.5 + 0.4 + 0.0) / 3
    assert pixel_accuracy(matrix) == 4 / 7


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = confusion(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0]), 2)
    assert iou(matrix).tolist() == [2 / 3, 0.0]
    assert miou(matrix) == 1 / 3


def test_metrics_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    predicted, targets = rng.integers(0, 5, (3, 17, 19)), rng.integers(0, 5, (3, 17, 19))
    targets[rng.random(targets.shape) < 0.2] = IGNORE
    matrix = confusion(torch.from_numpy(predicted), torch.from_numpy(targets), 5)
    counted = targets != IGNORE
    expected = []
    for label in range(5):
        found, there = (predicted == label) & counted, targets == label
        expected.append((found & there).sum() / (found | there).sum())
    assert iou(matrix).tolist() == pytest.approx(expected, rel=1e-15)
    assert miou(matrix) == pytest.approx(np.mean(expected), rel=1e-15)
    assert pixel_accuracy(matrix) == (predicted == targets)[counted].mean()


def test_a_tally_does_not_depend_on_the_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, 5, 7, generator=generator)
    targets = torch.randint(0, 3, (6, 5, 7), generator=generator)
    targets[0] = IGNORE  # a whole image, and one pixel
    targets[3, 2, 2] = IGNORE
    found = []
    for sizes in ([6], [1, 2, 3]):
        tally = segmentation.Tally(3, CPU)
        for x, y in zip(logits.split(sizes), targets.split(sizes), strict=True):
            tally.add(x, y)
        found.append(tally.metrics())
    counted = targets != IGNORE
    expected = nn.functional.cross_entropy(logits.permute(0, 2, 3, 1)[counted], targets[counted]).item()
    for metrics in found:
        assert metrics["loss"] == pytest.approx(expected, rel=1e-6)
        assert metrics["pixel_accuracy"] == (logits.argmax(1) == targets)[counted].double().mean().item()
    assert found[0]["miou"] == found[1]["miou"]


def test_a_tally_refuses_what_means_nothing() -> None:
    tally = segmentation.Tally(3, CPU)
    tally.add(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), IGNORE))
    with pytest.raises(InputError, match="no labelled pixel"):
        tally.metrics()
    tally.add(torch.full((1, 3, 4, 4), math.nan), torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(TrialFailed, match="the loss on 16 pixels outside the training is nan"):
        tally.metrics()


class Recorded(nn.Module):
    """A network that sees one pixel for each output, and remembers the shapes of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.seen = nn.Conv2d(3, 4, 1, bias=False), list[torch.Size]()
        with torch.no_grad():
            self.inner.weight.copy_(torch.arange(12).reshape(4, 3, 1, 1) / 8)  # exact in float32

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.shape)
        logits: Tensor = self.inner(x)
        return logits


def scene(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 255, (3, height, width), generator=generator).float()


@pytest.mark.parametrize("overlap", [0, 4, 7, 15])
@pytest.mark.parametrize(("height", "width"), [(64, 48), (61, 45), (16, 33), (9, 40), (5, 3), (1, 1)])
def test_what_sees_single_pixels_does_not_notice_the_tiles(height: int, width: int, overlap: int) -> None:
    model, image = Recorded(), scene(height, width)
    found = predict_scene(model, image, size=16, overlap=overlap, batch_size=3)
    assert found.shape == (4, height, width)
    assert found.dtype == torch.float32
    assert all(shape[1:] == (3, 16, 16) and shape[0] <= 3 for shape in model.seen)
    with torch.no_grad():
        assert torch.allclose(found, model(image[None])[0], rtol=1e-6)


def test_without_overlap_it_is_the_plain_tiling() -> None:
    model, image = tiny().eval(), scene(32, 48) / 255
    found = predict_scene(model, image, size=16, batch_size=2)
    with torch.inference_mode():
        for row in (0, 16):
            for column in (0, 16, 32):
                place = np.s_[:, row : row + 16, column : column + 16]
                assert torch.allclose(found[place], model(image[place][None])[0], atol=1e-6)


def test_overlapping_tiles_are_blended_linearly() -> None:
    """Tiles that disagree: each gives its number; across the overlap the mean moves from one to the next."""

    class Numbered(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            first = self.calls
            self.calls += len(x)
            return torch.arange(first, self.calls).float()[:, None, None, None].expand(-1, 1, *x.shape[2:])

    found = predict_scene(Numbered(), torch.zeros(3, 4, 10), size=4, overlap=1, batch_size=8)[0]
    assert found.shape == (4, 10)  # tiles begin at 0, 3, 6
    assert found[0].tolist() == [0, 0, 0, 0.5, 1, 1, 1.5, 2, 2, 2]
    found = predict_scene(Numbered(), torch.zeros(3, 4, 6), size=4, overlap=2, batch_size=1)[0]
    assert found[3].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    found = predict_scene(Numbered(), torch.zeros(3, 6, 4), size=4, overlap=2, batch_size=1)[0]
    assert found[:, 0].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    # without overlap, the last tile is moved inwards and shares what it must
    found = predict_scene(Numbered(), torch.zeros(3, 4, 6), size=4, overlap=0)[0]
    assert found[0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


def test_a_small_scene_is_mirrored() -> None:
    model, image = Recorded(), scene(3, 5)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predict_scene(model, image, size=8, overlap=2)
    expected = image[:, [0, 1, 2, 1, 0, 1, 2, 1]][:, :, [0, 1, 2, 3, 4, 3, 2, 1]]
    assert torch.equal(seen[0][0], expected)


def test_modes_are_restored_and_no_gradient_is_kept() -> None:
    model = tiny().train()
    model.bottom.eval()
    found = predict_scene(model, scene(16, 16) / 255, size=8, overlap=2)
    assert not found.requires_grad
    assert model.training
    assert not model.bottom.training


@pytest.mark.parametrize(("size", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_tiles_that_cannot_be(size: int, overlap: int) -> None:
    with pytest.raises(InputError, match=f"tiles of {size} pixels cannot overlap by {overlap}"):
        predict_scene(tiny(), scene(16, 16), size=size, overlap=overlap)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 16, 16, dtype=torch.uint16), r"the image is uint16 \[3, 16, 16\], but float32 \[C, H, W\]"),
        (torch.zeros(3, 16, 16, dtype=torch.uint8), r"the image is uint8 \[3, 16, 16\], but float32 \[C, H, W\]"),
        (torch.zeros(1, 3, 16, 16), r"the image is float32 \[1, 3, 16, 16\], but float32 \[C, H, W\]"),
        (torch.zeros(5, 16, 16), "the image has 5 bands, but the network takes 3"),
        (torch.zeros(2, 16, 16), "the image has 2 bands, but the network takes 3"),
    ],
)
def test_images_of_another_type_or_other_bands(image: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict_scene(tiny(), image, size=8)


def test_what_else_fails_in_a_network_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"size of tensor|Sizes of tensors"):
        predict_scene(tiny(), scene(21, 21), size=7)  # its levels need an even size


@pytest.mark.parametrize("overlap", [0, 3])
def test_scenes_are_measured_whole_and_each_pixel_once(overlap: int) -> None:
    images = scene_set(shape=(22, 18))
    model, split = tiny(), images.split("test")
    found = evaluate_scenes(model, split, size=8, overlap=overlap, batch_size=4, device=CPU)
    tally, pixels = segmentation.Tally(3, CPU), 0
    for whole in split.scenes():
        logits = predict_scene(model, whole.image, size=8, overlap=overlap)
        tally.add(logits[None], whole.mask[None])
        pixels += int((whole.mask != IGNORE).sum())
    assert int(tally.matrix.sum()) == pixels == 2 * (22 * 18 - 6 * 5)
    assert found == {name: pytest.approx(value, rel=1e-6) for name, value in tally.metrics().items()}


def test_memory_is_bounded_by_a_row_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    images, heights = scene_set(shape=(200, 16)), list[int]()
    add = segmentation.Tally.add

    def watched(self: Any, logits: Tensor, targets: Tensor) -> None:
        heights.append(logits.shape[2])
        add(self, logits, targets)

    monkeypatch.setattr(segmentation.Tally, "add", watched)
    evaluate_scenes(tiny(), images.split("test"), size=8, overlap=2, batch_size=4, device=CPU)
    assert max(heights) <= 8
    assert sum(heights) == 2 * 200


@pytest.mark.gpu
def test_gpu_gives_what_the_cpu_gives() -> None:
    device = torch.device("cuda")
    model, images = tiny().eval(), scene_set(shape=(22, 18))
    options: dict[str, Any] = {"size": 8, "overlap": 3, "batch_size": 4, "precision": "fp32"}
    expected = evaluate_scenes(model, images.split("test"), device=CPU, **options)
    found = evaluate_scenes(model.to(device), images.split("test"), device=device, **options)
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=0.01)
    half = evaluate_scenes(model, images.split("test"), device=device, **options | {"precision": "bf16"})
    assert half["loss"] == pytest.approx(expected["loss"], rel=0.02)
    targets, predicted = (torch.randint(0, 7, (100_000,)) for _ in range(2))
    matrix = confusion(predicted.to(device), targets.to(device), 7)
    assert torch.equal(matrix.cpu(), confusion(predicted, targets, 7))
