"""EuroSAT RGB: land use and land cover in Sentinel-2 patches of 64x64."""

from __future__ import annotations

from pathlib import Path

from rssearch.data.family import Family


def _fetch(root: Path) -> None:
    from torchvision.datasets import EuroSAT

    EuroSAT(str(root), download=True)


FAMILY = Family(
    name="eurosat",
    summary="27,000 Sentinel-2 patches, 64x64 RGB, 10 land-use classes (eurosat_rgb is the same)",
    source="Helber et al., EuroSAT, IEEE JSTARS 12(7), 2019, arXiv:1709.00029",
    folders=("eurosat", "eurosat_rgb", "2750"),
    expected={
        "AnnualCrop": 3000, "Forest": 3000, "HerbaceousVegetation": 3000, "Highway": 2500, "Industrial": 2500,
        "Pasture": 2000, "PermanentCrop": 2500, "Residential": 3000, "River": 2500, "SeaLake": 3000,
    },
    licence="MIT, as its publishers state it; the pixels are Copernicus Sentinel-2 data, free with attribution.",
    stem=lambda name, number: f"{name}_{number + 1}",
    fetch=_fetch,
)  # fmt: skip
