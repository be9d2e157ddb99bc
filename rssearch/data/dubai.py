"""Dubai land cover: satellite scenes with masks of five classes, nine parts of each of eight tiles.

Two layouts are read, from a folder or a zip: that of the release (``Tile 1/images/image_part_001.jpg`` and
``Tile 1/masks/image_part_001.png`` in colours) and a flat one (``images/tile1_part001.jpg`` and
``masks/tile1_part001.png`` with class indices, 5 for unlabelled pixels). The colours are those that the masks have; the
table of colours in the release is another one.
"""

from __future__ import annotations

import re
from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import locate
from rssearch.data.masks import IGNORE, MaskTable, index_table
from rssearch.data.scene_folders import Found
from rssearch.data.scenes import SceneListing
from rssearch.data.segmentation_folder import Legend, pairs
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents

CLASSES = ("building", "land", "road", "vegetation", "water")
COLOURS = (0x3C1098, 0x8429F6, 0x6EC1E4, 0xFEDD3A, 0xE2A929)
UNLABELLED = (0x9B9B9B, 0x000000)  # some masks have black margins
TILE = re.compile(r"(tile\d+)_")
LAYOUTS = (
    (
        re.compile(r"(?:.*/)?Tile (?P<tile>\d+)/(?P<kind>images|masks)/image_part_(?P<part>\d+)\.\w+"),
        Legend(
            CLASSES,
            MaskTable(
                {colour: index for index, colour in enumerate(COLOURS)} | dict.fromkeys(UNLABELLED, IGNORE),
                colours=True,
            ),
            TILE,
        ),
    ),
    (
        re.compile(r"(?:.*/)?(?P<kind>images|masks)/tile(?P<tile>\d+)_part_?(?P<part>\d+)\.\w+"),
        Legend(CLASSES, index_table(6, 5), TILE),
    ),
)
BY_HAND = (
    "Get it at https://humansintheloop.org/resources/datasets/semantic-segmentation-dataset/ and put its folder or zip "
    "into the data root under the name dubai."
)


def read(contents: Contents) -> SceneListing:
    """List the scenes of a folder or zip. Raises InputError where there are none, or as `pairs`."""
    for layout, legend in LAYOUTS:
        found: dict[str, dict[str, Found]] = {"images": {}, "masks": {}}
        for path, size in contents.images:
            if match := layout.fullmatch(path):
                name = f"tile{int(match['tile'])}_part{int(match['part']):03d}"
                found[match["kind"]][name] = (path, size)
        if found["images"]:
            taken = {path for files in found.values() for path, _ in files.values()}
            notes = (*contents.notes(), *contents.note_outside(taken, "no part of the published set"))
            return pairs(contents.base, found["images"], found["masks"], legend, notes=notes)
    raise InputError(f"{contents.base}: has no images/tile1_part001.jpg or Tile 1/images/image_part_001.jpg")


def _open(root: Path) -> SceneListing:
    inner = ("images", "masks", *(f"Tile {tile}" for tile in range(1, 9)))
    return locate("dubai", root, FAMILY.folders, inner, BY_HAND, read)


FAMILY = Family(
    name="dubai",
    summary="72 parts of 8 satellite tiles of Dubai with masks of 5 classes; a tile lies in one split",
    source="Humans in the Loop and MBRSC, Semantic segmentation of aerial imagery, 2020, CC0",
    folders=("dubai", "dubai_landcover", "semantic segmentation dataset", "semantic_segmentation_dataset"),
    expected={f"tile{tile}": 9 for tile in range(1, 9)},
    stem=lambda tile, number: f"{tile}_part{number + 1:03d}",
    open=_open,
    by_hand=BY_HAND,
    licence="CC0, as its publisher states it.",
    task="segmentation",
)
