"""The batches of a dataset that `rssearch.shrink` is given by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rssearch import data
from rssearch.config.loading import override_settings
from rssearch.config.settings import Augment, Normalisation, Settings
from rssearch.data import AnyDataset, loader
from rssearch.data.normalisation import IMAGENET, UNCHANGED, By, applied
from rssearch.errors import InputError

__all__ = ["named"]


class _Split:
    """The batches of a split; each time that it is gone through they are shuffled and augmented in another way."""

    def __init__(self, images: AnyDataset, batch_size: int, *, train: bool, seed: int) -> None:
        self._images, self._batch_size, self._train, self._seed = images, batch_size, train, seed
        self._epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._epoch += 1
        augment = Augment(crop=0, rotate90=self._images.input_shape[1] == self._images.input_shape[2])
        return loader.batches(
            self._images,
            self._batch_size,
            device="cpu",
            train=self._train,
            augment=augment if self._train else None,
            seed=self._seed,
            epoch=self._epoch,
        )


def named(
    name: str,
    root: str | Path,
    *,
    normalize: str | Mapping[str, Any] | None,
    input_size: int | None,
    batch_size: int,
    seed: int,
) -> tuple[_Split, _Split]:
    """The training and the validation batches of a dataset; training images are flipped and turned.

    Raises:
        InputError: the dataset cannot be read, or `normalize` is not what a study may say, or left out.
    """
    if normalize is None:
        raise InputError(
            "normalize: say what the network's images were normalised by: imagenet, dataset, none, or "
            "{'mean': [0.5], 'std': [0.5]}"
        )
    settings = override_settings(Settings(), {"normalize": normalize, "input_size": input_size})
    images = data.load(name, root, input_size=settings.input_size)
    images = applied(images, _by(settings.normalize, images.input_shape[0]))
    train, val = (images.split(split) for split in ("train", "val"))
    return (
        _Split(train, batch_size, train=True, seed=seed),
        _Split(val, batch_size, train=False, seed=seed),
    )


def _by(normalize: object, bands: int) -> By | None:
    match normalize:
        case "imagenet":
            by = By(*IMAGENET)
        case "none":
            by = UNCHANGED
        case Normalisation():
            by = By(normalize.mean, normalize.std)
        case "dataset":
            return None
        case _:
            raise InputError("normalize: weights: a network in memory does not say what it was trained with")
    if len(by.mean) not in (1, bands):
        raise InputError(f"normalize: has {len(by.mean)} bands, and the images have {bands}")
    return by
