"""NWPU-RESISC45: aerial and satellite scenes of 256x256, 0.2 to 30 m per pixel."""

from __future__ import annotations

from pathlib import Path

from rssearch.data.family import Family
from rssearch.errors import InputError

CLASSES = (
    "airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral", "church",
    "circular_farmland", "cloud", "commercial_area", "dense_residential", "desert", "forest", "freeway", "golf_course",
    "ground_track_field", "harbor", "industrial_area", "intersection", "island", "lake", "meadow", "medium_residential",
    "mobile_home_park", "mountain", "overpass", "palace", "parking_lot", "railway", "railway_station",
    "rectangular_farmland", "river", "roundabout", "runway", "sea_ice", "ship", "snowberg", "sparse_residential",
    "stadium", "storage_tank", "tennis_court", "terrace", "thermal_power_station", "wetland",
)  # fmt: skip


def _fetch(root: Path) -> None:
    try:
        from torchgeo.datasets import RESISC45
    except ImportError:
        raise InputError("downloading resisc45 needs torchgeo: pip install 'rssearch[torchgeo]'") from None
    RESISC45(str(root), download=True, checksum=True)


FAMILY = Family(
    name="resisc45",
    summary="31,500 aerial and satellite scenes, 256x256 RGB, 45 classes",
    source="Cheng, Han and Lu, Remote sensing image scene classification, Proc. IEEE 105(10), 2017, arXiv:1703.00121",
    folders=("resisc45", "nwpu-resisc45", "nwpu_resisc45"),
    expected=dict.fromkeys(CLASSES, 700),
    stem=lambda name, number: f"{name}_{number + 1:03d}",
    fetch=_fetch,
)
