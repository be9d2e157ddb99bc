"""The criteria that look at parameters alone, against their definitions."""

import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.bn_scale import bn_scale
from rssearch.pruning.criteria.fpgm import fpgm
from rssearch.pruning.criteria.l1 import l1
from rssearch.pruning.criteria.l2 import l2
from rssearch.pruning.criteria.producers import filters
from rssearch.pruning.criteria.random import random
from tests.support.networks import Fork, network, randomise


@pytest.mark.parametrize(("criterion", "p"), [(l1, 1), (l2, 2)])
def test_norms(criterion, p):
    model, _, graph = network("resnet20")
    scores = criterion(model, graph, None, 0)
    weight = model.layer1[0].conv1.weight
    expected = torch.stack([(w.abs() ** p).sum() ** (1 / p) for w in weight])
    assert torch.allclose(scores["layer1.0.conv1"], expected)
    stage = torch.stack([m.conv2.weight.abs().pow(p).sum((1, 2, 3)).pow(1 / p) for m in model.layer2]).mean(0)
    assert torch.allclose(scores["layer2.0.conv2"], stage)


def test_units_of_several_channels_have_the_mean():
    model = Fork()
    graph = pruning.trace(model, torch.randn(1, 3, 16, 16))
    left, grouped, depthwise = (m.weight.abs().flatten(1).sum(1) for m in (model.left, model.grouped, model.depthwise))
    expected = (
        left.reshape(2, 4).mean(1) + grouped[:4].reshape(2, 2).mean(1) + depthwise[:4].reshape(2, 2).mean(1)
    ) / 3
    assert torch.allclose(l1(model, graph, None, 0)["left"], expected)


def test_filters_of_transposed_convolutions_are_those_of_their_outputs():
    layer = nn.ConvTranspose2d(6, 5, 2)
    assert torch.equal(filters(layer)[3], layer.weight[:, 3].flatten())


def test_fpgm_is_the_sum_of_distances():
    model, _, graph = network("resnet20")
    weight = model.layer3[1].conv1.weight.detach().flatten(1).double()
    expected = (weight[:, None] - weight[None]).norm(dim=2).sum(1)
    assert torch.allclose(fpgm(model, graph, None, 0)["layer3.1.conv1"].double(), expected, rtol=1e-5)


def test_fpgm_prefers_to_remove_the_median_not_the_smallest():
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.Conv2d(3, 1, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.1, 1.0, 2.0]).reshape(3, 1, 1, 1))
    scores = fpgm(model, pruning.trace(model, torch.randn(1, 1, 4, 4)), None, 0)["0"]
    assert torch.allclose(scores, torch.tensor([2.8, 1.9, 2.9]))


def test_bn_scale_is_the_mean_of_absolute_scales():
    model, _, graph = network("resnet20")
    with torch.no_grad():
        model.layer1[0].bn1.weight[3] *= -1
    scores = bn_scale(model, graph, None, 0)
    with torch.no_grad():
        model.layer1[0].bn1.weight[3] *= -1
    assert torch.allclose(scores["layer1.0.conv1"], model.layer1[0].bn1.weight)
    stage = torch.stack([block.bn2.weight for block in model.layer2]).mean(0)
    assert torch.allclose(scores["layer2.0.conv2"], stage)


def test_bn_scale_leaves_groups_without_normalisation_whole():
    model = randomise(Fork())
    images = torch.randn(1, 3, 16, 16)
    graph = pruning.trace(model, images)
    assert set(bn_scale(model, graph, None, 0)) == {"left", "right"}
    pruned = pruning.prune(model, images, "bn_scale", rate=0.2)
    assert (len(pruned.kept["up"]), len(pruned.kept["fc"])) == (5, 7)


def test_bn_scale_needs_normalisation():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(
        InputError, match="'slimming' reads the scales of batch normalisation, and the network has none"
    ):
        pruning.prune(model, torch.randn(1, 3, 4, 4), "slimming", rate=0.5)
    model.insert(1, nn.BatchNorm2d(4, affine=False))
    with pytest.raises(InputError, match="needs normalisation layers with a scale; Sequential has none"):
        pruning.prune(model, torch.randn(1, 3, 4, 4), "slimming", rate=0.5)


def test_random_is_a_function_of_the_seed():
    model, _, graph = network("resnet20")
    first, again, other = (random(model, graph, None, seed) for seed in (3, 3, 4))
    state = torch.get_rng_state()
    random(model, graph, None, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in graph.groups)
    assert not torch.equal(first["conv1"], other["conv1"])
    assert not torch.equal(first["layer1.0.conv1"], first["layer1.1.conv1"])
