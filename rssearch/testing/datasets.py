"""What a dataset must keep to, whatever it is read from: arrays, splits, moments, fingerprints, batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from rssearch import data
from rssearch.config.settings import Split
from rssearch.data.loader import batches
from rssearch.imaging.rasters import TYPES
from rssearch.testing.clauses import check, require
from rssearch.testing.dataset_part import DatasetPart, normalised, scaled
from rssearch.testing.scenes import SCENE_CLAUSES

__all__ = ["IMAGE_CLAUSES", "SCENE_CLAUSES", "DatasetPart", "check_dataset"]

_CPU = torch.device("cpu")


def check_dataset(name: str, root: str | Path, *, size: int = 16) -> None:
    """Hold a dataset against its contract.

    Args:
        name: of the registry, ``folder:PATH`` or ``seg-folder:PATH``.
        root: folder of the datasets.
        size: pixels; images are scaled to it, scenes are cut into patches of it.

    Raises:
        ContractError: which clauses do not hold, and why.
        InputError: the dataset is not there or cannot be read.
    """
    part = DatasetPart(name, Path(root), size)
    check(name, part, IMAGE_CLAUSES if part.task == "classification" else SCENE_CLAUSES)


def arrays_have_their_types(part: DatasetPart) -> None:
    """Images are [N, C, H, W] of a known type, labels int64 in the range of the classes, and every class has one."""
    found = part.images
    count = len(found.labels)
    require(part.pixels.shape == (count, *found.input_shape), f"images are {part.pixels.shape}")
    require(found.input_shape[1:] == (part.size, part.size), f"images are {found.input_shape}")
    require(part.pixels.dtype == found.dtype and found.dtype.name in TYPES, f"images are {part.pixels.dtype}")
    require(found.labels.dtype == np.int64, f"labels are {found.labels.dtype}")
    require(found.num_classes == len(found.classes) == len(set(found.classes)), "classes are not named once each")
    require(set(found.labels.tolist()) == set(range(found.num_classes)), "labels are not 0 to the number of classes")
    require(found.name == part.name, f"its name is {found.name!r}")


def splits_cover_every_image_once(part: DatasetPart) -> None:
    """Training, validation and test split have every image once, in order, and each has every class."""
    found = part.images
    require(set(found.indices) == {"train", "val", "test"}, f"its splits are {', '.join(found.indices)}")
    everything = np.sort(np.concatenate(list(found.indices.values())))
    require(np.array_equal(everything, np.arange(len(found.labels))), "an image is in no split or in several")
    for split, members in found.indices.items():
        require(members.dtype == np.int64, f"{split}: indices are {members.dtype}")
        require(bool((np.diff(members) > 0).all()), f"{split}: indices are not in order")
        missing = set(range(found.num_classes)) - set(found.labels[members].tolist())
        require(not missing, f"{split}: no image of {', '.join(found.classes[label] for label in sorted(missing))}")


def moments_are_those_of_the_training_split(part: DatasetPart) -> None:
    """Mean and standard deviation are those of the training images, so that these have mean 0 and deviation 1."""
    found = part.images
    train = scaled(part.pixels[found.indices["train"]], found)
    np.testing.assert_allclose(found.mean, np.nanmean(train, (0, 2, 3)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.std, np.nanstd(train, (0, 2, 3)), rtol=1e-5)
    require(found.mean.dtype == found.std.dtype == np.float32, f"they are {found.mean.dtype} and {found.std.dtype}")
    x = torch.cat([x for x, _ in batches(found.split("train"), 512, device=_CPU, train=False)])
    channels = found.input_shape[0]
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(channels), atol=1e-3, rtol=0)


def loading_repeats_itself(part: DatasetPart) -> None:
    """Loaded again, by other threads, it is the same to the last bit, and its fingerprint says so."""
    found, again = part.images, part.load(workers=2)
    require(data.fingerprint(part.name, part.root) == found.fingerprint, "data.fingerprint gives another fingerprint")
    require((again.fingerprint, again.split_hash) == (found.fingerprint, found.split_hash), "hashes differ")
    require(np.array_equal(again.images, part.pixels), "pixels differ")
    require(np.array_equal(again.labels, found.labels), "labels differ")
    require(len(found.fingerprint) == len(found.split_hash) == 64, "a hash is no SHA-256")


def another_seed_is_another_split(part: DatasetPart) -> None:
    """Another seed divides the same images differently, into parts of the same size; a given division stays."""
    found, other = part.images, part.load(split=Split(seed=1))
    require((other.split_hash == found.split_hash) == part.divided, "the split is the same, or a given one is another")
    require(other.fingerprint == found.fingerprint, "the fingerprint changes with the split")
    if part.listing.groups is not None:
        return  # whole places need not have the same size
    sizes = [{split: len(members) for split, members in one.indices.items()} for one in (found, other)]
    require(sizes[0] == sizes[1], f"the parts have other sizes: {sizes}")


def one_split_is_a_torch_dataset(part: DatasetPart) -> None:
    """`data.create` gives one split, normalised, as a dataset that PyTorch's loaders take."""
    found = part.images
    dataset = data.create(part.name, part.root, "val", **part.options, workers=1)
    require(len(dataset) == len(found.indices["val"]), f"{len(dataset)} images")
    require(dataset.classes == found.classes, "it has other classes")
    x, y = dataset[len(dataset) - 1]
    index = found.indices["val"][-1]
    require(y == found.labels[index], "the last label is another one")
    np.testing.assert_allclose(x.numpy(), normalised(part.pixels[index], found), atol=2e-5)
    require(x.dtype == torch.float32, f"images are {x.dtype}")
    loaded = list(torch.utils.data.DataLoader(dataset, batch_size=4))
    require(len(loaded) == -(-len(dataset) // 4), f"{len(loaded)} batches of 4")


def targets_are_the_labels(part: DatasetPart) -> None:
    """`targets` of positions are what the items at these positions have as labels."""
    dataset = part.images.split("test")
    positions = np.arange(len(dataset))[::-2].copy()
    require(dataset.targets(positions).tolist() == [dataset[position][1] for position in positions], "they differ")
    require(dataset.targets(np.array([0])).dtype == torch.int64, "they are no 64-bit numbers")


def pixels_travel_out_of_band(part: DatasetPart) -> None:
    """Pickled by protocol 5 the pixels are a buffer: workers of a node map them instead of copying."""
    buffers: list[pickle.PickleBuffer] = []
    pickle.dumps(part.images, protocol=5, buffer_callback=buffers.append)
    largest = max((memoryview(buffer).nbytes for buffer in buffers), default=0)
    require(largest == part.pixels.nbytes, f"the largest buffer has {largest} bytes")


def verification_finds_nothing_wrong(part: DatasetPart) -> None:
    """`data.verify` reads every file and finds what was loaded."""
    found, report = part.images, data.verify(part.name, part.root, workers=1)
    require(report.ok, report.describe())
    require(report.images == len(found.labels) == sum(report.classes.values()), f"{report.images} images")
    require(report.fingerprint == found.fingerprint, "it has another fingerprint")
    require(str(report.images) in report.describe(), "the description does not say how many images there are")


IMAGE_CLAUSES: tuple[Callable[[DatasetPart], None], ...] = (
    arrays_have_their_types,
    splits_cover_every_image_once,
    moments_are_those_of_the_training_split,
    loading_repeats_itself,
    another_seed_is_another_split,
    one_split_is_a_torch_dataset,
    targets_are_the_labels,
    pixels_travel_out_of_band,
    verification_finds_nothing_wrong,
)
