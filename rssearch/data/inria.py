"""Inria aerial image labeling: aerial scenes of 5000x5000 at 0.3 m per pixel with masks of buildings.

The layout is that of the archive: ``AerialImageDataset/train/images/austin1.tif`` and ``train/gt/austin1.tif``, with 0
and 255 in the masks. The masks of the test cities are not published, so that scenes of the training cities are divided.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import locate
from rssearch.data.masks import MaskTable
from rssearch.data.scene_folders import Found
from rssearch.data.scenes import SceneListing
from rssearch.data.segmentation_folder import Legend, pairs
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents

CITIES = ("austin", "chicago", "kitsap", "tyrol-w", "vienna")
SCENES = 36  # of each city
FOLDERS = ("inria", "aerialimagedataset", "inria_aerial")
LEGEND = Legend(("background", "building"), MaskTable({0: 0, 255: 1}))
SCENE = re.compile(r"(?:.*/)?(?P<kind>images|gt)/(?P<name>(?P<city>[a-z-]+)\d+)\.tiff?")
BY_HAND = (
    "Get it at https://project.inria.fr/aerialimagelabeling/ and put the extracted folder AerialImageDataset into the "
    "data root."
)


def read(cities: Collection[str], contents: Contents) -> SceneListing:
    """List the scenes of some cities. Raises InputError where there are none, or as `pairs`."""
    found: dict[str, dict[str, Found]] = {"images": {}, "gt": {}}
    for path, size in contents.images:
        match = SCENE.fullmatch(path)
        if match is not None and match["city"] in cities:
            found[match["kind"]][match["name"]] = (path, size)
    if not found["images"]:
        raise InputError(f"{contents.base}: has no train/images/{next(iter(cities))}1.tif")
    return pairs(contents.base, found["images"], found["gt"], LEGEND, notes=contents.notes())


def _open(name: str, cities: tuple[str, ...], root: Path) -> SceneListing:
    return locate(name, root, FOLDERS, ("images", "gt", "train", "test"), BY_HAND, functools.partial(read, cities))


def _family(name: str, cities: tuple[str, ...], what: str) -> Family:
    return Family(
        name=name,
        summary=f"{SCENES * len(cities)} aerial scenes of {what}, 5000x5000, with masks: background, building",
        source="Maggiori et al., Can semantic labeling methods generalize to any city?, IGARSS 2017",
        folders=FOLDERS,
        expected=dict.fromkeys(cities, SCENES),
        stem=lambda city, number: f"{city}{number + 1}",
        open=functools.partial(_open, name, cities),
        by_hand=BY_HAND,
        task="segmentation",
    )


FAMILIES = (
    _family("inria", ("austin",), "Austin"),
    *(_family(f"inria:{city}", (city,), city.capitalize()) for city in CITIES[1:]),
    _family("inria:all", CITIES, "five cities"),
)
