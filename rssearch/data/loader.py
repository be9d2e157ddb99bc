"""Batches for the training loop: in the type of the files until they are on the device, changed and scaled there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rssearch.config.settings import Augment
from rssearch.data import augment as augmentation
from rssearch.data.imageset import filled, standardised
from rssearch.data.sampling import balanced_order
from rssearch.data.sceneset import AnyDataset
from rssearch.errors import InputError


def num_batches(images: int, batch_size: int, *, train: bool) -> int:
    """How many batches `batches` yields."""
    return len(rows(images, batch_size, train=train))


def rows(images: int, batch_size: int, *, train: bool) -> list[slice]:
    """Which of an epoch's images, in its order, are in each batch."""
    limit = images - int(_lone_image(images, batch_size, train))
    return [slice(start, min(start + batch_size, limit)) for start in range(0, limit, batch_size)]


def share(row: slice, rank: int, workers: int) -> slice:
    """The part of a batch that one of several workers takes; sizes differ by one image at most.

    Of a last batch with fewer images than workers everyone takes the whole: nobody may have nothing to do.
    """
    images = row.stop - row.start
    if images < workers:
        return row
    return slice(row.start + images * rank // workers, row.start + images * (rank + 1) // workers)


def _lone_image(images: int, batch_size: int, train: bool) -> bool:
    """Whether a training epoch would end in a batch of one image, which batch normalisation cannot train on."""
    return train and images % batch_size == 1


def batches(
    dataset: AnyDataset,
    batch_size: int,
    *,
    device: torch.device | str,
    train: bool,
    augment: Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    worker: tuple[int, int] = (0, 1),
    members: Sequence[npt.NDArray[np.int64]] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of a split.

    Training epochs are shuffled and augmented by (seed, epoch) alone: the same on every device, in memory or streamed.
    A mask is cropped, flipped and turned as its image is.
    A last training batch of a single image is dropped. Otherwise images come in order and unchanged.
    A worker (its number, and how many there are) gets its `share` of each batch, changed as if it read all.
    With the `members` of each class, see `rssearch.data.sampling`, a training epoch has as many images as the split,
    and each class the same share of them.

    Yields:
        float32 [B, C, H, W] normalised images, and int64 [B] labels or [B, H, W] masks, or float32 [B, K] of 0 and 1
        where images may have several labels; on the device.

    Raises:
        InputError: the augmentation does not fit the images, or there are fewer than two images to train on.
    """
    device = torch.device(device)
    count = len(dataset)
    order: npt.NDArray[np.int64] = np.arange(count)
    draws = None
    if train:
        if count < 2 or batch_size < 2:
            raise InputError(
                f"training needs batches of two images or more; there are {count} images, in batches of {batch_size}"
            )
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(count) if members is None else balanced_order(members, count, rng)
        if augment is not None:
            rgb = dataset.source.layout is None
            draws = augmentation.draw(count, augment, dataset.input_shape, rng, rgb=rgb)
    black = dataset.source.scaling.ends(dataset.input_shape[0])[0].reshape(-1).copy()
    shares = [share(row, *worker) for row in rows(count, batch_size, train=train)]
    pairs = dataset.source.pairs(dataset.indices[order[row]] for row in shares)
    for row, (images, targets) in zip(shares, pairs, strict=True):
        x, y = filled(_to_device(images, device), dataset.source), _to_device(targets, device)
        if draws is not None:
            x = augmentation.apply(x, draws, row, black)
            if dataset.task == "segmentation":
                y = augmentation.move(y[:, None], draws, row)[:, 0]
        # Masks cross to the device as bytes: an eighth of what class indices take.
        x = standardised(x, dataset.source)
        y = y if y.is_floating_point() else y.long()
        yield x if draws is None else augmentation.drop_bands(x, draws, row), y


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
