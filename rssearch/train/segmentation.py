"""Segmentation: metrics from one confusion matrix, and inference on whole scenes by overlapping tiles.

Source of the metrics: Chen, Chen and Jing, "A miniaturized semantic segmentation method for remote sensing image",
eq. 2 and 3. Pixels of the class `rssearch.data.IGNORE` count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rssearch.data import IGNORE
from rssearch.device import Precision, autocast, mode, to_memory_format
from rssearch.errors import InputError
from rssearch.imaging.tiling import axis
from rssearch.scores import Scores
from rssearch.train.tally import Tally

if TYPE_CHECKING:
    from rssearch.data import PatchDataset

OnScene = Callable[[str, npt.NDArray[np.int64]], None]


def confusion(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """How many pixels of each class (row) were given each class (column).

    Args:
        predicted: int64 of any shape, classes from 0.
        targets: int64 of the same shape, classes or `rssearch.data.IGNORE`.
        classes: K.

    Returns:
        int64 [K, K] on the device of `targets`, for which the host does not wait.
    """
    cell = torch.where(targets == IGNORE, classes**2, targets * classes + predicted).ravel()
    counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=cell.device)
    return counts.scatter_add_(0, cell, torch.ones_like(cell))[:-1].reshape(classes, classes)


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union of each class, n_ii / (t_i + sum_j n_ji - n_ii); NaN where the union is empty.

    Args:
        matrix: int64 [K, K], see `confusion`.

    Returns:
        float64 [K].
    """
    hit = matrix.diagonal()
    return hit.double() / (matrix.sum(1) + matrix.sum(0) - hit)


def miou(matrix: Tensor) -> float:
    """The mean of `iou` over the classes that are in the labels or in the predictions; NaN without any.

    The paper's mean is over the classes in the labels. It differs where a class is predicted that no label has: such a
    class counts as 0 here, and not at all there.
    """
    return iou(matrix).nanmean().item()


def pixel_accuracy(matrix: Tensor) -> float:
    """The share of the pixels that got their class, sum_i n_ii / sum_i t_i; NaN without any pixel."""
    return (matrix.trace().double() / matrix.sum()).item()


def predict_scene(
    model: nn.Module,
    image: Tensor,
    *,
    size: int,
    overlap: int = 0,
    batch_size: int = 8,
    device: torch.device | None = None,
    precision: Precision = "auto",
) -> Tensor:
    """Logits of a scene of any size, from tiles that overlap.

    Args:
        model: gives logits [B, K, size, size]; it runs in eval mode, and its modes are restored.
        image: float32 [C, H, W], normalised. Where it is smaller than a tile, it is mirrored at its end.
        size: height and width of the tiles.
        overlap: pixels that neighbouring tiles share. Across it the weight of a tile's logits falls linearly towards
            its border; the weights of each pixel sum to 1. The last tile of a row or column is moved inwards, and
            shares more.
        batch_size: tiles that go through the network together.
        device: None for that of the image.
        precision: as in `rssearch.train.evaluate`.

    Returns:
        float32 [K, H, W] on the device.

    Raises:
        InputError: a size or an overlap that is not allowed, or an image of other bands or of another type: integers
            are no normalised image, whatever their depth.
    """
    if image.ndim != 3 or not image.is_floating_point():
        kind = str(image.dtype).removeprefix("torch.")
        raise InputError(
            f"the image is {kind} {list(image.shape)}, but float32 [C, H, W] is needed: 8-bit pixels, see "
            "rssearch.imaging.pixels.decode, divided by 255 and normalised"
        )
    strips = _strips(model, image, size, overlap, batch_size, device or image.device, precision)
    return torch.cat(list(strips), 1)


def evaluate_scenes(
    model: nn.Module,
    dataset: PatchDataset,
    *,
    size: int,
    overlap: int,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
) -> dict[str, float]:
    """What `rssearch.train.evaluate` gives, on the whole scenes of a split, each pixel counted once.

    A scene is predicted as by `predict_scene`, in strips of a tile's height: the logits of a large one are never in
    memory together.

    Raises:
        InputError: a size or an overlap that is not allowed, or no pixel has a label.
        TrialFailed: the loss is NaN or infinite.
    """
    scores = measured_scenes(
        model, dataset, size=size, overlap=overlap, batch_size=batch_size, device=device, precision=precision
    )
    return scores.metrics()


def measured_scenes(
    model: nn.Module,
    dataset: PatchDataset,
    *,
    size: int,
    overlap: int,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
    on_scene: OnScene | None = None,
) -> Scores:
    """As `evaluate_scenes`, what was counted.

    `on_scene` gets the name of each scene and its confusion matrix, int64 [K, K].
    """
    tally = Tally(dataset.num_classes, device)
    before = tally.matrix
    for scene in dataset.scenes():
        row = 0
        for strip in _strips(model, scene.image, size, overlap, batch_size, device, precision):
            below = row + strip.shape[1]
            tally.add(strip[None], scene.mask[None, row:below].to(device))
            row = below
        if on_scene is not None:
            on_scene(scene.name, (now := tally.matrix) - before)
            before = now
    return tally.scores(dataset.classes)


def _strips(
    model: nn.Module,
    image: Tensor,
    size: int,
    overlap: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
) -> Iterator[Tensor]:
    """The logits [K, h, W] of a scene from top to bottom, each strip as soon as no other tile reaches into it."""
    height, width = image.shape[1:]
    vertical, horizontal = axis(height, size, overlap), axis(width, size, overlap)
    rows, columns = vertical.firsts, horizontal.firsts
    down, across = torch.from_numpy(vertical.positions), torch.from_numpy(horizontal.positions)
    row_sums, column_sums = (torch.from_numpy(along.sums).to(device) for along in (vertical, horizontal))
    ramp = torch.from_numpy(vertical.ramp).to(device)
    window = ramp[:, None] * ramp
    carried: Tensor | None = None  # of the tiles above, what lies in the rows of this one
    for row, following in pairwise([*rows, len(down)]):
        total: Tensor | None = None
        for first in range(0, len(columns), batch_size):
            chosen = columns[first : first + batch_size]
            tiles = torch.stack([image[:, down[row : row + size, None], across[c : c + size]] for c in chosen])
            with (
                _told_of_bands(model, image),
                mode(model, training=False),
                torch.inference_mode(),
                autocast(device, precision),
            ):
                logits = model(to_memory_format(tiles.to(device), model)).float()
            if total is None:
                total = logits.new_zeros(logits.shape[1], size, len(across))
                if carried is not None:
                    total[:, : carried.shape[1]] = carried
            for column, weighted in zip(chosen, logits * window, strict=True):
                total[:, :, column : column + size] += weighted
        assert total is not None  # there is a column
        done = following - row
        carried = total[:, done:]
        strip = total[:, :done] / row_sums[row:following, None] / column_sums
        yield strip[:, : max(0, height - row), :width]


@contextmanager
def _told_of_bands(model: nn.Module, image: Tensor) -> Iterator[None]:
    """Raise InputError where a network fails on an image [C, H, W] whose bands its first convolution does not take."""
    try:
        yield
    except RuntimeError as error:
        wanted = next((layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)), len(image))
        if wanted == len(image):
            raise
        raise InputError(f"the image has {len(image)} bands, but the network takes {wanted}") from error
