"""From the listing of images to a set in memory, or one that is streamed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Scale, Split
from rssearch.data.copies import array_digests, crossing
from rssearch.data.decode import Progress, broken_message, common_layout, decode_all
from rssearch.data.imageset import ImageSet
from rssearch.data.listing import Files, Listing
from rssearch.data.multilabel import totals
from rssearch.data.reading import ALL, Options, Rgb, chosen, named
from rssearch.data.scaling import SAMPLE, image_sums, moments, percentiles, scaled_by
from rssearch.data.split import divide, split_hash
from rssearch.data.streaming import Stream, node_memory
from rssearch.errors import InputError
from rssearch.imaging.pixels import Array
from rssearch.imaging.rasters import Layout

__all__ = ["from_encoded", "from_generated"]


def from_generated(
    name: str,
    found: Listing,
    pixels: Callable[[int | None], Array],
    input_size: int | None,
    split: Split,
    bands: Options,
    scale: Scale | None,
    progress: Progress | None,
) -> ImageSet:
    """The set of generated images. Arguments and errors are those of `rssearch.data.registry.load`."""
    if bands != ALL:
        indices, names = chosen(found.bands, bands)
        found, pixels = dataclasses.replace(found, bands=names), named(pixels, indices)
    images = pixels(input_size)
    if progress is not None:
        progress(len(images), len(images))
    nodata = bands.nodata if isinstance(bands.nodata, int | float) else None
    C, H, W = images.shape[1:]
    layout = Layout(C, H, W, images.dtype.name, found.bands, nodata) if found.bands else None
    sums = np.stack([image_sums(image, nodata) for image in images])
    if found.fixed is not None:
        notes = crossing(array_digests(pixels(None)), found.names, found.fixed)
        found = dataclasses.replace(found, notes=(*found.notes, *notes))
    scale = scaled_by(scale, found.scale, images.dtype)
    return _assemble(name, found, images, sums=sums, split=split, groups=None, skipped=(), scale=scale, layout=layout)


def from_encoded(
    name: str,
    found: Listing,
    files: Files,
    *,
    input_size: int | None,
    split: Split,
    scale: Scale | None,
    on_error: str,
    memory_share: float,
    workers: int | None,
    progress: Progress | None,
) -> ImageSet:
    """The set of images in files. Arguments and errors are those of `rssearch.data.registry.load`."""
    layout = common_layout(files, input_size, found.reader, workers)
    shape, dtype = (layout.bands, layout.height, layout.width), np.dtype(layout.dtype)
    keep = len(files) * int(np.prod(shape)) * dtype.itemsize <= memory_share * node_memory()
    result = decode_all(files, layout, keep=keep, reader=found.reader, workers=workers, progress=progress)
    broken = tuple(f"{files.location(index)}: {reason}" for index, reason in sorted(result.errors.items()))
    if broken and on_error == "raise":
        raise InputError(broken_message(name, broken, len(files)))
    good = np.array([index for index in range(len(files)) if index not in result.errors], dtype=np.int64)
    groups = [result.digests[index] for index in good]
    images: Array | Stream
    if broken:
        found, files = found.part(good.tolist()), files.part(good.tolist())
        result = dataclasses.replace(
            result, images=None if result.images is None else result.images[good], sums=result.sums[good]
        )
    if result.images is not None:
        images = result.images
    else:
        images = Stream(files, (len(good), *shape), workers, found.reader, dtype)
    scale = scaled_by(scale, found.scale, dtype)
    found = dataclasses.replace(found, notes=(*found.notes, *crossing(groups, found.names, found.fixed)))
    return _assemble(
        name, found, images, sums=result.sums, split=split, groups=groups, skipped=broken, scale=scale,
        layout=None if isinstance(found.reader, Rgb) else layout,
    )  # fmt: skip


def _assemble(
    name: str,
    found: Listing,
    images: Array | Stream,
    *,
    sums: npt.NDArray[np.number],
    split: Split,
    groups: Sequence[bytes] | None,
    skipped: tuple[str, ...],
    scale: Scale | None,
    layout: Layout | None,
) -> ImageSet:
    indices = divide(found.names, found.labels, split, found.fixed, groups, found.groups)
    train = indices["train"]
    present = totals(found.labels[train], len(found.classes))
    absent = [label for position, label in enumerate(found.classes) if present[position] == 0]
    if absent:
        why = f" ({len(skipped)} images were skipped)" if skipped else ""
        raise InputError(f"dataset {name!r}: no training image for {', '.join(absent)}{why}")
    _, C, H, W = images.shape

    def sample() -> Array:
        few = train[np.linspace(0, len(train) - 1, max(1, min(len(train), SAMPLE // (H * W)))).astype(np.int64)]
        return images.take(few) if isinstance(images, Stream) else images[few]

    scaling = percentiles(scale, C, layout.nodata if layout else None, sample)
    mean, std = moments(sums[train], scaling)
    return ImageSet(
        name=name,
        classes=found.classes,
        images=images,
        labels=found.labels,
        indices=indices,
        mean=mean,
        std=std,
        fingerprint=found.fingerprint,
        split_hash=split_hash(found.names, indices),
        skipped=skipped,
        notes=found.notes,
        scaling=scaling,
        layout=layout,
        listed=np.frombuffer("\0".join(found.names).encode(), np.uint8),
    )
