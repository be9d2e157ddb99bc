"""Scenes with masks, known before a pixel is read, and how they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from rssearch.config.settings import Scale
from rssearch.data.listing import Files
from rssearch.data.masks import IGNORE, MaskTable
from rssearch.data.reading import RGB, Reader, Rgb
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, Array, Pixels, opened, reason


class RawScene(NamedTuple):
    """An image [H, W, C], its mask uint8 [H, W], and a digest of the image that copies have in common.

    Pixels without data have the value `nodata`, where it is not None.
    """

    image: Array
    mask: Pixels
    digest: str
    nodata: float | None = None


class SceneSource(Protocol):
    """Where scenes come from. Safe to read from several threads, and small to pickle."""

    def __len__(self) -> int:
        """How many scenes there are."""
        ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a scene, without decoding it. Raises InputError as `read`."""
        ...

    def read(self, index: int) -> RawScene:
        """A scene. Raises InputError with the file and the reason where it cannot be read."""
        ...

    def stamp(self) -> str:
        """Changes whenever a file does."""
        ...


@dataclass(frozen=True)
class SceneListing:
    """A segmentation dataset as found on the disk (or, for synthetic sets, as it would be generated).

    Attributes:
        where: the folder or archive, for messages.
        classes: names in the order of the class indices.
        names: unique name of each scene.
        groups: of each scene; scenes of one group are never in different splits.
        fingerprint: sha256 of the content's listing.
        source: of the pixels.
        fixed: ``train``, ``val`` or ``test`` of each scene where the dataset comes divided, else None.
        notes: what was left out, and what to know of the division: a sentence each.
        scale: what is known of the values of the pixels.
    """

    where: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    fingerprint: str
    source: SceneSource
    fixed: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    scale: Scale | None = None

    def part(self, indices: Sequence[int]) -> SceneListing:
        """The scenes with these numbers as a listing, under the same fingerprint."""
        return replace(
            self,
            names=tuple(self.names[index] for index in indices),
            groups=tuple(self.groups[index] for index in indices),
            source=SomeScenes(self.source, tuple(indices)),
            fixed=None if self.fixed is None else tuple(self.fixed[index] for index in indices),
        )


@dataclass(frozen=True)
class SomeScenes:
    """Some of the scenes of a source, by their numbers in it."""

    source: SceneSource
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def size(self, index: int) -> tuple[int, int]:
        """As that of the source."""
        return self.source.size(self.numbers[index])

    def read(self, index: int) -> RawScene:
        """As that of the source."""
        return self.source.read(self.numbers[index])

    def stamp(self) -> str:
        """That of the source, with the numbers."""
        return f"{self.source.stamp()} {self.numbers}"


@dataclass(frozen=True)
class Pairs:
    """Images and masks in files, the n-th mask for the n-th image."""

    images: Files
    masks: Files
    table: MaskTable
    reader: Reader = RGB

    def __len__(self) -> int:
        return len(self.images)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, from the header of the image."""
        try:
            if isinstance(self.reader, Rgb):
                return self.images.size(index)
            about = self.reader.layout(self.images.read(index))
            return about.height, about.width
        except DECODE_ERRORS as error:
            raise InputError(f"{self.images.location(index)}: cannot be read: {reason(error)}") from None

    def read(self, index: int) -> RawScene:
        """Decode an image and its mask."""
        image_file, mask_file = self.images.location(index), self.masks.location(index)
        try:
            data = self.images.read(index)
            image, lost, nodata = self.reader.scene(data)
        except DECODE_ERRORS as error:
            raise InputError(f"{image_file}: cannot be read: {reason(error)}") from None
        try:
            with opened(self.masks.read(index), self.table.check) as (picture, header):
                # Before it is decoded: a small file may claim a mask that fills the memory.
                same = sorted(picture.size) == sorted(image.shape[:2])
                mask = self.table.decode(picture, header) if same else None
                shape = (picture.height, picture.width) if mask is None else mask.shape
        except DECODE_ERRORS as error:
            raise InputError(f"{mask_file}: {reason(error)}") from None
        if mask is None or shape != image.shape[:2]:
            sizes = [f"{width}x{height}" for height, width in (shape, image.shape[:2])]
            raise InputError(f"{mask_file}: is {sizes[0]}, but its image {image_file} is {sizes[1]}")
        if lost is not None and lost.any():
            mask = np.where(lost, np.uint8(IGNORE), mask)
        return RawScene(image, mask, hashlib.blake2b(data, digest_size=16).hexdigest(), nodata)

    def stamp(self) -> str:
        """sha256 over the times of the files, or of the archive that they are in."""
        digest = hashlib.sha256(b"colours\n" if self.table.colours else b"")
        if not isinstance(self.reader, Rgb):
            digest.update(f"{self.reader}\n".encode())
        for files in (self.images, self.masks):
            archive = files.base.suffix.lower() == ".zip"
            for path in [files.base] if archive else [files.base / member for member in files.members]:
                try:
                    digest.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
                except OSError:
                    digest.update(b"absent\n")  # a dangling link, which `read` names
        return digest.hexdigest()
