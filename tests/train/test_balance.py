"""Weights of classes and balanced epochs: their numbers, what is refused, and what they are good for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rssearch.config.settings import Recipe
from rssearch.data import IGNORE, SceneSet, loader
from rssearch.data.sampling import SHARE, balanced_order, index_classes
from rssearch.data.scenestore import Memory
from rssearch.errors import InputError
from rssearch.nas import search
from rssearch.train import balance, losses, overlap
from tests.support.scenes import scene_set, tiny
from tests.support.training import CPU, fit, image_set, network

NAMES = ("a", "b", "c")
TOTALS = np.array([60, 30, 10])


def few() -> object:
    """Of 48 training images 40, 5 and 3 of the classes."""
    images = image_set()
    labels = images.labels.copy()
    labels[:48] = np.repeat([0, 1, 2], [40, 5, 3])
    return dataclasses.replace(images, labels=labels)


def test_balanced_weights_give_each_class_the_same_sum() -> None:
    weights = balance.class_weights(Recipe(class_weights="balanced"), NAMES, TOTALS)
    np.testing.assert_allclose(weights, 100 / (3 * TOTALS))
    np.testing.assert_allclose((weights * TOTALS).sum(), 100)


def test_given_weights_keep_their_ratios_and_weigh_1_on_average() -> None:
    named = balance.class_weights(Recipe(class_weights={"c": 6, "a": 0.5}), NAMES, TOTALS)
    listed = balance.class_weights(Recipe(class_weights=[0.5, 1, 6]), NAMES, TOTALS)
    np.testing.assert_allclose(named, np.array([0.5, 1, 6]) / 1.2)
    np.testing.assert_array_equal(named, listed)
    np.testing.assert_allclose(balance.class_weights(Recipe(class_weights=[7, 7, 7]), NAMES, TOTALS), 1)
    assert balance.class_weights(Recipe(), NAMES, TOTALS) is None


def test_a_class_without_samples_weighs_1() -> None:
    weights = balance.class_weights(Recipe(class_weights="balanced"), NAMES, np.array([30, 0, 10]))
    np.testing.assert_allclose(weights, [2 / 3, 1, 2])


def test_classes_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"class_weights: unknown class 'd'\. Known: a, b, c"):
        fit(network(), image_set(), Recipe(class_weights={"d": 2.0}))
    with pytest.raises(InputError, match="class_weights: 2 numbers, but there are 3 classes: a, b, c"):
        fit(network(), image_set(), Recipe(class_weights=[1, 2]))


@pytest.mark.parametrize("loss", ["dice", "lovasz", "dice_cross_entropy", "lovasz_cross_entropy"])
def test_overlap_of_labels_is_refused(loss: str) -> None:
    with pytest.raises(InputError, match=f"loss: '{loss}' compares masks, for segmentation; for classification there"):
        fit(network(), image_set(), Recipe(loss=loss))
    with pytest.raises(InputError, match=f"loss: '{loss}' compares masks"):
        search(network(), image_set().split("train"), macs_ratio=0.9, recipe=Recipe(loss=loss), device=CPU)


def test_images_are_found_by_their_class() -> None:
    found = index_classes(few().split("train"))
    assert found.totals.tolist() == [40, 5, 3]
    assert [positions.tolist() for positions in found.members[1:]] == [[40, 41, 42, 43, 44], [45, 46, 47]]


def patches(*masks: np.ndarray) -> SceneSet:
    """A set of scenes that are one training patch each."""
    found = scene_set((len(masks), 1, 1), (8, 8))
    scenes = Memory(found.scenes.images, [*masks, *found.scenes.masks[len(masks) :]])
    return dataclasses.replace(found, scenes=scenes)


def test_patches_are_found_by_their_pixels() -> None:
    first, second, third = (np.zeros((8, 8), np.uint8) for _ in range(3))
    first[:4] = IGNORE
    second[0, 0] = 1  # 1 of 64 is more than 1 %
    third[2:] = 1
    third[0, 0] = 2
    found = index_classes(patches(first, second, third).split("train"))
    assert found.totals.tolist() == [32 + 63 + 15, 1 + 48, 1]
    assert [positions.tolist() for positions in found.members] == [[0, 1, 2], [1, 2], [2]]


def test_a_patch_with_next_to_nothing_of_a_class_does_not_stand_for_it() -> None:
    small = patches(*(np.zeros((8, 8), np.uint8) for _ in range(2)))
    masks = [np.zeros((16, 16), np.uint8) for _ in range(2)]
    masks[0][0, 0] = masks[1][0, :3] = 1
    masks[0][1, 1] = 2
    assert 1 < SHARE * 256 < 3
    images = [np.zeros((16, 16, 3), np.uint8)] * 4
    scenes = Memory(images, [*masks, masks[0], masks[0]])
    found = index_classes(dataclasses.replace(small, scenes=scenes, size=16).split("train"))
    assert [positions.tolist() for positions in found.members] == [[0, 1], [1], [0]]  # no patch has more of the last


def test_a_balanced_epoch_has_as_many_images_of_each_class() -> None:
    members = index_classes(few().split("train")).members
    order = balanced_order(members, 48, np.random.default_rng(3))
    assert order.dtype == np.int64
    times = np.bincount(order, minlength=48)
    assert [times[positions].sum() for positions in members] == [16, 16, 16]
    assert times[:40].max() == 1
    assert sorted(times[40:45].tolist()) == [3, 3, 3, 3, 4]
    assert sorted(times[45:].tolist()) == [5, 5, 6]
    assert np.array_equal(order, balanced_order(members, 48, np.random.default_rng(3)))
    assert not np.array_equal(order, balanced_order(members, 48, np.random.default_rng(4)))
    for count in (46, 47):
        shares = np.bincount(few().labels[balanced_order(members, count, np.random.default_rng(0))])
        assert sorted(shares.tolist()) == [15, 15 + count - 46, 16]
    assert set(balanced_order([*members[:2], members[0][:0]], 10, np.random.default_rng(0))) <= set(range(45))


def test_the_loader_takes_it_and_drops_no_image_that_it_draws() -> None:
    split = few().split("train")
    members = balance.members(Recipe(sampling="balanced"), split)
    labels = torch.cat([y for _, y in loader.batches(split, 16, device=CPU, train=True, members=members)])
    assert torch.bincount(labels).tolist() == [16, 16, 16]
    plain = torch.cat([y for _, y in loader.batches(split, 16, device=CPU, train=True)])
    assert torch.bincount(plain).tolist() == [40, 5, 3]
    assert balance.members(Recipe(), split) is None


def test_the_loss_of_a_recipe_is_the_one_it_names() -> None:
    x, y = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    weight = torch.tensor([0.5, 1.0, 2.0])
    pixels = losses.cross_entropy(x, y, 0.1, weight)
    found = {
        "cross_entropy": pixels,
        "adaptive_mining": losses.adaptive_mining(x, y, 0.1, weight),
        "focal": losses.focal(x, y, 0.1, weight, 3.0),
        "dice_cross_entropy": overlap.dice(x, y, weight) + pixels,
        "lovasz_cross_entropy": overlap.lovasz(x, y, weight) + pixels,
    }
    for name, expected in found.items():
        recipe = Recipe(loss=name, label_smoothing=0.1, focal_gamma=3)
        assert torch.equal(balance.named_loss(recipe, weight)(x, y), expected), name
    for name, loss in (("dice", overlap.dice), ("lovasz", overlap.lovasz)):
        assert torch.equal(balance.named_loss(Recipe(loss=name), weight)(x, y), loss(x, y, weight))


def test_the_loss_of_a_training_has_the_weights_of_its_split() -> None:
    data = few()
    recipe = Recipe(epochs=1, batch_size=48, lr=1e-9, class_weights="balanced")
    model = network().eval()
    model[3].p = 0.0
    (record,) = fit(model, data, recipe, augment=None)
    x, y = next(loader.batches(data.split("train"), 48, device=CPU, train=True))
    again = network()
    again[3].p = 0.0
    each = torch.nn.functional.cross_entropy(again(x), y, reduction="none")
    expected = sum(each[y == label].mean() for label in range(3)) / 3
    assert record["train_loss"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("change", [{"class_weights": "balanced"}, {"sampling": "balanced"}])
def test_the_channel_search_balances_as_well(change: dict) -> None:
    found = search(
        tiny(),
        scene_set().split("train"),
        macs_ratio=0.9,
        recipe=Recipe(epochs=1, batch_size=8, lr=0.01, loss="dice_cross_entropy", **change),
        device=CPU,
    )
    assert len(found.report["history"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "dice"},
        {"loss": "lovasz", "precision": "bf16"},
        {"loss": "dice_cross_entropy", "class_weights": "balanced", "label_smoothing": 0.1},
        {"loss": "focal", "sampling": "balanced", "precision": "bf16"},
    ],
)
def test_masks_are_learned(change: dict) -> None:
    recipe = Recipe(epochs=6, batch_size=8, lr=0.1, **change)
    history = fit(tiny(), scene_set(), recipe)
    assert history[-1]["val_miou"] > 0.6
    assert history[-1]["train_loss"] < history[0]["train_loss"]
