"""What a dataset of scenes with masks must keep to, whatever it is read from."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rssearch import data
from rssearch.config.settings import Patches, Split
from rssearch.data import IGNORE, SceneSet
from rssearch.data.describe import describe
from rssearch.data.loader import batches
from rssearch.errors import InputError
from rssearch.imaging.rasters import TYPES
from rssearch.testing.clauses import require
from rssearch.testing.dataset_part import DatasetPart, normalised, scaled

__all__ = ["SCENE_CLAUSES"]

_CPU = torch.device("cpu")


def _pixels(found: SceneSet) -> list[tuple[Any, Any]]:
    """Each scene [H, W, C] with its mask [H, W]."""
    return [(found.scenes.image(scene), found.scenes.mask(scene)) for scene in range(len(found.names))]


def scenes_have_masks(part: DatasetPart) -> None:
    """Scenes are [H, W, C] with masks of their size; every class has a pixel, other values are ignored."""
    found = part.scenes
    require(found.name == part.name, f"its name is {found.name!r}")
    require(found.task == found.split("val").task == "segmentation", f"its task is {found.task}")
    require(found.input_shape[1:] == (part.size, part.size), f"patches are {found.input_shape}")
    require(found.num_classes == len(found.classes) >= 2, f"it has {found.num_classes} classes")
    seen: set[int] = set()
    for image, mask in _pixels(found):
        fits = image.dtype == found.dtype and image.dtype.name in TYPES and mask.dtype == np.uint8
        require(fits, f"scenes and masks are {image.dtype} and {mask.dtype}")
        require(image.shape == (*mask.shape, found.input_shape[0]), f"{image.shape} and {mask.shape}")
        seen |= set(np.unique(mask).tolist())
    require(seen - {IGNORE} == set(range(found.num_classes)), f"masks have the values {sorted(seen)}")


def groups_are_in_one_split(part: DatasetPart) -> None:
    """Scenes of one group are in one split, and every group is in some."""
    found = part.scenes
    sides = {split: {found.groups[s] for s in found.windows[m, 0]} for split, m in found.indices.items()}
    require(set(sides) == {"train", "val", "test"} and all(sides.values()), f"its splits are {sides}")
    require(sum(map(len, sides.values())) == len(set(found.groups)), "a group is in several splits, or in none")


def windows_cover_every_pixel(part: DatasetPart) -> None:
    """Patches cover every pixel of their scenes; those of validation and test overlap no more than they must."""
    found, size = part.scenes, part.size
    everything = np.concatenate(list(found.indices.values()))
    require(np.array_equal(np.sort(everything), np.arange(len(found.windows))), "a patch is in no or several splits")
    for split, members in found.indices.items():
        require(members.dtype == np.int64, f"{split}: indices are {members.dtype}")
        for scene in np.unique(found.windows[members, 0]):
            height, width = found.scenes.mask(scene).shape
            times = np.zeros((height, width), int)
            own = [window for window in found.windows[members].tolist() if window[0] == scene]
            for _, row, column in own:
                require(0 <= row <= max(height - size, 0), f"a patch begins in row {row} of {height}")
                require(0 <= column <= max(width - size, 0), f"a patch begins in column {column} of {width}")
                times[row : row + size, column : column + size] += 1
            require(int(times.min()) >= 1, f"{split}: a pixel of {found.names[scene]} is in no patch")
            fewest = -(-height // size) * -(-width // size)
            fits = len(own) >= fewest if split == "train" else len(own) == fewest
            require(fits, f"{split}: {len(own)} patches of {found.names[scene]}, where {fewest} cover it")


def moments_are_those_of_the_training_scenes(part: DatasetPart) -> None:
    """Mean and standard deviation are those of the training scenes' pixels."""
    found = part.scenes
    train = np.unique(found.windows[found.indices["train"], 0])
    channels = found.input_shape[0]
    flat = [found.scenes.image(scene).reshape(-1, channels).T[..., None] for scene in train]
    pixels = scaled(np.concatenate(flat, axis=1), found)
    np.testing.assert_allclose(found.mean, np.nanmean(pixels, (1, 2)), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.std, np.nanstd(pixels, (1, 2)), rtol=1e-5)
    require(found.mean.dtype == found.std.dtype == np.float32, f"they are {found.mean.dtype} and {found.std.dtype}")
    x = torch.cat([scene.image.flatten(1) for scene in found.split("train").scenes()], dim=1)
    torch.testing.assert_close(x.mean(1), torch.zeros(channels), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(1), torch.ones(channels), atol=1e-3, rtol=0)


def loading_scenes_repeats_itself(part: DatasetPart) -> None:
    """Loaded again, by other threads, it is the same to the last bit, and its fingerprint says so."""
    found, again = part.scenes, part.load(workers=2)
    require(data.fingerprint(part.name, part.root) == found.fingerprint, "data.fingerprint gives another fingerprint")
    require((again.fingerprint, again.split_hash) == (found.fingerprint, found.split_hash), "hashes differ")
    require(len(again.fingerprint) == len(again.split_hash) == 64, "a hash is no SHA-256")
    require(np.array_equal(again.windows, found.windows), "patches differ")
    for one, two in zip(_pixels(again), _pixels(found), strict=True):
        require(all(map(np.array_equal, one, two)), "pixels differ")


def another_seed_is_another_split_of_the_scenes(part: DatasetPart) -> None:
    """Other seeds divide the same scenes differently; a given division stays."""
    found, others = part.scenes, [part.load(split=Split(seed=seed)) for seed in (1, 2, 3)]
    another = any(other.split_hash != found.split_hash for other in others)
    require(another != part.divided, "three other seeds give the same split, or another than the given one")
    require({other.fingerprint for other in others} == {found.fingerprint}, "the fingerprint changes with the split")


def one_split_of_patches_is_a_torch_dataset(part: DatasetPart) -> None:
    """`data.create` gives one split as normalised patches with masks, for PyTorch's loaders."""
    found, size = part.scenes, part.size
    dataset = data.create(part.name, part.root, "val", **part.options, workers=1)
    require(len(dataset) == len(found.indices["val"]), f"{len(dataset)} patches")
    require(dataset.classes == found.classes, "it has other classes")
    scene, row, column = found.windows[found.indices["val"][-1]]
    image = found.scenes.image(scene)[row : row + size, column : column + size].transpose(2, 0, 1)
    expected = normalised(image, found)
    x, y = dataset[len(dataset) - 1]
    assert isinstance(y, torch.Tensor)
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-6)
    require(np.array_equal(y, found.scenes.mask(scene)[row : row + size, column : column + size]), "another mask")
    require((x.dtype, y.dtype) == (torch.float32, torch.int64), f"they are {x.dtype} and {y.dtype}")
    loaded = list(torch.utils.data.DataLoader(dataset, batch_size=4))
    require(len(loaded) == -(-len(dataset) // 4), f"{len(loaded)} batches of 4")


def batches_are_the_patches_in_order(part: DatasetPart) -> None:
    """Batches without augmentation are the items in their order, and `targets` their masks."""
    dataset = part.scenes.split("test")
    pairs = list(batches(dataset, 3, device=_CPU, train=False))
    x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    require(torch.equal(y, dataset.targets(np.arange(len(dataset)))), "masks differ")
    require(y.dtype == torch.int64, f"masks are {y.dtype}")
    require(all(torch.equal(image, dataset[index][0]) for index, image in enumerate(x)), "patches differ")


def whole_scenes_hold_their_patches(part: DatasetPart) -> None:
    """Patches are cut from the whole scenes that `scenes()` gives."""
    source, size = part.scenes, part.size
    dataset = source.split("test")
    whole = {scene.name: scene for scene in dataset.scenes()}
    names = {source.names[scene] for scene in source.windows[dataset.indices, 0]}
    require(set(whole) == names, f"{', '.join(sorted(set(whole) ^ names))}: in one of the two only")
    for position, index in enumerate(dataset.indices):
        number, row, column = source.windows[index].tolist()
        scene = whole[source.names[number]]
        x, y = dataset[position]
        require(torch.equal(x, scene.image[:, row : row + size, column : column + size]), "an image differs")
        require(torch.equal(y, scene.mask[row : row + size, column : column + size]), "a mask differs")
    require(len(list(dataset.part(np.array([0])).scenes())) == 1, "one patch has several scenes")


def scenes_travel_out_of_band(part: DatasetPart) -> None:
    """Pickled by protocol 5 pixels and masks are buffers: workers of a node map them instead of copying."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(part.scenes, protocol=5, buffer_callback=buffers.append)
    arrays = [array for pair in _pixels(part.scenes) for array in pair]
    held = sum(memoryview(buffer).nbytes for buffer in buffers)
    require(held >= sum(array.nbytes for array in arrays), f"buffers hold {held} bytes")
    require(len(stream) < 20_000, f"{len(stream)} bytes are beside the buffers")


def verification_of_scenes_finds_nothing_wrong(part: DatasetPart) -> None:
    """`data.verify` reads every file, and counts the pixels of each class."""
    found, report = part.scenes, data.verify(part.name, part.root, workers=1)
    require(report.ok, report.describe())
    require(report.images == len(found.names), f"{report.images} scenes")
    counts = np.bincount(np.concatenate([mask.ravel() for _, mask in _pixels(found)]), minlength=256)
    require(list(report.classes.values()) == counts[: found.num_classes].tolist(), f"pixels: {report.classes}")
    require(report.ignored == counts[IGNORE], f"{report.ignored} pixels are ignored")
    require(report.fingerprint == found.fingerprint, "it has another fingerprint")


def description_needs_no_pixels(part: DatasetPart) -> None:
    """What the driver plans with is what loading gives: shape, task, classes, number of patches."""
    about = describe(part.name, part.root, patches=part.options["patches"])
    require((about.input_shape, about.task) == (part.scenes.input_shape, "segmentation"), f"{about}")
    require(about.num_classes == part.scenes.num_classes, f"{about.num_classes} classes")
    plain = Patches(size=part.size)
    most = Split(train=0.98, val=0.01, test=0.01)
    loaded = data.load(part.name, part.root, patches=plain, split=most)
    assert isinstance(loaded, SceneSet)
    said = describe(part.name, part.root, patches=plain).num_images
    require(said == len(loaded.windows), f"{said} patches are said, {len(loaded.windows)} loaded")


def scenes_are_never_scaled(part: DatasetPart) -> None:
    """An input size is refused with an InputError: scenes are cut."""
    for call in (data.load, describe):
        try:
            call(part.name, part.root, input_size=64)
        except InputError:
            continue
        raise AssertionError(f"{call.__name__} takes an input size")


SCENE_CLAUSES: tuple[Callable[[DatasetPart], None], ...] = (
    scenes_have_masks,
    groups_are_in_one_split,
    windows_cover_every_pixel,
    moments_are_those_of_the_training_scenes,
    loading_scenes_repeats_itself,
    another_seed_is_another_split_of_the_scenes,
    one_split_of_patches_is_a_torch_dataset,
    batches_are_the_patches_in_order,
    whole_scenes_hold_their_patches,
    scenes_travel_out_of_band,
    verification_of_scenes_finds_nothing_wrong,
    description_needs_no_pixels,
    scenes_are_never_scaled,
)
