"""A dataset that is ready for training, and the view of one of its splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import tee
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rssearch.data.streaming import Stream
from rssearch.errors import unknown
from rssearch.imaging.pixels import Pixels, factors


class Normalised(Protocol):
    """What images are normalised by: float32 [C] of the training split, scaled to [0, 1]."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]


@dataclass
class ImageSet:
    """Images, labels and splits.

    A plain dataclass of arrays: pickled with protocol 5 the pixels travel out of band, so that Ray's object store maps
    them into every process of a node without copying. They are then read-only, and nothing here writes to them.

    Attributes:
        name: the dataset.
        classes: names in the order of the labels.
        images: uint8 [N, C, H, W], or a stream of the same shape.
        labels: int64 [N].
        indices: sorted int64 indices of ``train``, ``val`` and ``test``.
        mean: float32 [C], of the training split scaled to [0, 1].
        std: float32 [C], likewise.
        fingerprint: sha256 of the content's listing.
        split_hash: sha256 over the images' names and their split.
        skipped: images left out because they cannot be read, each with its reason.
        notes: files that are left out, and images that given splits have in common: a sentence each.
        listed: the images' names in UTF-8, with a zero byte between two of them; empty where they have none.
    """

    name: str
    classes: tuple[str, ...]
    images: Pixels | Stream
    labels: npt.NDArray[np.int64]
    indices: dict[str, npt.NDArray[np.int64]]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    fingerprint: str
    split_hash: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    listed: Pixels = field(default_factory=lambda: np.empty(0, np.uint8))

    @property
    def names(self) -> tuple[str, ...]:
        """The unique name of each image; empty where they have none."""
        return tuple(self.listed.tobytes().decode().split("\0")) if len(self.listed) else ()

    @property
    def task(self) -> Literal["classification"]:
        """What the targets are."""
        return "classification"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, C, H, W = self.images.shape
        return C, H, W

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def streaming(self) -> bool:
        """Whether images are decoded when asked for, because they do not fit into memory."""
        return isinstance(self.images, Stream)

    def take(self, indices: npt.ArrayLike) -> Tensor:
        """Some images as a uint8 tensor [B, C, H, W] of their own memory."""
        return next(self.stream([np.asarray(indices, dtype=np.int64)]))

    def stream(self, chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        """Batch after batch of images, each a uint8 tensor [B, C, H, W] of its own memory."""
        if isinstance(self.images, Stream):
            yield from map(torch.from_numpy, self.images.batches(chunks))
            return
        for chunk in chunks:
            yield torch.from_numpy(np.take(self.images, chunk, axis=0))

    def pairs(self, chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch of images, as `stream`, and of labels, int64 [B]."""
        chunks, again = tee(chunks)
        for images, chunk in zip(self.stream(chunks), again, strict=True):
            yield images, torch.from_numpy(self.labels[chunk])

    def split(self, name: str) -> ImageDataset:
        """One split: ``train``, ``val`` or ``test``. Raises InputError for another name."""
        if name not in self.indices:
            raise unknown("split", name, self.indices)
        return ImageDataset(self, name)


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """One split of an image set, as a map-style dataset of normalised images and labels.

    For training, `rssearch.data.loader.batches` reads it much faster than a DataLoader does.
    """

    def __init__(self, source: ImageSet, split: str) -> None:
        self.source = source
        self.name = split
        self.indices = source.indices[split]
        self.labels = source.labels[self.indices]
        self.classes = source.classes

    def part(self, positions: npt.NDArray[np.int64]) -> ImageDataset:
        """The images at these positions of this split, as a dataset of their own."""
        chosen = ImageDataset(self.source, self.name)
        chosen.indices, chosen.labels = self.indices[positions], self.labels[positions]
        return chosen

    def targets(self, positions: npt.ArrayLike) -> Tensor:
        """Labels int64 [B] of the images at these positions."""
        return torch.from_numpy(self.labels[np.asarray(positions, dtype=np.int64)])

    def strata(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What a further division keeps to: stratum (here the class) and unit (here the image itself) of each image."""
        return self.labels, np.arange(len(self))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images; there is no image {index}")
        image = normalise(self.source.take([self.indices[index]]), self.source)
        return image[0], int(self.labels[index])

    @property
    def task(self) -> Literal["classification"]:
        """What the targets are."""
        return "classification"

    @property
    def images_per_split(self) -> int:
        """How many images the split has."""
        return len(self)

    @property
    def num_classes(self) -> int:
        """How many classes the whole set has."""
        return self.source.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.source.input_shape


def normalise(images: Tensor, source: Normalised) -> Tensor:
    """Pixels in [0, 255] (any dtype, [B, C, H, W]) to float32 with the training split's mean 0 and deviation 1."""
    factor, offset = (torch.from_numpy(value).to(images.device) for value in factors(source.mean, source.std))
    return images.to(torch.float32).mul(factor).add_(offset)
