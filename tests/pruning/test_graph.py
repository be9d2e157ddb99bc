"""The channel graph: groups, index maps, what is fixed."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import models, pruning
from rssearch.cost import counting
from tests.support.networks import Fork, fresh, network, randomise, some


def members(group):
    return {(m.layer, m.side): m.index for m in group.members}


def test_groups_of_resnet20():
    _, _, graph = network("resnet20")
    inner = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)]
    outer = ["conv1", "layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"]
    assert set(graph.groups) == {*inner, *outer}
    assert graph.fixed == {"fc": "reaches the output of the network"}
    stage2 = graph.groups["layer2.0.conv2"]
    assert stage2.width == 32
    assert [m.layer for m in stage2.producers] == ["layer2.0.conv2", "layer2.1.conv2", "layer2.2.conv2"]
    assert [m.layer for m in stage2.consumers] == ["layer2.1.conv1", "layer2.2.conv1", "layer3.0.conv1"]
    assert {("layer2.0.shortcut", "out"), ("layer3.0.shortcut", "in")} <= set(members(stage2))


def test_stages_of_resnet18_are_coupled_and_named_after_their_first_layer():
    _, _, graph = network("resnet18")
    assert [m.layer for m in graph.groups["conv1"].producers] == ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
    assert [m.layer for m in graph.groups["layer2.0.conv2"].producers] == [
        "layer2.0.conv2",
        "layer2.0.downsample.0",
        "layer2.1.conv2",
    ]
    assert graph.groups_of("layer2.1.conv2") == (graph.groups["layer2.0.conv2"],)
    assert graph.groups_of("fc") == ()


def test_index_maps_of_concatenation_blocks_and_flattening():
    graph = pruning.trace(Fork(), torch.randn(1, 3, 16, 16))
    # Three blocks of the grouped convolution, of 4 inputs and 2 outputs: two are left's, the last is right's.
    assert {name: group.width for name, group in graph.groups.items()} == {"left": 2, "right": 1, "up": 5, "fc": 7}
    left, right = members(graph.groups["left"]), members(graph.groups["right"])
    assert left["left", "out"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert left["norm", "both"].tolist() == left["grouped", "in"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert left["grouped", "out"].tolist() == left["depthwise", "in"].tolist() == [[0, 1], [2, 3]]
    assert right["right", "out"].tolist() == [[0, 1, 2, 3]]
    assert right["norm", "both"].tolist() == [[8, 9, 10, 11]]
    assert right["grouped", "out"].tolist() == right["up", "in"].tolist() == [[4, 5]]
    assert np.array_equal(members(graph.groups["up"])["fc", "in"], np.arange(45).reshape(5, 9))
    assert graph.fixed == {"head": "reaches the output of the network"}


def test_fire_modules_are_two_groups_that_an_addition_couples_with_halves_of_the_way_up():
    _, _, graph = network("micronet")
    small, large = graph.groups_of("up.0")
    assert (small.name, large.name) == ("encoder.0.3.expand1.conv", "encoder.0.3.expand3.conv")
    assert members(small)["up.0", "out"].ravel().tolist() == [*range(8)]
    assert members(large)["up.0", "out"].ravel().tolist() == [*range(8, 16)]
    for group, first in ((small, 0), (large, 8)):
        for reader in ("encoder.1.0.squeeze.conv", "decoder.0.0.squeeze.conv"):
            assert members(group)[reader, "in"].ravel().tolist() == [*range(first, first + 8)]
    assert graph.fixed == {"head": "reaches the output of the network"}
    ones = {name: torch.ones(group.width) for name, group in graph.groups.items()}
    kept = pruning.allocate(graph, ones, allocation="uniform", rates={"up.0": 0.5})
    assert [len(kept[group.name]) for group in (small, large)] == [4, 4]
    assert sum(len(kept[name]) < group.width for name, group in graph.groups.items()) == 2


def test_concatenating_skips_couple_nothing():
    _, _, graph = network("unet")
    up, inputs = members(graph.groups["up.0"]), ("decoder.0.0.conv", "in")
    assert [m.layer for m in graph.groups["up.0"].producers] == ["up.0"]
    assert up[inputs].ravel().tolist() == [*range(8, 16)]
    assert members(graph.groups["encoder.0.1.conv"])[inputs].ravel().tolist() == [*range(8)]


def test_flattening_in_vgg():
    _, _, graph = network("vgg16_cifar")
    group = graph.groups["features.conv13"]
    assert members(group)["classifier.linear1", "in"].shape == (512, 1)
    assert members(group)["avgpool", "both"].shape == (512, 1)


def test_depthwise_is_coupled_on_both_sides():
    _, _, graph = network("mobilenet_v2")
    layer = "features.2.conv.1.0"
    group = graph.groups["features.2.conv.0.0"]
    assert {(layer, "in"), (layer, "out")} <= set(members(group))
    assert [m.layer for m in group.producers] == ["features.2.conv.0.0", layer]


def test_index_sets_of_a_side_are_disjoint_and_inside():
    for name in ("resnet20", "mobilenet_v2", "vgg16_cifar"):
        _, _, graph = network(name)
        for side, size in graph.sizes.items():
            found = [m.index.ravel() for g in graph.groups.values() for m in g.members if (m.layer, m.side) == side]
            flat = np.concatenate(found) if found else np.zeros(0, int)
            assert len(set(flat.tolist())) == len(flat)
            assert not len(flat) or (flat.min() >= 0 and flat.max() < size)


def test_groups_print_readably():
    _, _, graph = network("resnet20")
    text = str(graph)
    assert text.startswith("13 groups, 41,")
    assert "layer2.0.conv2: 32 channels\n    out  layer2.0.conv2 (conv)\n    both layer2.0.bn2 (norm)" in text
    assert "fixed fc: reaches the output of the network" in text


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 6, 3)
        self.first, self.second = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x):
        x = torch.relu(self.body(x))
        a = self.first(x)
        return {"a": a, "b": [self.second(torch.relu(a))]}


def test_every_output_is_kept_even_one_that_is_read_on():
    graph = pruning.trace(Heads(), torch.randn(1, 3, 8, 8))
    assert list(graph.groups) == ["body"]
    assert set(graph.fixed) == {"first", "second"}


class Normed(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), norm, nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.b(self.norm(self.a(x))).mean((2, 3))


def test_statistics_over_channels_fix_them():
    graph = pruning.trace(Normed(nn.GroupNorm(2, 8)), torch.randn(1, 3, 8, 8))
    assert not graph.groups
    assert graph.fixed["a"] == "passes through norm (GroupNorm)"
    graph = pruning.trace(Normed(nn.InstanceNorm2d(8, affine=True)), torch.randn(1, 3, 8, 8))
    assert list(graph.groups) == ["a"]


def test_input_channels_are_never_pruned():
    class Depthwise(nn.Sequential):
        pass

    model = Depthwise(nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    graph = pruning.trace(model, torch.randn(1, 3, 8, 8))
    assert list(graph.groups) == ["2"]
    assert graph.fixed["0"] == "is a grouped convolution over fixed channels"


def test_channels_through_one_pooling_layer_for_two_widths_stay():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 6, 1)
            self.up, self.d = nn.Upsample(scale_factor=2), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.d(self.c(self.up(self.b(self.up(self.a(x))))))

    graph = pruning.trace(Shared(), torch.randn(1, 3, 4, 4))
    assert list(graph.groups) == ["c"]
    assert graph.fixed["a"] == graph.fixed["b"] == "passes through up, which is used for maps of different widths"
    pruned, _ = pruning.cut(Shared(), graph, {"c": (0, 1)})
    assert counting.profile(pruned, (3, 4, 4)).macs == graph.macs({"c": (0, 1)})


def test_trace_leaves_the_model_alone():
    model = models.create("resnet20", 10)
    model.layer1.eval()
    model.fc.requires_grad_(False)
    modes, before = [m.training for m in model.modules()], copy.deepcopy(model.state_dict())
    with torch.inference_mode():
        graph = pruning.trace(model, torch.randn(3, 3, 32, 32))
    assert graph.params() == sum(p.numel() for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert not model.fc.weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_frozen_networks_are_traced_alike():
    model = models.create("resnet20", 10)
    free = str(pruning.trace(model, torch.randn(1, 3, 32, 32)))
    assert str(pruning.trace(model.requires_grad_(False), torch.randn(1, 3, 32, 32))) == free


def test_nothing_of_a_network_stays_alive():
    model = models.create("resnet20", 10)
    alive = weakref.ref(model.conv1)
    pruning.prune(model, torch.randn(1, 3, 32, 32), "l1", rate=0.5)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("size", [(32, 32), (61, 67), (125, 63)])
@pytest.mark.parametrize("name", ["unet", "unet_plain", "miniaturized_net", "micronet", "micronet_norm"])
def test_costs_of_encoder_decoders_where_maps_are_cropped(name, size):
    model = fresh(name)
    graph = pruning.trace(model, torch.randn(1, 3, *size))
    for kept in ({}, some(graph)):
        found = counting.profile(pruning.cut(model, graph, kept)[0], (3, *size))
        expected = (found.macs, found.params, found.conv_linear_macs)
        assert (graph.macs(kept), graph.params(kept), graph.conv_linear_macs(kept)) == expected


@pytest.mark.parametrize("size", [16, 20, 24])
def test_costs_of_every_kind_of_layer(size):
    model = randomise(Fork())
    graph = pruning.trace(model, torch.randn(1, 3, size, size))
    for kept in ({}, {"left": (1,), "up": (0, 3), "fc": (1, 2, 6)}, some(graph)):
        found = counting.profile(pruning.cut(model, graph, kept)[0], (3, size, size))
        expected = (found.macs, found.params, found.conv_linear_macs)
        assert (graph.macs(kept), graph.params(kept), graph.conv_linear_macs(kept)) == expected
