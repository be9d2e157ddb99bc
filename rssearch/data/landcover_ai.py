"""LandCover.ai: aerial orthophotos of Poland with masks of five classes.

``landcover_ai`` has the 41 orthophotos as the archive holds them (``images/*.tif``, ``masks/*.tif``), each in one
split. ``landcover_ai:tiles`` has the tiles of 512x512 that the ``split.py`` in the archive cuts (``output/NAME.jpg``,
``output/NAME_m.png``), divided by the published ``train.txt``, ``val.txt`` and ``test.txt``: tiles of one orthophoto
lie in several splits there.
"""

from __future__ import annotations

import re
from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import Files, locate
from rssearch.data.masks import MaskTable
from rssearch.data.scene_folders import Found
from rssearch.data.scenes import SceneListing
from rssearch.data.segmentation_folder import Legend, pairs
from rssearch.data.split_lists import Text, read_sides
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, shown

CLASSES = ("background", "building", "woodland", "water", "road")
LEGEND = Legend(CLASSES, MaskTable({value: value for value in range(len(CLASSES))}))
URL = "https://landcover.ai.linuxpolska.com/download/landcover.ai.v1.zip"
MD5 = "3268c89070e8734b4e91d531c0617e03"
FOLDERS = ("landcover_ai", "landcover.ai.v1", "landcover.ai", "landcoverai", "landcover")
LISTS = {split: f"{split}.txt" for split in ("train", "val", "test")}
ORTHO = re.compile(r"(?:.*/)?(?P<kind>images|masks)/(?P<name>[^/]+)\.tiff?")
TILE = re.compile(r"(?:.*/)?output/(?P<name>[^/]+?)(?P<mask>_m)?\.(?:jpg|png)")
EXTRA = frozenset({*LISTS.values(), "split.py"})  # of the archive


def read(contents: Contents) -> SceneListing:
    """List the orthophotos of a folder or zip. Raises InputError where there are none, or as `pairs`."""
    found: dict[str, dict[str, Found]] = {"images": {}, "masks": {}}
    for path, size in contents.images:
        if match := ORTHO.fullmatch(path):
            found[match["kind"]][match["name"]] = (path, size)
    if not found["images"]:
        raise InputError(f"{contents.base}: has no images/M-33-7-A-d-2-3.tif or the like")
    _take_lists(contents)
    contents.images = [(path, size) for path, size in contents.images if not TILE.fullmatch(path)]
    return pairs(contents.base, found["images"], found["masks"], LEGEND, notes=contents.notes())


def read_tiles(contents: Contents) -> SceneListing:
    """List the tiles of a folder or zip by their lists.

    Raises:
        InputError: there are no tiles, a list is missing or does not go with them, or as `pairs`.
    """
    found: dict[str, dict[str, Found]] = {"": {}, "_m": {}}
    for path, size in contents.images:
        if match := TILE.fullmatch(path):
            found[match["mask"] or ""][match["name"]] = (path, size)
    if not found[""]:
        raise InputError(f"{contents.base}: has no output/ with tiles, which the split.py of the archive cuts")
    paths = _take_lists(contents)
    if lost := [name for name in LISTS.values() if name not in paths]:
        raise InputError(f"{contents.base}: has no {lost[0]} of the archive, which divides the tiles")
    lists = {
        split: Text(f"{contents.base}/{shown(paths[name])}", Files(contents.base, (paths[name],)).read(0))
        for split, name in LISTS.items()
    }
    names = sorted(found[""])
    sides = read_sides(lists, names, ())
    splits = {names[number]: split for number, split in sides.splits.items()}
    images, masks = ({name: files[name] for name in files if name in splits} for files in found.values())
    notes = (*contents.notes(), *sides.notes)
    return pairs(contents.base, images, masks, LEGEND, splits=splits, notes=notes)


def _take_lists(contents: Contents) -> dict[str, str]:
    """Name -> path of the files of the archive beside its pictures, which are no longer among those not read."""
    paths = {path.rpartition("/")[2]: path for path in contents.unread}
    contents.unread = [path for path in contents.unread if path.rpartition("/")[2] not in EXTRA]
    return {name: path for name, path in paths.items() if name in EXTRA}


def _open(root: Path) -> SceneListing:
    return locate("landcover_ai", root, FOLDERS, ("images", "masks"), _hint("landcover_ai"), read)


def _open_tiles(root: Path) -> SceneListing:
    return locate("landcover_ai:tiles", root, FOLDERS, ("images", "masks", "output"), BY_HAND, read_tiles)


def _hint(name: str) -> str:
    return f"Get it with `rssearch data fetch {name}`, or name the folder it lies in as the data root."


def _fetch(root: Path) -> None:
    """The archive, 1.4 GB, which is read as it is."""
    from torchvision.datasets.utils import download_url

    download_url(URL, str(root), md5=MD5)


BY_HAND = (
    "Get the archive with `rssearch data fetch landcover_ai`, extract it into a folder landcover_ai in the data root, "
    "and run its split.py there."
)
_SOURCE = "Boguszewski et al., LandCover.ai, CVPR Workshops 2021, arXiv:2005.02264"
_LICENCE = "CC BY-NC-SA 4.0, as its publishers state it."
FAMILIES = (
    Family(
        name="landcover_ai",
        summary="41 aerial orthophotos of Poland, 0.25 or 0.5 m, with masks of 5 classes; each lies in one split",
        source=_SOURCE,
        folders=FOLDERS,
        open=_open,
        fetch=_fetch,
        licence=_LICENCE,
        task="segmentation",
    ),
    Family(
        name="landcover_ai:tiles",
        summary="their 10,674 tiles of 512x512, as the published lists divide them",
        source=_SOURCE,
        folders=FOLDERS,
        open=_open_tiles,
        by_hand=BY_HAND,
        licence=_LICENCE,
        task="segmentation",
    ),
)
