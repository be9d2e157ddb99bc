"""Which maps are read, and how their scores are averaged."""

import copy

import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.maps import find_maps, score_maps
from tests.support.networks import network


def places(name, **options):
    model, images, graph = network(name, **options)
    twin = copy.deepcopy(model).requires_grad_(True)
    by_group = {group: set() for group in graph.groups}
    for place, readout in find_maps(twin, graph, images[:1], "lfp").items():
        for group in readout:
            by_group[group].add(place)
    return by_group


def outputs(model, layer, batches):
    """What a layer gives for each batch."""
    captured = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, out: captured.append(out.detach()))
    for x, _ in batches:
        model(x)
    hook.remove()
    return captured


def total(maps):
    """A score of maps that is easy to follow: their sum. [N, C, H, W] -> [N, C]."""
    return maps.sum((-2, -1))


def test_maps_of_cifar_resnets_are_those_behind_the_relus():
    found = places("resnet20")
    assert found["conv1"] == {("relu", 0, "output")}
    assert found["layer2.1.conv1"] == {("layer2.1.relu1", 0, "output")}
    assert found["layer2.0.conv2"] == {(f"layer2.{block}.relu2", 0, "output") for block in range(3)}
    assert found["layer3.0.conv2"] == {(f"layer3.{block}.relu2", 0, "output") for block in range(3)}


def test_maps_of_vgg_are_taken_before_pooling():
    found = places("vgg16_cifar")
    assert all(found[f"features.conv{i}"] == {(f"features.relu{i}", 0, "output")} for i in range(1, 14))
    assert found["classifier.linear1"] == {("classifier.relu1", 0, "output")}


def test_maps_of_the_stem_of_resnet50_are_taken_behind_its_pooling():
    found = places("resnet50")
    assert found["conv1"] == {("layer1.0.conv1", 0, "input")}  # what max-pooling gives to both branches
    # The blocks of torchvision call one ReLU three times: behind bn1, bn2, and the addition.
    assert found["layer1.1.conv1"] == {("layer1.1.relu", 0, "output")}
    assert found["layer1.1.conv2"] == {("layer1.1.relu", 1, "output")}
    assert found["layer1.0.conv3"] == {(f"layer1.{block}.relu", 2, "output") for block in range(3)}


def test_scores_are_averages_over_images_then_batches_then_maps():
    model, _, graph = network("resnet20")
    batches = [(torch.randn(n, 3, 32, 32), torch.zeros(n, dtype=torch.long)) for n in (3, 2)]
    scores = score_maps(model, graph, iter(batches), "sum", total)  # an iterator: the data are gone through once
    assert list(scores) == list(graph.groups)

    def expected(layer):
        return torch.stack([total(maps).mean(0) for maps in outputs(model, layer, batches)]).mean(0)

    torch.testing.assert_close(scores["layer1.1.conv1"], expected("layer1.1.relu1"))
    stage = torch.stack([expected(f"layer2.{block}.relu2") for block in range(3)]).mean(0)
    torch.testing.assert_close(scores["layer2.0.conv2"], stage)


def test_flattened_maps_are_given_as_maps():
    model, images, graph = network("vgg16_cifar", size=64, input_size=64)
    shapes = {}

    def per_image(maps):
        shapes[maps.shape] = maps
        return total(maps)

    scores = score_maps(model, graph, [(images, torch.zeros(2))], "sum", per_image)
    (maps,) = outputs(model, "features.relu13", [(images, None)])
    torch.testing.assert_close(scores["features.conv13"], total(maps).mean(0))
    assert (2, 512, 1, 1) in shapes  # of the linear layer


class ChannelsLast(nn.Module):
    """Linear layers over the last axis, as in the blocks of a ConvNeXt, and an average over the positions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.first, self.second, self.head = nn.Linear(6, 12), nn.Linear(12, 16), nn.Linear(16, 5)
        self.act1, self.act2 = nn.GELU(), nn.GELU()

    def forward(self, x):
        x = self.act1(self.first(self.conv(x).permute(0, 2, 3, 1)))
        return self.head(self.act2(self.second(x)).mean((1, 2)))


@pytest.mark.parametrize("size", [(8, 5), (32, 5), (7, 5)])  # 8 divides the 16 channels of act2
def test_channels_may_be_the_last_axis(size):
    model, images = ChannelsLast(), torch.randn(2, 3, *size)
    shapes = set()

    def per_image(maps):
        shapes.add(tuple(maps.shape))
        return total(maps)

    graph = pruning.trace(model, images)
    scores = score_maps(model, graph, [(images, torch.zeros(2))], "sum", per_image)
    (inner,), (last,) = outputs(model, "act1", [(images, None)]), outputs(model, "act2", [(images, None)])
    torch.testing.assert_close(scores["first"], inner.sum((1, 2)).mean(0))
    torch.testing.assert_close(scores["second"], last.mean((0, 1, 2)))  # what the head reads
    assert {(2, 12, *size), (2, 16, 1, 1)} <= shapes


@pytest.mark.parametrize("method", ["lfp", "hrank", "chip"])
def test_model_is_untouched(method):
    model, _, graph = network("resnet20")
    model = copy.deepcopy(model).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    pruning.score(model, graph, method, data=[(torch.ones(2, 3, 32, 32), torch.zeros(2))])
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", ["lfp", "hrank", "chip"])
def test_images_are_scored_each_by_itself(method):
    model, images, graph = network("resnet20")
    both = pruning.score(model, graph, method, data=[(images, torch.zeros(2))])
    apart = pruning.score(model, graph, method, data=[(image[None], torch.zeros(1)) for image in images])
    assert all(torch.allclose(both[group], apart[group], rtol=1e-4, atol=1e-6) for group in both)


@pytest.mark.parametrize("method", ["lfp", "hrank", "chip"])
def test_mistakes(method):
    model, images, graph = network("resnet20")
    with pytest.raises(InputError, match=f"method '{method}' needs data"):
        pruning.prune(model, images, method, rate=0.5)
    with pytest.raises(InputError, match=f"method '{method}' needs data, but there is not one batch"):
        pruning.score(model, graph, method, data=[])
    images = images.clone()
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=f"method '{method}': the maps of group 'conv1' are not finite"):
        pruning.score(model, graph, method, data=[(images, torch.zeros(2))])
