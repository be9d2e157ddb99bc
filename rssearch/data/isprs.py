"""Potsdam and Vaihingen: aerial orthophotos of the ISPRS 2D labelling contest with masks of six classes, in colours.

Potsdam has ``2_Ortho_RGB/top_potsdam_2_10_RGB.tif`` (``potsdam:irrg``: ``3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif``) and
``top_potsdam_2_10_label.tif``, wherever these lie; Vaihingen has ``top/top_mosaic_09cm_area1.tif`` (near infrared, red,
green) and a mask of the same name in another folder. The division is that of the contest, whose validation scenes are
sampled from the training scenes. Of two masks the complete ground truth comes before that for participants.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rssearch.data.family import Family
from rssearch.data.listing import locate
from rssearch.data.masks import MaskTable
from rssearch.data.scene_folders import Found
from rssearch.data.scenes import SceneListing
from rssearch.data.segmentation_folder import Legend, pairs
from rssearch.data.split_folders import without_labels
from rssearch.errors import InputError
from rssearch.imaging.contents import Contents, shown

CLASSES = ("impervious surface", "building", "low vegetation", "tree", "car", "clutter")
COLOURS = (0xFFFFFF, 0x0000FF, 0x00FFFF, 0x00FF00, 0xFFFF00, 0xFF0000)
LEGEND = Legend(CLASSES, MaskTable({colour: index for index, colour in enumerate(COLOURS)}, colours=True))
POTSDAM = {
    "train": (
        "2_10", "2_11", "2_12", "3_10", "3_11", "3_12", "4_10", "4_11", "4_12", "5_10", "5_11", "5_12", "6_10", "6_11",
        "6_12", "6_7", "6_8", "6_9", "7_10", "7_11", "7_12", "7_7", "7_8", "7_9",
    ),
    "test": (
        "5_15", "6_15", "6_13", "3_13", "4_14", "6_14", "5_14", "2_13", "4_15", "2_14", "5_13", "4_13", "3_14", "7_13",
    ),
}  # fmt: skip
VAIHINGEN = {
    "train": ("1", "11", "13", "15", "17", "21", "23", "26", "28", "3", "30", "32", "34", "37", "5", "7"),
    "test": (
        "6", "24", "35", "16", "14", "22", "10", "4", "2", "20", "8", "31", "33", "27", "38", "12", "29",
    ),
}  # fmt: skip
PARTICIPANTS = "for_participants"  # in the name of folders with the masks of the training scenes alone
BY_HAND = "Ask for it at https://www.isprs.org/education/benchmarks/UrbanSemLab/ and extract its archives into {}."
Place = Callable[[str], tuple[str, str] | None]  # path of a picture -> image or mask, and number of its scene


def _potsdam(bands: str, path: str) -> tuple[str, str] | None:
    match = re.fullmatch(rf"(?:.*/)?top_potsdam_0?(\d_\d+)_({bands}|label)\.tif", path)
    return None if match is None else ("masks" if match[2] == "label" else "images", match[1])


def _vaihingen(path: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"(?P<folder>(?:.*/)?)top_mosaic_09cm_area(?P<number>\d+)\.tif", path)
    if match is None:
        return None
    return "images" if f"/{match['folder']}".endswith("/top/") else "masks", match["number"]


def read(contest: Contest, contents: Contents) -> SceneListing:
    """List the scenes of the contest. Raises InputError: there are none, two are one image or mask, or as `pairs`."""
    splits = contest.splits
    found: dict[str, dict[str, Found]] = {"images": {}, "masks": {}}
    # Those for participants last, so that complete ones are there before them.
    for path, size in sorted(contents.images, key=lambda file: (PARTICIPANTS in file[0], file[0])):
        what, number = contest.place(path) or ("", "")
        if (name := f"{contest.stem}{number}") not in splits:
            continue
        if name not in found[what]:
            found[what][name] = (path, size)
        elif PARTICIPANTS not in path:
            first = shown(found[what][name][0])
            raise InputError(f"{contents.base}: {first} and {shown(path)} are both {what} of {name}; leave one there")
    images, masks = found["images"], found["masks"]
    if not images:
        raise InputError(f"{contents.base}: has no {contest.example}")
    labelled = {splits[name] for name in masks if name in images}
    there = {splits[name] for name in images}
    notes = (*contents.notes(), *without_labels(str(contents.base), "a mask", there, labelled))
    return pairs(
        contents.base,
        {name: file for name, file in images.items() if splits[name] in labelled},
        masks,
        LEGEND,
        splits=splits,
        notes=notes,
    )


@dataclass(frozen=True)
class Contest:
    """Where the scenes of a town lie.

    Attributes:
        stem: beginning of the scenes' names.
        division: split -> numbers of its scenes.
        place: says what a path is.
        example: path of an image, for messages.
    """

    stem: str
    division: Mapping[str, tuple[str, ...]]
    place: Place
    example: str

    @property
    def splits(self) -> dict[str, str]:
        """The split of each scene."""
        return {f"{self.stem}{number}": split for split, numbers in self.division.items() for number in numbers}

    def name(self, split: str, position: int) -> str:
        """The scene at a position of a split."""
        return f"{self.stem}{self.division[split][position]}"


def _family(name: str, folder: str, inner: tuple[str, ...], summary: str, contest: Contest) -> Family:
    by_hand = BY_HAND.format(f"a folder {folder} in the data root")
    reader = functools.partial(read, contest)
    return Family(
        name=name,
        summary=summary,
        source="Rottensteiner et al., The ISPRS benchmark on urban object classification, ISPRS Annals I-3, 2012",
        folders=(folder,),
        expected={split: len(numbers) for split, numbers in contest.division.items()},
        stem=contest.name,
        open=lambda root: locate(name, root, (folder,), inner, by_hand, reader),
        by_hand=by_hand,
        licence="for scientific purposes, as its publishers state it.",
        task="segmentation",
    )


def _of_potsdam(name: str, folder: str, bands: str) -> Family:
    contest = Contest("potsdam", POTSDAM, functools.partial(_potsdam, bands), f"{folder}/top_potsdam_2_10_{bands}.tif")
    inner = (folder, "5_Labels_all", "5_Labels_for_participants")
    summary = (
        f"38 aerial scenes of Potsdam, 6000x6000, 0.05 m, {bands}, with masks of 6 classes; the contest's division"
    )
    return _family(name, "potsdam", inner, summary, contest)


FAMILIES = (
    _of_potsdam("potsdam", "2_Ortho_RGB", "RGB"),
    _of_potsdam("potsdam:irrg", "3_Ortho_IRRG", "IRRG"),
    _family(
        "vaihingen",
        "vaihingen",
        ("top", "gts_for_participants"),
        "33 aerial scenes of Vaihingen, 0.09 m, IRRG, with masks of 6 classes; the contest's division",
        Contest("vaihingen", VAIHINGEN, _vaihingen, "top/top_mosaic_09cm_area1.tif"),
    ),
)
