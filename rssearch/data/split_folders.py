"""Which folders are the splits of a published division. A split is never taken for a class, nor a class for a split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from rssearch.errors import InputError
from rssearch.imaging.contents import name_some, shown

NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
# Words that make the name of a folder like that of a split, beside these.
LIKE = NAMES | {"trn": "train", "dev": "val", "eval": "val", "evaluation": "val", "tst": "test", "holdout": "test"}
HOW = "Call the folders of a division train, val and test, and leave nothing else beside them"
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def split_of(folder: str) -> str | None:
    """``train``, ``val`` or ``test`` if a folder is called so or by a usual synonym, in upper or lower case."""
    return NAMES.get(folder.casefold())


def recognise(where: str, counts: Mapping[str, int]) -> dict[str, str]:
    """The splits among folders that lie side by side.

    Args:
        where: the folder that they lie in, for messages.
        counts: name of each folder with images -> how many it has; "" for those in no folder.

    Returns:
        name of each folder -> split; empty where none of them is one.

    Raises:
        InputError: only some are splits, two are the same one, training is missing, or names are like those of splits.
    """
    found = {name: split for name in counts if (split := split_of(name))}
    if not found:
        _check_likeness(where, counts)
        return {}
    splits = ", ".join(map(_folder, sorted(found)))
    if others := sorted(counts.keys() - found.keys()):
        named = ", ".join(f"{_folder(name)} ({counts[name]} images)" for name in others[:5])
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        raise InputError(
            f"{where}: {splits} has the name of a split, but {named}{more} beside it has not. {HOW}; a class cannot "
            "be called so"
        )
    for split in dict.fromkeys(found.values()):
        if len(names := sorted(name for name in found if found[name] == split)) > 1:
            raise InputError(f"{where}: {' and '.join(map(shown, names))} are the same split, {split}. {HOW}")
    if "train" not in found.values():
        raise InputError(f"{where}: has {splits}, but no train/ beside it. {HOW}")
    return found


def _folder(name: str) -> str:
    return shown(f"{name}/") if name else "what is in no folder"


def _check_likeness(where: str, names: Iterable[str]) -> None:
    """Refuse names such as ``training_set`` and ``test_set``, whose meaning would be guessed."""
    like = {name: split for name in names if (split := _likeness(name))}
    if len(set(like.values())) > 1:
        raise InputError(f"{where}: {name_some(like)} look like splits, but are not called so. {HOW}")


def _likeness(name: str) -> str | None:
    words = [word.casefold() for word in _WORD.findall(name)]
    words += [word.removesuffix(end) for word in words for end in ("set", "data", "images")]
    return next((LIKE[word] for word in words if word in LIKE), None)


def check_inner(where: str, paths: Iterable[str]) -> None:
    """Refuse classes that are divided each for itself: ``class/train/...`` beside ``class/test/...``.

    Args:
        where: for messages.
        paths: of the images, below the folder of the classes.
    """
    inner = {path.split("/")[1]: path for path in paths if path.count("/") > 1}
    found = {name: split for name in inner if (split := split_of(name))}
    if len(set(found.values())) > 1:
        raise InputError(
            f"{where}: the classes hold folders of splits ({name_some(inner[name] for name in found)}). Put train, val "
            "and test at the top, with the classes in each"
        )


def given(sides: Sequence[str]) -> tuple[str, ...] | None:
    """The split of each image as folders give it; None where all are in one, which is no division."""
    if len(set(sides)) < 2:
        return None
    # A set that is published with train and val alone (as ImageNet) is reported on val; ours is held out of train.
    return tuple(sides) if "test" in sides else tuple("test" if split == "val" else split for split in sides)


def without_labels(where: str, label: str, splits: Iterable[str], labelled: Iterable[str]) -> list[str]:
    """Notes on splits whose images have no labels, and on what takes their place.

    Args:
        where: the folder, for messages.
        label: what makes the label of an image.
        splits: that there are.
        labelled: splits of the images that have a label.

    Raises:
        InputError: the training split has none.
    """
    left = set(labelled)
    missing = sorted(set(splits) - left)
    if "train" in missing:
        raise InputError(f"{where}: no image of the training split has {label}. {HOW}")
    drawn = {
        "val": "validation images are sampled from train",
        "test": "val serves as the test split" if "val" in left else "test images are sampled from train",
    }
    return [f"no image of the split {split} has {label}: they are left out, and {drawn[split]}" for split in missing]
