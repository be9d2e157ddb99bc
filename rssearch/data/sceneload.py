"""From the listing of a segmentation dataset to scenes that are decoded, divided and cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from rssearch.config import Patches, Split
from rssearch.data.decode import Progress, broken_message, moments
from rssearch.data.masks import IGNORE
from rssearch.data.scenes import SceneListing
from rssearch.data.sceneset import SceneSet
from rssearch.data.scenestore import Facts, Mapped, Memory, cache_key, cached, header_sizes, read_all, threads
from rssearch.data.split import by_group, joined, split_hash
from rssearch.data.streaming import node_memory
from rssearch.data.windows import cut
from rssearch.errors import InputError
from rssearch.pixels import Pixels


def load_scenes(
    name: str,
    found: SceneListing,
    *,
    split: Split,
    patches: Patches,
    on_error: str,
    memory_share: float,
    workers: int | None,
    progress: Progress | None,
) -> SceneSet:
    """Decode the scenes of a listing, divide them by group, and cut them into windows.

    The arguments are those of `rssearch.data.registry.load`.

    Raises:
        InputError: scenes that cannot be read, fewer groups than splits, or a class without a training pixel.
    """
    facts, scenes = _decode_scenes(found, memory_share, workers, progress)
    broken = tuple(facts.errors[index] for index in sorted(facts.errors))
    if broken and on_error == "raise":
        raise InputError(broken_message(name, broken, len(found.names), "scenes"))
    good = [index for index in range(len(found.names)) if index not in facts.errors]
    if isinstance(scenes, Mapped):
        scenes = dataclasses.replace(scenes, numbers=tuple(good))
    else:
        scenes = Memory([scenes.images[index] for index in good], [scenes.masks[index] for index in good])
    names, sizes = tuple(found.names[index] for index in good), [facts.sizes[index] for index in good]
    groups = joined([found.groups[index] for index in good], [facts.digests[index] for index in good])
    pixels = [height * width for height, width in sizes]
    try:
        sides = by_group(names, groups, pixels, split)
    except InputError as error:
        raise InputError(f"dataset {name!r}: {error}") from None
    counts = np.array([facts.counts[index] for index in good])
    _check_classes(name, found.classes, counts, sides["train"], split.seed)
    indices, windows, first = {}, [], 0
    for side, members in sides.items():
        # What is measured counts each pixel as often as it must, and no more.
        windows.append(cut(sizes, members.tolist(), patches.size, patches.overlap if side == "train" else 0))
        indices[side] = np.arange(first, first + len(windows[-1]))
        first += len(windows[-1])
    sums = np.array([facts.sums[index] for index in good])
    mean, std = moments(sums[sides["train"]].sum(0), sum(pixels[scene] for scene in sides["train"]))
    return SceneSet(
        name=name,
        classes=found.classes,
        scenes=scenes,
        names=names,
        groups=groups,
        windows=np.concatenate(windows),
        size=patches.size,
        indices=indices,
        mean=mean,
        std=std,
        fingerprint=found.fingerprint,
        split_hash=split_hash(names, sides),
        skipped=broken,
    )


def _decode_scenes(
    found: SceneListing, memory_share: float, workers: int | None, progress: Progress | None
) -> tuple[Facts, Memory | Mapped]:
    """Every scene once: into memory where all fit, else into the cache."""
    source = found.source
    areas = [height * width for height, width in header_sizes(source)]
    workers = workers or threads(max(areas, default=0))
    if 4 * sum(areas) > memory_share * node_memory():
        key = cache_key(found.fingerprint, source)
        facts = cached(key, source, workers=workers, progress=progress)
        return facts, Mapped(key, source, tuple(range(len(source))))
    nothing = np.empty((0, 0), np.uint8)
    memory = Memory([nothing] * len(source), [nothing] * len(source))

    def keep(index: int, image: Pixels, mask: Pixels) -> None:
        memory.images[index], memory.masks[index] = image, mask

    return read_all(source, keep, workers=workers, progress=progress), memory


def _check_classes(
    name: str, classes: tuple[str, ...], counts: npt.NDArray[np.int64], train: npt.NDArray[np.int64], seed: int
) -> None:
    """Refuse a division in which a class that the set has is never trained."""
    there, trained = counts.sum(0), counts[train].sum(0)
    absent = [label for index, label in enumerate(classes) if there[index] and not trained[index]]
    if absent or not trained[: len(classes)].any():
        what = ", ".join(absent) or f"any class: all are ignored (index {IGNORE})"
        raise InputError(
            f"dataset {name!r}: no training pixel for {what}; another settings.split.seed than {seed} divides the "
            "scenes in another way"
        )
