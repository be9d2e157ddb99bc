"""A search of channels on a segmentation set."""

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import data, nas
from rssearch.config.settings import ChannelSearch, Patches, Recipe, Split
from rssearch.cost.counting import profile
from rssearch.errors import InputError
from rssearch.nas.search import halves


@pytest.fixture(scope="module")
def scenes():
    return data.load("synthetic_buildings", ".", patches=Patches(size=32, overlap=8), workers=1)


@pytest.mark.parametrize("seed", range(3))
def test_no_scene_gives_pixels_to_weights_and_to_scores(scenes, seed):
    train = scenes.split("train")
    weights, scores = halves(train, 0.2, seed)
    owners = [set(scenes.windows[part.indices, 0].tolist()) for part in (weights, scores)]
    assert not owners[0] & owners[1]
    assert [len(part) for part in owners] == [14, 3]  # of 17 scenes, a fifth
    assert sorted([*weights.indices, *scores.indices]) == train.indices.tolist()
    again = halves(train, 0.2, seed)
    assert np.array_equal(again[0].indices, weights.indices)


def test_seeds_divide_scenes_in_other_ways(scenes):
    parts = {tuple(halves(scenes.split("train"), 0.2, seed)[1].indices) for seed in range(5)}
    assert len(parts) == 5


def test_few_scenes_are_divided_by_patch():
    split = Split(train=0.15, val=0.15, test=0.7)
    train = data.load("synthetic_buildings", ".", patches=Patches(size=32), split=split, workers=1).split("train")
    weights, scores = halves(train, 0.25, 0)
    assert len(scores) == round(0.25 * len(train))
    assert len(weights) + len(scores) == len(train)
    with pytest.raises(InputError, match="1 training images are too few"):
        halves(train.part(np.array([0])), 0.2, 0)


def test_a_search_meets_its_ratio(scenes):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )
    before = profile(model, (3, 32, 32)).macs
    found = nas.search(
        model,
        scenes.split("train"),
        macs_ratio=0.5,
        recipe=Recipe(epochs=2, batch_size=32, lr=0.05),
        settings=ChannelSearch(warmup=0),
        device=torch.device("cpu"),
    )
    assert profile(found.model, (3, 32, 32)).macs / before == pytest.approx(0.5, abs=0.05)
    assert found.model(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)
    assert found.report["history"][1]["train_loss"] < found.report["history"][0]["train_loss"]
