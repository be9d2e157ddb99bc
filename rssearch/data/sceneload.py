"""From the listing of a segmentation dataset to scenes that are decoded, divided and cut."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import numpy.typing as npt

from rssearch.config.settings import Patches, Scale, Split
from rssearch.data.copies import crossing
from rssearch.data.decode import Progress, broken_message, common_layout
from rssearch.data.masks import IGNORE
from rssearch.data.reading import ALL, Options, Rgb
from rssearch.data.scaling import SAMPLE, moments, percentiles, scaled_by
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.data.sceneset import SceneSet
from rssearch.data.scenestore import Facts, Mapped, Memory, cache_key, cached, header_sizes, read_all, threads
from rssearch.data.split import divide_scenes, joined, split_hash
from rssearch.data.streaming import node_memory
from rssearch.data.windows import cut
from rssearch.errors import InputError
from rssearch.imaging.pixels import Array, Pixels
from rssearch.imaging.rasters import Layout

RGB = Layout(3, 1, 1, "uint8")


def load_scenes(
    name: str,
    found: SceneListing,
    *,
    split: Split,
    patches: Patches,
    bands: Options,
    scale: Scale | None,
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
    found = with_bands(found, bands)
    layout = scene_layout(found)
    facts, scenes = _decode_scenes(found, layout, memory_share, workers, progress)
    broken = tuple(facts.errors[index] for index in sorted(facts.errors))
    if broken and on_error == "raise":
        raise InputError(broken_message(name, broken, len(found.names), "scenes"))
    good = [index for index in range(len(found.names)) if index not in facts.errors]
    if isinstance(scenes, Mapped):
        scenes = dataclasses.replace(scenes, numbers=tuple(good))
    else:
        scenes = Memory([scenes.images[index] for index in good], [scenes.masks[index] for index in good])
    names, sizes = tuple(found.names[index] for index in good), [facts.sizes[index] for index in good]
    fixed = [found.fixed[index] for index in good] if found.fixed is not None else None
    digests = [facts.digests[index] for index in good]
    # Copies in two given splits do not make one group of what the folders divide; they are said.
    groups = joined([found.groups[index] for index in good], list(zip(fixed or digests, digests, strict=True)))
    pixels = [height * width for height, width in sizes]
    try:
        sides = divide_scenes(names, groups, pixels, split, fixed)
    except InputError as error:
        raise InputError(f"dataset {name!r}: {error}") from None
    counts = np.array([facts.counts[index] for index in good])
    _check_classes(name, found, counts, sides["train"], split.seed)
    indices, windows, first = {}, [], 0
    for side, members in sides.items():
        # What is measured counts each pixel as often as it must, and no more.
        windows.append(cut(sizes, members.tolist(), patches.size, patches.overlap if side == "train" else 0))
        indices[side] = np.arange(first, first + len(windows[-1]))
        first += len(windows[-1])
    sums = np.array([facts.sums[index] for index in good])
    scale = scaled_by(scale, found.scale, np.dtype(layout.dtype))

    def sample() -> Array:
        step = max(1, sum(pixels[scene] for scene in sides["train"]) // SAMPLE)
        parts = [scenes.image(scene).reshape(-1, layout.bands)[::step] for scene in sides["train"].tolist()]
        return np.concatenate(parts)[:, :, None, None]

    scaling = percentiles(scale, layout.bands, layout.nodata, sample)
    mean, std = moments(sums[sides["train"]], scaling)
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
        notes=(*found.notes, *crossing(digests, names, fixed, "scenes")),
        scaling=scaling,
        layout=None if layout == RGB else layout,
    )


def with_bands(found: SceneListing, bands: Options) -> SceneListing:
    """A listing whose files are read as a study asks. Raises InputError where there is no choice of bands."""
    if not isinstance(found.source, Pairs):
        if bands != ALL:
            raise InputError("bands: these scenes are generated as 8-bit RGB; raster_folder:PATH reads any bands")
        return found
    return dataclasses.replace(found, source=dataclasses.replace(found.source, reader=found.source.reader.given(bands)))


def scene_layout(found: SceneListing) -> Layout:
    """The bands and type that all scenes have in common. Raises InputError where they differ."""
    source = found.source
    if not isinstance(source, Pairs) or isinstance(source.reader, Rgb):
        return RGB
    return common_layout(source.images, 1, source.reader)


def _decode_scenes(
    found: SceneListing, layout: Layout, memory_share: float, workers: int | None, progress: Progress | None
) -> tuple[Facts, Memory | Mapped]:
    """Every scene once: into memory where all fit, else into the cache."""
    source = found.source
    areas = [height * width for height, width in header_sizes(source)]
    workers = workers or threads(max(areas, default=0))
    if (layout.bands * np.dtype(layout.dtype).itemsize + 1) * sum(areas) > memory_share * node_memory():
        key = cache_key(found.fingerprint, source)
        facts = cached(key, source, workers=workers, progress=progress)
        return facts, Mapped(key, source, tuple(range(len(source))))
    nothing = np.empty((0, 0), np.uint8)
    memory = Memory([nothing] * len(source), [nothing] * len(source))

    def keep(index: int, image: Array, mask: Pixels) -> None:
        memory.images[index], memory.masks[index] = image, mask

    return read_all(source, keep, workers=workers, progress=progress), memory


def _check_classes(
    name: str, found: SceneListing, counts: npt.NDArray[np.int64], train: npt.NDArray[np.int64], seed: int
) -> None:
    """Refuse a class that is never trained: it would make the network and the quality of another problem."""
    total = len(found.classes)
    there, trained = counts.sum(0), counts[train].sum(0)
    nowhere = [label for index, label in enumerate(found.classes) if not there[index]]
    elsewhere = [label for index, label in enumerate(found.classes) if there[index] and not trained[index]]
    if not nowhere and not elsewhere:
        return
    advice = []
    if elsewhere:
        another = f"another settings.split.seed than {seed} divides the scenes in another way"
        if found.fixed is not None:
            another = "the folders give the division"
        advice.append(f"{', '.join(elsewhere)}: other splits have some, and {another}")
    if nowhere:
        advice.append(f"{', '.join(nowhere)}: no mask has a pixel of it{_unclaimed(found, nowhere, there)}")
    what = (
        ", ".join([*elsewhere, *nowhere]) if trained[:total].any() else f"any class: all are ignored (index {IGNORE})"
    )
    raise InputError(f"dataset {name!r}: no training pixel for {what}. {'; '.join(advice)}")


def _unclaimed(found: SceneListing, nowhere: list[str], there: npt.NDArray[np.int64]) -> str:
    """What to write where the missing class is likely the pixels of 255, which nobody claims."""
    table = found.source.table if isinstance(found.source, Pairs) else None
    if table is None or table.colours or len(nowhere) > 1 or not there[IGNORE]:
        return ""
    if {value for value, index in table.classes.items() if index == IGNORE} != {IGNORE}:
        return ""
    value = {index: value for value, index in table.classes.items()}
    names = {str(IGNORE if label in nowhere else value[index]): label for index, label in enumerate(found.classes)}
    return (
        f", and {there[IGNORE]:,} pixels of {IGNORE}, which means no class unless one claims it; if they are "
        f"{nowhere[0]}, write {json.dumps(names)} as the classes of classes.json"
    )
