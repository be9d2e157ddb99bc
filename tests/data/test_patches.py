"""Batches of patches: masks go where their images go, and nothing is invented."""

import dataclasses

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config.settings import Augment, Patches
from rssearch.data import IGNORE
from rssearch.data import augment as augmentation
from rssearch.data.loader import batches, num_batches
from rssearch.data.scenestore import Memory
from rssearch.data.windows import cut
from rssearch.errors import InputError


@pytest.fixture(scope="module")
def scenes():
    return data.load("synthetic_buildings", ".", patches=Patches(size=32), workers=1)


def marked(scenes, size=16, shape=(40, 50), count=3, **options):
    """A set whose masks are its images' red channel, so that each pixel tells where its class belongs."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, (*shape, 3), dtype=np.uint8) for _ in range(count)]
    windows = cut([shape] * count, range(count), size)
    return dataclasses.replace(
        scenes,
        scenes=Memory(images, [image[..., 0].copy() for image in images]),
        names=tuple(map(str, range(count))),
        groups=tuple(map(str, range(count))),
        windows=windows,
        size=size,
        indices={"train": np.arange(len(windows))},
        mean=np.zeros(3, np.float32),
        std=np.ones(3, np.float32) / 255,
        **options,
    )


@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(crop=0),
        Augment(crop=9, rotate90=False),
        Augment(crop=15, hflip=False, vflip=False, rotate90=False),
        Augment(crop=3, vflip=False),
    ],
)
def test_masks_are_cropped_flipped_and_turned_as_their_images(scenes, augment):
    source = marked(scenes)
    plain = torch.cat([y for _, y in batches(source.split("train"), 5, device="cpu", train=True)])
    moved = 0
    for epoch in range(3):
        for x, y in batches(source.split("train"), 5, device="cpu", train=True, augment=augment, epoch=epoch):
            assert torch.equal(x[:, 0].round().long(), y)
            assert y.dtype == torch.int64
            moved += int((y[:, 0, 0] != plain[: len(y), 0, 0]).any())
    assert moved > 0


def test_jitter_changes_images_alone(scenes):
    source = marked(scenes)
    plain, jittered = (
        list(batches(source.split("train"), 8, device="cpu", train=True, augment=Augment(jitter=jitter)))
        for jitter in (0.0, 0.5)
    )
    for (x, y), (changed, same) in zip(plain, jittered, strict=True):
        assert torch.equal(y, same)
        assert not torch.allclose(x, changed, atol=5)


def test_turns_and_flips_of_a_small_mask_by_hand():
    mask = torch.tensor([[0, 1], [2, IGNORE]], dtype=torch.uint8)
    draws = augmentation.Draws(
        shift=np.zeros((4, 2), np.int64),
        flips=np.array([[False, False], [True, False], [False, True], [False, False]]),
        turns=np.array([0, 0, 0, 1]),
        jitter=None,
        border=0,
        lost=np.full(4, -1),
    )
    moved = augmentation.move(mask.expand(4, 1, 2, 2), draws, slice(0, 4))[:, 0]
    assert moved.tolist() == [[[0, 1], [2, 255]], [[2, 255], [0, 1]], [[1, 0], [255, 2]], [[1, 255], [0, 2]]]
    assert moved.dtype == torch.uint8


def test_the_border_of_a_mask_is_reflected():
    mask = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)
    shift, flips, turns = np.array([[0, 4]]), np.zeros((1, 2), bool), np.zeros(1, np.int64)
    draws = augmentation.Draws(shift, flips, turns, None, border=2, lost=np.array([-1]))
    assert augmentation.move(mask, draws, slice(0, 1))[0, 0].tolist() == [[8, 7, 6], [5, 4, 3], [2, 1, 0]]


def test_small_scenes_are_padded_by_reflection_and_their_masks_by_ignore(scenes):
    source = marked(scenes, size=64, shape=(40, 10), count=2)
    x, y = source.split("train")[1]
    image, mask = source.scenes.images[1], source.scenes.masks[1]
    assert x.shape == (3, 64, 64)
    rows = [*range(40), *range(38, 14, -1)]
    columns = [*range(10), *range(8, -1, -1), *range(1, 10), *range(8, -1, -1), *range(1, 10), *range(8, -1, -1)]
    expected = image[np.ix_(rows, [*columns, *range(1, 10)][:64])].transpose(2, 0, 1)
    assert torch.equal(x.round().to(torch.uint8), torch.from_numpy(expected))
    assert np.array_equal(y[:40, :10], mask)
    assert (y[40:] == IGNORE).all()
    assert (y[:, 10:] == IGNORE).all()


def test_one_pixel_scenes_are_padded_too(scenes):
    x, y = marked(scenes, size=8, shape=(1, 1), count=2).split("train")[0]
    assert (x == x[:, :1, :1]).all()
    assert (y != IGNORE).sum() == 1


def test_epochs_are_reproducible_whatever_the_batch_size_and_differ(scenes):
    def epoch(size, **options):
        pairs = batches(scenes.split("train"), size, device="cpu", train=True, augment=Augment(jitter=0.2), **options)
        return tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))

    x, y = epoch(8, seed=3, epoch=1)
    for size in (8, 2, 1000):
        assert torch.equal(epoch(size, seed=3, epoch=1)[0], x)
        assert torch.equal(epoch(size, seed=3, epoch=1)[1], y)
    assert not torch.equal(epoch(8, seed=3, epoch=2)[1], y)
    assert not torch.equal(epoch(8, seed=2, epoch=1)[1], y)


def test_training_sees_every_patch_once(scenes):
    dataset = scenes.split("train")
    seen = torch.cat([y for _, y in batches(dataset, 16, device="cpu", train=True)])
    expected = dataset.targets(np.arange(len(dataset)))
    assert sorted(mask.numpy().tobytes() for mask in seen) == sorted(mask.numpy().tobytes() for mask in expected)
    assert num_batches(len(dataset), 16, train=True) == len(dataset) // 16


def test_no_patch_and_no_split(scenes):
    dataset = scenes.split("val")
    assert torch.equal(dataset[-1][1], dataset[len(dataset) - 1][1])
    with pytest.raises(IndexError, match=rf"val has {len(dataset)} patches; there is no patch {len(dataset)}"):
        dataset[len(dataset)]
    with pytest.raises(InputError, match="unknown split 'validation'"):
        scenes.split("validation")
    assert scenes.take([]).shape == (0, 3, 32, 32)
    assert scenes.targets([]).shape == (0, 32, 32)


def test_parts_are_datasets_of_their_own(scenes):
    dataset = scenes.split("train")
    part = dataset.part(np.array([3, 5, 40]))
    assert len(part) == 3
    assert torch.equal(part.targets([0, 2]), dataset.targets([3, 40]))
    assert torch.equal(part[1][0], dataset[5][0])
    assert {scene.name for scene in part.scenes()} == {
        scenes.names[scene] for scene in scenes.windows[dataset.indices[[3, 5, 40]], 0]
    }


def test_a_unit_is_a_scene_unless_there_are_few(scenes):
    dataset = scenes.split("train")
    stratum, unit = dataset.strata()
    assert (stratum == 0).all()
    assert np.array_equal(unit, scenes.windows[dataset.indices, 0])
    stratum, unit = marked(scenes, count=4).split("train").strata()
    assert unit.tolist() == list(range(len(stratum)))


@pytest.mark.gpu
def test_gpu_batches_are_those_of_the_cpu(scenes):
    options = {"train": True, "augment": Augment(jitter=0.2), "seed": 1}
    for (x, y), (x_gpu, y_gpu) in zip(
        batches(scenes.split("train"), 8, device="cpu", **options),
        batches(scenes.split("train"), 8, device="cuda", **options),
        strict=True,
    ):
        assert torch.equal(y, y_gpu.cpu())
        assert y_gpu.dtype == torch.int64
        torch.testing.assert_close(x, x_gpu.cpu(), atol=1e-5, rtol=1e-5)
