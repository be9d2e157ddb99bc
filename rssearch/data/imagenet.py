"""ImageNet 2012, as the ``train`` and ``val`` trees that torchvision extracts."""

from __future__ import annotations

from pathlib import Path

from rssearch.data.family import Family
from rssearch.data.listing import Listing, from_files
from rssearch.errors import InputError
from rssearch.imaging.contents import scan

TARS = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")


def _open(root: Path) -> Listing:
    places = [root, root / "imagenet", root / "ImageNet", root / "ILSVRC2012"]
    for place in places:
        if (place / "train").is_dir() and (place / "val").is_dir():
            return from_files(scan(place))
    archives = [root / "imagenet.zip", root / "imagenet" / "imagenet.zip"]
    for archive in archives:
        if archive.is_file():
            return from_files(scan(archive))
    state = "" if root.exists() else f" The data root {root} does not exist."
    raise InputError(
        f"dataset 'imagenet' was not found.{state} Looked for train/ and val/ in: {', '.join(map(str, places))}, "
        f"and at {', '.join(map(str, archives))}. Put the official archives ({', '.join(TARS)}) into the data root "
        "and run `rssearch data fetch imagenet`, which extracts them."
    )


def _fetch(root: Path) -> None:
    missing = [tar for tar in TARS if not (root / tar).is_file()]
    if missing:
        raise InputError(
            f"imagenet cannot be downloaded without an account: get {', '.join(missing)} at image-net.org and put "
            f"them into {root}; this command then checks and extracts them"
        )
    from torchvision.datasets import ImageNet

    for split in ("train", "val"):
        ImageNet(str(root), split)


FAMILY = Family(
    name="imagenet",
    summary="1.28 million photographs of many sizes (set input_size), 1000 classes; val serves as the test set",
    source="Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 115, 2015",
    open=_open,
    fetch=_fetch,
    licence="its terms of access allow non-commercial research and education alone.",
)
