"""UC Merced Land Use: aerial scenes of 256x256 at one foot per pixel."""

from __future__ import annotations

from pathlib import Path

from rssearch.data.family import Family
from rssearch.errors import InputError

CLASSES = (
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral", "denseresidential", "forest",
    "freeway", "golfcourse", "harbor", "intersection", "mediumresidential", "mobilehomepark", "overpass", "parkinglot",
    "river", "runway", "sparseresidential", "storagetanks", "tenniscourt",
)  # fmt: skip


def _fetch(root: Path) -> None:
    try:
        from torchgeo.datasets import UCMerced
    except ImportError:
        raise InputError("downloading ucmerced needs torchgeo: pip install 'rssearch[torchgeo]'") from None
    UCMerced(str(root), download=True, checksum=True)


FAMILY = Family(
    name="ucmerced",
    summary="2,100 aerial scenes, 256x256 RGB (44 a few pixels smaller: set input_size), 21 land-use classes",
    source="Yang and Newsam, Bag-of-visual-words and spatial extensions, ACM SIGSPATIAL GIS, 2010",
    folders=("ucmerced", "ucmerced_landuse", "uc_merced"),
    expected=dict.fromkeys(CLASSES, 100),
    stem=lambda name, number: f"{name}{number:02d}",
    fetch=_fetch,
    licence="public domain imagery of the USGS, which its readme means for research purposes.",
)
