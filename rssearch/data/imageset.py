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

from rssearch.data.multilabel import is_multiple, strata, totals
from rssearch.data.streaming import Stream
from rssearch.errors import unknown
from rssearch.imaging.pixels import EIGHT_BITS, Array, Scaling, factors
from rssearch.imaging.rasters import Layout


class Normalised(Protocol):
    """What images are normalised by: float32 [C] of the training split's scaled pixels, and their scaling."""

    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    scaling: Scaling


@dataclass
class ImageSet:
    """Images, labels and splits.

    A plain dataclass of arrays: pickled with protocol 5 the pixels travel out of band, so that Ray's object store maps
    them into every process of a node without copying. They are then read-only, and nothing here writes to them.

    Attributes:
        name: the dataset.
        classes: names in the order of the labels.
        images: [N, C, H, W] in the type of the files, or a stream of the same shape.
        labels: int64 [N]; or [N, K] of 0 and 1 where images may have several.
        indices: sorted int64 indices of ``train``, ``val`` and ``test``.
        mean: float32 [C], of the training split's scaled pixels.
        std: float32 [C], likewise.
        fingerprint: sha256 of the content's listing.
        split_hash: sha256 over the images' names and their split.
        skipped: images left out because they cannot be read, each with its reason.
        notes: files that are left out, and images that given splits have in common: a sentence each.
        scaling: of the pixels; 8 bits are divided by 255.
        layout: of the files, where they are no 8-bit RGB; of generated images, where their bands have names.
        listed: the images' names in UTF-8, with a zero byte between two of them; empty where they have none.
    """

    name: str
    classes: tuple[str, ...]
    images: Array | Stream
    labels: npt.NDArray[np.int64]
    indices: dict[str, npt.NDArray[np.int64]]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    fingerprint: str
    split_hash: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scaling: Scaling = EIGHT_BITS
    layout: Layout | None = None
    listed: Array = field(default_factory=lambda: np.empty(0, np.uint8))

    @property
    def names(self) -> tuple[str, ...]:
        """The unique name of each image; empty where they have none."""
        return tuple(self.listed.tobytes().decode().split("\0")) if len(self.listed) else ()

    @property
    def test_names(self) -> tuple[str, ...]:
        """Those of the test split, in the order of its indices; empty where they have none."""
        names = self.names
        return tuple(names[index] for index in self.indices["test"].tolist()) if names else ()

    @property
    def task(self) -> Literal["classification", "multilabel"]:
        """What the targets are."""
        return "multilabel" if is_multiple(self.labels) else "classification"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, C, H, W = self.images.shape
        return C, H, W

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Names of the C bands, where they are known."""
        return self.layout.names if self.layout else None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the pixels."""
        return self.images.dtype

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def streaming(self) -> bool:
        """Whether images are decoded when asked for, because they do not fit into memory."""
        return isinstance(self.images, Stream)

    def absent(self, split: str) -> list[str]:
        """The classes without an image in a split."""
        counts = totals(self.labels[self.indices[split]], self.num_classes)
        return [name for name, count in zip(self.classes, counts.tolist(), strict=False) if not count]

    def take(self, indices: npt.ArrayLike) -> Tensor:
        """Some images as a tensor [B, C, H, W] of their own type and memory."""
        return next(self.stream([np.asarray(indices, dtype=np.int64)]))

    def stream(self, chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[Tensor]:
        """Batch after batch of images, each a tensor [B, C, H, W] of their own type and memory."""
        if isinstance(self.images, Stream):
            yield from map(torch.from_numpy, self.images.batches(chunks))
            return
        for chunk in chunks:
            yield torch.from_numpy(np.take(self.images, chunk, axis=0))

    def pairs(self, chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch of images, as `stream`, and of labels, int64 [B]."""
        chunks, again = tee(chunks)
        for images, chunk in zip(self.stream(chunks), again, strict=True):
            yield images, _targets(self.labels[chunk], several=is_multiple(self.labels))

    def split(self, name: str) -> ImageDataset:
        """One split: ``train``, ``val`` or ``test``. Raises InputError for another name."""
        if name not in self.indices:
            raise unknown("split", name, self.indices)
        return ImageDataset(self, name)


class ImageDataset(Dataset[tuple[Tensor, "int | Tensor"]]):
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
        """Labels of the images at these positions: int64 [B], or float32 [B, K] where they may have several."""
        return _targets(self.labels[np.asarray(positions, dtype=np.int64)], several=is_multiple(self.labels))

    def strata(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What a further division keeps to: stratum (here the class) and unit (here the image itself) of each image."""
        return strata(self.labels), np.arange(len(self))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images; there is no image {index}")
        image = normalise(self.source.take([self.indices[index]]), self.source)
        if is_multiple(self.labels):
            return image[0], _targets(self.labels[index], several=True)
        return image[0], int(self.labels[index])

    @property
    def task(self) -> Literal["classification", "multilabel"]:
        """What the targets are."""
        return self.source.task

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


def _targets(labels: npt.NDArray[np.int64], *, several: bool) -> Tensor:
    """Labels as losses take them: int64, or float32 of 0 and 1 where images may have several."""
    found = torch.from_numpy(labels)
    return found.float() if several else found


def filled(images: Tensor, source: Normalised) -> Tensor:
    """Pixels as they can be changed: those without data become the mean of their band.

    Args:
        images: [B, C, H, W], in the type of the files.
        source: their set.

    Returns:
        float32 [B, C, H, W]; whole numbers of up to 16 bits of which all have data stay as they are, which is less to
        move about.
    """
    nodata = source.scaling.nodata
    if images.dtype.itemsize <= 2 and nodata is None:
        return images
    pixels = images.to(torch.float32)
    lost = torch.zeros((), dtype=torch.bool) if nodata is None else pixels == nodata
    if images.is_floating_point():
        lost = lost.to(pixels.device) | ~pixels.isfinite()
    elif nodata is None:
        return pixels
    return torch.where(lost, torch.from_numpy(fill(source)).to(pixels.device), pixels)


def fill(source: Normalised) -> npt.NDArray[np.float32]:
    """What stands for pixels without data: float32 [C, 1, 1], the mean of each band in the values of the files."""
    low, high = source.scaling.ends(len(source.mean))
    return (low + source.mean[:, None, None] * (high - low)).astype(np.float32)


def normalise(images: Tensor, source: Normalised) -> Tensor:
    """Pixels of any type [B, C, H, W] to float32 with the training split's mean 0 and deviation 1."""
    return standardised(filled(images, source), source)


def standardised(pixels: Tensor, source: Normalised) -> Tensor:
    """Pixels that are `filled`, with mean 0 and deviation 1."""
    numbers = factors(source.mean, source.std, source.scaling)
    factor, offset = (torch.from_numpy(value).to(pixels.device) for value in numbers)
    return pixels.to(torch.float32).mul(factor).add_(offset)
