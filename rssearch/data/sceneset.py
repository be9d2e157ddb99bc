"""Scenes with masks that are cut into patches: a segmentation set, and the view of one of its splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rssearch.data.imageset import ImageDataset, ImageSet, normalise
from rssearch.data.masks import IGNORE
from rssearch.data.scenestore import Mapped, Memory
from rssearch.data.streaming import read_ahead
from rssearch.errors import unknown
from rssearch.imaging.pixels import EIGHT_BITS, Array, Pixels, Scaling
from rssearch.imaging.rasters import Layout

Indices = npt.NDArray[np.int64]
FEW_SCENES = 5  # a split with fewer is divided by patch


class Scene(NamedTuple):
    """A whole scene: its name, the normalised image float32 [C, H, W] and the mask int64 [H, W]."""

    name: str
    image: Tensor
    mask: Tensor


@dataclass
class SceneSet:
    """Scenes, masks, and the windows that patches are cut from when they are asked for.

    A window that reaches over the end of a small scene is padded: the image by reflection, the mask by `IGNORE`.
    Pickled with protocol 5 the pixels travel out of band, as those of an `ImageSet`.

    Attributes:
        name: the dataset.
        classes: names in the order of the class indices.
        scenes: the decoded pixels.
        names: of the scenes.
        groups: of each scene; a group lies in one split.
        windows: int64 [N, 3], scene, row and column of each patch; those of the training split may overlap.
        size: height and width of a patch.
        indices: sorted int64 numbers of the patches of ``train``, ``val`` and ``test``.
        mean: float32 [C], of all scaled pixels of the training scenes.
        std: float32 [C], likewise.
        fingerprint: sha256 of the content's listing.
        split_hash: sha256 over the scenes' names and their split.
        skipped: scenes left out because they cannot be read, each with its reason.
        notes: files that are left out, and scenes that given splits have in common: a sentence each.
        scaling: of the pixels; 8 bits are divided by 255.
        layout: of the files, where they are no 8-bit RGB; of generated images, where their bands have names.
    """

    name: str
    classes: tuple[str, ...]
    scenes: Memory | Mapped
    names: tuple[str, ...]
    groups: tuple[str, ...]
    windows: Indices
    size: int
    indices: dict[str, Indices]
    mean: npt.NDArray[np.float32]
    std: npt.NDArray[np.float32]
    fingerprint: str
    split_hash: str
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    scaling: Scaling = EIGHT_BITS
    layout: Layout | None = None

    @property
    def task(self) -> Literal["segmentation"]:
        """What the targets are."""
        return "segmentation"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a patch."""
        return len(self.mean), self.size, self.size

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Names of the C bands, where they are known."""
        return self.layout.names if self.layout else None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the pixels."""
        return self.scenes.image(0).dtype

    @property
    def num_classes(self) -> int:
        """How many classes there are; `IGNORE` is none."""
        return len(self.classes)

    @property
    def streaming(self) -> bool:
        """Whether patches are read from the cache folder, because the scenes do not fit into memory."""
        return isinstance(self.scenes, Mapped)

    def absent(self, split: str) -> list[str]:
        """The classes without a pixel in a split."""
        there = {label for index in self.indices[split].tolist() for label in np.unique(self._mask(index)).tolist()}
        return [name for label, name in enumerate(self.classes) if label not in there]

    def take(self, indices: npt.ArrayLike) -> Tensor:
        """The images of some patches as a tensor [B, C, P, P] of their own type and memory."""
        return next(self.stream([np.asarray(indices, dtype=np.int64)]))

    def targets(self, indices: npt.ArrayLike) -> Tensor:
        """The masks of some patches as a uint8 tensor [B, P, P] of their own memory."""
        chosen = np.asarray(indices, dtype=np.int64).tolist()
        return torch.from_numpy(self._stack([self._mask(index) for index in chosen], ()))

    def stream(self, chunks: Iterable[Indices]) -> Iterator[Tensor]:
        """Batch after batch of images, each a tensor [B, C, P, P] of their own type and memory."""
        for images, _ in self.pairs(chunks):
            yield images

    def pairs(self, chunks: Iterable[Indices]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch of images, as `stream`, and of masks, as `targets`."""
        read = read_ahead(self._patch, chunks, None) if self.streaming else (map(self._patch, c) for c in chunks)
        for batch in read:
            images, masks = [], []
            for image, mask in batch:
                images.append(image)
                masks.append(mask)
            yield torch.from_numpy(self._stack(images, self.input_shape[:1])), torch.from_numpy(self._stack(masks, ()))

    def _stack(self, arrays: list[Array], channels: tuple[int, ...]) -> Array:
        dtype = arrays[0].dtype if arrays else np.dtype(np.uint8)
        result = np.empty((len(arrays), *channels, self.size, self.size), dtype=dtype)
        for row, array in zip(result, arrays, strict=True):
            row[:] = array
        return result

    def _patch(self, index: int) -> tuple[Array, Pixels]:
        """Image [C, P, P] and mask [P, P] of a patch, as copies: a thread that reads ahead must touch the pages."""
        scene, row, column = self.windows[index].tolist()
        part = self.scenes.image(scene)[row : row + self.size, column : column + self.size]
        missing = [(0, self.size - length) for length in part.shape[:2]]
        if any(after for _, after in missing):
            part = np.pad(part, [*missing, (0, 0)], mode="reflect")
        return np.ascontiguousarray(part.transpose(2, 0, 1)), self._mask(index)

    def _mask(self, index: int) -> Pixels:
        scene, row, column = self.windows[index].tolist()
        part = self.scenes.mask(scene)[row : row + self.size, column : column + self.size]
        mask = np.full((self.size, self.size), IGNORE, dtype=np.uint8)
        mask[: part.shape[0], : part.shape[1]] = part
        return mask

    def split(self, name: str) -> PatchDataset:
        """One split: ``train``, ``val`` or ``test``. Raises InputError for another name."""
        if name not in self.indices:
            raise unknown("split", name, self.indices)
        return PatchDataset(self, name)


class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """One split of a segmentation set, as a map-style dataset of normalised patches and int64 masks."""

    def __init__(self, source: SceneSet, split: str) -> None:
        self.source = source
        self.name = split
        self.indices = source.indices[split]
        self.classes = source.classes

    def part(self, positions: Indices) -> PatchDataset:
        """The patches at these positions of this split, as a dataset of their own."""
        chosen = PatchDataset(self.source, self.name)
        chosen.indices = self.indices[positions]
        return chosen

    def targets(self, positions: npt.ArrayLike) -> Tensor:
        """Masks int64 [B, P, P] of the patches at these positions; `IGNORE` is no class."""
        return self.source.targets(self.indices[np.asarray(positions, dtype=np.int64)]).long()

    def strata(self) -> tuple[Indices, Indices]:
        """What a further division keeps to: stratum and unit of each patch.

        A unit, here a scene, stays whole, so that no pixel is in two parts; a few scenes are divided by patch.
        """
        scene = self.source.windows[self.indices, 0]
        unit = scene if len(np.unique(scene)) >= FEW_SCENES else np.arange(len(self))
        return np.zeros_like(scene), unit

    def scenes(self) -> Iterator[Scene]:
        """The whole scenes of this split, one after the other."""
        for scene in np.unique(self.source.windows[self.indices, 0]).tolist():
            pixels = np.ascontiguousarray(self.source.scenes.image(scene).transpose(2, 0, 1))
            image = normalise(torch.from_numpy(pixels)[None], self.source)[0]
            mask = torch.from_numpy(self.source.scenes.mask(scene).astype(np.int64))
            yield Scene(self.source.names[scene], image, mask)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} patches; there is no patch {index}")
        return normalise(self.source.take([self.indices[index]]), self.source)[0], self.targets([index])[0]

    @property
    def task(self) -> Literal["segmentation"]:
        """What the targets are."""
        return "segmentation"

    @property
    def images_per_split(self) -> int:
        """How many patches the split has."""
        return len(self)

    @property
    def num_classes(self) -> int:
        """How many classes the whole set has."""
        return self.source.num_classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a patch."""
        return self.source.input_shape


AnySet = ImageSet | SceneSet
AnyDataset = ImageDataset | PatchDataset
