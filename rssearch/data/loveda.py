"""LoveDA: urban and rural satellite scenes of 1024x1024 at 0.3 m per pixel with masks of seven classes.

The layout is that of its archives: ``Train/Urban/images_png/1366.png`` and ``Train/Urban/masks_png/1366.png``, likewise
``Rural`` and ``Val``. The masks of ``Test`` are not published: ``Val`` is the test split, and validation scenes are
sampled from ``Train``. Pixels of 0 have no class.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import locate
from rssearch.data.masks import IGNORE, MaskTable
from rssearch.data.scene_folders import Found
from rssearch.data.scenes import SceneListing
from rssearch.data.segmentation_folder import Legend, pairs
from rssearch.data.split_folders import without_labels
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")
LEGEND = Legend(CLASSES, MaskTable({0: IGNORE, **{number + 1: number for number in range(len(CLASSES))}}))
KINDS = ("urban", "rural")
FOLDERS = ("loveda",)
SCENE = re.compile(
    r"(?:.*/)?(?P<split>train|val|test)/(?P<kind>urban|rural)/(?P<what>images|masks)_png/(?P<number>\d+)\.png",
    re.IGNORECASE,
)
ZENODO = "https://zenodo.org/records/5706578/files/"
ARCHIVES = {
    "Train.zip": "de2b196043ed9b4af1690b3f9a7d558f",
    "Val.zip": "84cae2577468ff0b5386758bb386d31d",
}


def read(kinds: Collection[str], contents: Contents) -> SceneListing:
    """List scenes. Raises InputError where there are none, or as `pairs`."""
    found: dict[str, dict[str, Found]] = {"images": {}, "masks": {}}
    splits: dict[str, str] = {}
    for path, size in contents.images:
        match = SCENE.fullmatch(path)
        if match is None or match["kind"].lower() not in kinds:
            continue
        name = "/".join((match["split"], match["kind"], match["number"])).lower()
        found[match["what"].lower()][name] = (path, size)
        splits[name] = match["split"].lower()
    images, masks = found["images"], found["masks"]
    if not images:
        raise InputError(f"{contents.base}: has no Train/{next(iter(kinds)).capitalize()}/images_png/0.png or the like")
    where, labelled = str(contents.base), {splits[name] for name in masks}
    notes = (*contents.notes(), *without_labels(where, "a mask", {splits[name] for name in images}, labelled))
    images = {name: file for name, file in images.items() if splits[name] in labelled}
    return pairs(contents.base, images, masks, LEGEND, splits=splits, notes=notes)


def _open(name: str, kinds: tuple[str, ...], root: Path) -> SceneListing:
    hint = f"Get it with `rssearch data fetch {name}`, or name the folder with Train and Val as the data root."
    return locate(name, root, FOLDERS, ("Train", "Val", "Test"), hint, functools.partial(read, kinds))


def _fetch(root: Path) -> None:
    """The archives that have masks, 6 GB, extracted into a folder loveda."""
    from torchvision.datasets.utils import download_and_extract_archive

    for name, digest in ARCHIVES.items():
        place = str(root / "loveda")
        download_and_extract_archive(f"{ZENODO}{name}?download=1", place, filename=name, md5=digest)


def _family(name: str, kinds: tuple[str, ...], summary: str) -> Family:
    return Family(
        name=name,
        summary=summary,
        source="Wang et al., LoveDA, NeurIPS Datasets and Benchmarks 2021, arXiv:2110.08733",
        folders=FOLDERS,
        open=functools.partial(_open, name, kinds),
        fetch=_fetch,
        licence="for academic purposes alone, as its publishers state it.",
        task="segmentation",
    )


FAMILIES = (
    _family("loveda", KINDS, "4,191 satellite scenes of China, 1024x1024, 0.3 m, with masks of 7 classes"),
    *(_family(f"loveda:{kind}", (kind,), f"the {kind} scenes of loveda") for kind in KINDS),
)
