"""CIFAR-10 and CIFAR-100, from the Python batches that torchvision stores."""

from __future__ import annotations

import functools
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rssearch.data.decode import resize_all
from rssearch.data.family import Family
from rssearch.data.listing import Listing
from rssearch.errors import InputError
from rssearch.imaging.pixels import Pixels

# folder, training batches, test batch, file of the class names, key of the class names, key of the labels
LAYOUTS = {
    "cifar10": ("cifar-10-batches-py", tuple(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta",
                "label_names", "labels"),
    "cifar100": ("cifar-100-python", ("train",), "test", "meta", "fine_label_names", "fine_labels"),
}  # fmt: skip

# All that an array and plain lists need. Anything else in a batch is refused: unpickling could run foreign code.
ALLOWED = {
    ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}  # fmt: skip

UNPICKLING_ERRORS = (
    OSError, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError,
)  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not only arrays and lists")
        return super().find_class(module, name)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (
        OSError,
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
    ) as e:
        raise InputError(f"{path}: is not a readable CIFAR batch: {e}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a readable CIFAR batch: it holds a {type(content).__name__}")
    return content


def _find(name: str, root: Path) -> Path:
    folder, _, test, *_ = LAYOUTS[name]
    places = [root / folder, root / name / folder, root / name, root]
    for place in places:
        if (place / test).is_file() and (place / LAYOUTS[name][3]).is_file():
            return place
    state = "" if root.exists() else f" The data root {root} does not exist."
    raise InputError(
        f"dataset {name!r} was not found.{state} Looked at: {', '.join(map(str, places))}. "
        f"Get it with `rssearch data fetch {name}`."
    )


def _open(name: str, root: Path) -> Listing:
    place = _find(name, root)
    _, train, test, meta, names_key, labels_key = LAYOUTS[name]
    digest = hashlib.sha256()
    parts, labels, names, fixed = [], [], [], []
    for file in (*train, test):
        batch = _load(place / file)
        try:
            data = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
            targets = np.asarray(batch[labels_key], dtype=np.int64)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{place / file}: is not a readable CIFAR batch: {error}") from None
        if len(data) != len(targets):
            raise InputError(f"{place / file}: has {len(data)} images but {len(targets)} labels")
        digest.update(file.encode() + data.tobytes() + targets.tobytes())
        parts.append(data)
        labels.append(targets)
        names += [f"{file}/{number:05d}" for number in range(len(data))]
        fixed += ["test" if file == test else "train"] * len(data)
    classes = tuple(_load(place / meta)[names_key])
    images = np.concatenate(parts)
    return Listing(
        where=str(place),
        classes=classes,
        names=tuple(names),
        labels=np.concatenate(labels),
        fixed=tuple(fixed),
        fingerprint=digest.hexdigest(),
        pixels=functools.partial(_pixels, images),
    )


def _pixels(images: Pixels, size: int | None) -> Pixels:
    return resize_all(images, size)


def _fetch(name: str, root: Path) -> None:
    from torchvision import datasets

    {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name](str(root), download=True)


FAMILIES = tuple(
    Family(
        name=name,
        summary=f"60,000 photographs, 32x32 RGB, {classes} classes, with a published test set of 10,000",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        open=functools.partial(_open, name),
        fetch=functools.partial(_fetch, name),
    )
    for name, classes in (("cifar10", 10), ("cifar100", 100))
)
