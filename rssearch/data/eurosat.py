"""EuroSAT RGB: land use and land cover in Sentinel-2 patches of 64x64.

``eurosat_spatial`` has the same images, divided by longitude as torchgeo's EuroSATSpatial divides them, by the lists
that torchgeo publishes: neighbours, which look alike, are in one split.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace
from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import Files, Listing, from_files, locate
from rssearch.data.split_lists import Text, divide_listing
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, shown

URL = "https://hf.co/datasets/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b6ecc466ea67f2509774c/"
# Lists of the spatial division, with the MD5 of each as torchgeo publishes it.
LISTS = {
    "train": ("eurosat-spatial-train.txt", "7be3254be39f23ce4d4d144290c93292"),
    "val": ("eurosat-spatial-val.txt", "acf392290050bb3df790dc8fc0ebf193"),
    "test": ("eurosat-spatial-test.txt", "5ec1733f9c16116bf0aa2d921fc613ef"),
}


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


def read_spatial(root: Path, contents: Contents) -> Listing:
    """List the images of a folder or zip, divided by the lists in it, beside it, or in the data root.

    Raises:
        InputError: a list is missing or does not go with the images, or as `from_files`.
    """
    inside = {path.rpartition("/")[2]: path for path in contents.unread}
    names = [name for name, _ in LISTS.values()]
    contents.unread = [path for path in contents.unread if path.rpartition("/")[2] not in names]
    found = from_files(contents)
    lists, notes = {}, []
    for split, (name, digest) in LISTS.items():
        folders = [folder for folder in (contents.base.parent, root) if (folder / name).is_file()]
        if name in inside:
            text = Text(f"{contents.base}/{shown(inside[name])}", Files(contents.base, (inside[name],)).read(0))
        elif folders:
            text = Text(f"{folders[0]}/{name}", Files(folders[0], (name,)).read(0))
        else:
            raise InputError(
                f"{contents.base}: has no {name}, nor has {root}; get it with `rssearch data fetch eurosat_spatial`, "
                f"or at {URL}{name}"
            )
        if hashlib.md5(text.content, usedforsecurity=False).hexdigest() != digest:
            notes.append(f"{name} is not the published list, whose MD5 is {digest}")
        lists[split] = text
    divided = divide_listing(found, lists)
    return replace(divided, notes=(*divided.notes, *notes))


def _open_spatial(root: Path) -> Listing:
    hint = "Get it with `rssearch data fetch eurosat_spatial`, or name the folder it lies in as the data root."
    name, folders = "eurosat_spatial", FAMILY.folders
    return locate(name, root, folders, FAMILY.expected, hint, functools.partial(read_spatial, root))


def _fetch_spatial(root: Path) -> None:
    """The lists, and the images unless they are there."""
    from torchvision.datasets.utils import download_url

    for name, digest in LISTS.values():
        download_url(URL + name, str(root), filename=name, md5=digest)
    try:
        FAMILY.listing(root, FAMILY.name)
    except InputError:
        _fetch(root)


SPATIAL = replace(
    FAMILY,
    name="eurosat_spatial",
    summary="the images of eurosat, divided by longitude as torchgeo's EuroSATSpatial: 60 % train, 20 % val, 20 % test",
    source=f"{FAMILY.source}; lists: torchgeo",
    open=_open_spatial,
    fetch=_fetch_spatial,
)
FAMILIES = (FAMILY, SPATIAL)
