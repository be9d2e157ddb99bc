"""Surgery: slices, specs, round trips, refusals."""

import copy
import json

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from rssearch import models, pruning
from rssearch.errors import InputError
from rssearch.pruning.surgery import kept_by
from tests.support.networks import Fork, distance, network, randomise, some


def test_slices_are_those_of_the_kept_channels():
    model, _, graph = network("resnet20")
    pruned, spec = pruning.cut(model, graph, {"layer1.0.conv1": (2, 5, 7)})
    assert torch.equal(pruned.layer1[0].conv1.weight, model.layer1[0].conv1.weight[[2, 5, 7]])
    assert torch.equal(pruned.layer1[0].conv2.weight, model.layer1[0].conv2.weight[:, [2, 5, 7]])
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(pruned.layer1[0].bn1, name), getattr(model.layer1[0].bn1, name)[[2, 5, 7]])
    assert (pruned.layer1[0].conv1.out_channels, pruned.layer1[0].conv2.in_channels) == (3, 3)
    assert pruned.layer1[0].bn1.num_features == 3
    assert spec == {
        "format": 1,
        "layers": {
            "layer1.0.conv1": {"width": {"out": 16}, "out": [2, 5, 7]},
            "layer1.0.bn1": {"width": {"both": 16}, "both": [2, 5, 7]},
            "layer1.0.conv2": {"width": {"in": 16}, "in": [2, 5, 7]},
        },
    }


def test_index_shortcut_after_cuts_on_both_sides():
    model, _, graph = network("resnet20")
    # Channel j of stage 2 reads channel j - 8 of stage 1: 9 -> 1, 10 -> 2, 11 -> 3, 30 -> none.
    kept = {"layer1.0.conv2": (1, 3, 4), "layer2.0.conv2": (9, 10, 11, 30)}
    pruned, _ = pruning.cut(model, graph, kept)
    shortcut = pruned.layer2[0].shortcut
    assert shortcut.index.tolist() == [0, 3, 1, 3]  # 3 is the zero channel
    assert (shortcut.in_channels, shortcut.out_channels) == (3, 4)


def test_grouped_convolutions_lose_whole_blocks():
    model = Fork()
    graph = pruning.trace(model, torch.randn(1, 3, 16, 16))
    pruned, _ = pruning.cut(model, graph, {"left": (1,), "up": (0, 4)})
    assert (pruned.grouped.groups, pruned.grouped.in_channels, pruned.grouped.out_channels) == (2, 8, 4)
    assert torch.equal(pruned.grouped.weight, model.grouped.weight[2:])
    assert (pruned.depthwise.groups, pruned.depthwise.in_channels, pruned.depthwise.out_channels) == (4, 4, 4)
    assert torch.equal(pruned.up.weight, model.up.weight[2:][:, [0, 4]])
    assert torch.equal(pruned.act.weight, model.act.weight[[0, 4]])
    assert torch.equal(pruned.fc.weight, model.fc.weight[:, [*range(9), *range(36, 45)]])


def test_original_keeps_its_weights_mode_and_gradients():
    model, _, graph = network("resnet20")
    model = copy.deepcopy(model).train()
    model.fc.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    pruned, _ = pruning.cut(model, graph, some(graph))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert model.training
    assert all(module.training for module in pruned.modules())
    assert not pruned.fc.weight.requires_grad
    assert pruned.conv1.weight.requires_grad
    assert pruned.conv1.weight.is_leaf


def test_pruned_network_trains():
    model, images, graph = network("resnet20")
    pruned, _ = pruning.cut(model, graph, some(graph))
    pruned.train()(images).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())


def test_keeping_everything_changes_nothing():
    model, images, graph = network("mobilenet_v2")
    pruned, spec = pruning.cut(model, graph, {name: range(g.width) for name, g in graph.groups.items()})
    assert spec["layers"] == {}
    assert torch.equal(pruned(images), model(images))


def test_a_network_can_be_pruned_again():
    model, images, graph = network("resnet20")
    once, first = pruning.cut(model, graph, some(graph))
    again = pruning.trace(once, images)
    twice, second = pruning.cut(once, again, some(again))
    assert distance(twice(images), pruning.masked(once, again, some(again))(images)) < 1e-5
    fresh = pruning.apply_spec(pruning.apply_spec(models.create("resnet20", 10), first), second)
    fresh.load_state_dict(twice.state_dict())
    assert torch.equal(fresh.eval()(images), twice(images))


@pytest.mark.parametrize("name", ["resnet20", "vgg16_cifar", "mobilenet_v2"])
def test_spec_and_weights_travel_without_pickles(name):
    model, images, graph = network(name)
    pruned, spec = pruning.cut(model, graph, some(graph))
    document, weights = json.dumps(spec), save(pruned.state_dict())
    rebuilt = pruning.apply_spec(models.create(name, 10), json.loads(document))
    rebuilt.load_state_dict(load(weights))
    assert torch.equal(rebuilt.eval()(images), pruned(images))


def spec_of(layer, **sides):
    return {"format": 1, "layers": {layer: sides}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "format None; this version reads format 1"),
        ({"format": 2, "layers": {}}, "format 2"),
        (spec_of("conv9", width={"out": 16}, out=[0]), "layer 'conv9', which CifarResNet does not have"),
        (spec_of("conv1", width={"out": 32}, out=[0]), "with 32 channels .out., but it has 16"),
        (spec_of("relu", width={"both": 16}, both=[0]), "but it has None"),
        ({"format": True, "layers": {}}, "format True"),
        ({"format": 1, "layers": {"conv1": [0]}}, "must have `width`"),
        (spec_of("conv1", width={"out": 16}, out=[True]), "not ascending"),
        (spec_of("conv1", width={"out": 16}, out=["0"]), "not ascending"),
        (spec_of("conv1", width={"out": 16}, out=[0], both=[0]), "must have `width`"),
        (spec_of("conv1", width={"out": 16, "up": 3}, out=[0], up=[1]), "must have `width`"),
        (spec_of("conv1", width={"out": 16}, out=[16]), "not ascending indices below 16"),
        (spec_of("conv1", width={"out": 16}, out=[3, 1]), "not ascending"),
        (spec_of("conv1", width={"out": 16}), "must have `width`"),
    ],
)
def test_bad_specs(spec, message):
    model = models.create("resnet20", 10)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message):
        pruning.apply_spec(model, spec)
    assert all(value.shape == before[key].shape for key, value in model.state_dict().items())


def test_specs_that_break_the_blocks_of_a_grouped_convolution_are_refused():
    grouped = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=4))
    with pytest.raises(InputError, match="no whole blocks of 4"):
        pruning.apply_spec(grouped, spec_of("1", width={"in": 16, "out": 16}, **{"in": [0, 4, 8, 12], "out": [0]}))


@pytest.mark.parametrize("channels", [5, None, "01", [0.0], [[0]], [16], [-1], [0, 0], []])
def test_kept_channels_that_are_none_are_refused(channels):
    model, _, graph = network("resnet20")
    with pytest.raises(InputError, match="kept channels must be distinct"):
        pruning.cut(model, graph, {"conv1": channels})


class Rolled(nn.Sequential):
    """Swaps the halves of its channels, unless it is told not to."""

    roll = False

    def forward(self, x):
        y = torch.relu(self[0](x))
        return self[1](torch.roll(y, 4, 1) if self.roll else y).mean((2, 3))


def test_channels_that_were_not_followed_rightly_are_refused():
    torch.manual_seed(0)
    model = Rolled(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
    graph = pruning.trace(model, torch.randn(1, 3, 4, 4))
    model.roll = True
    with pytest.raises(InputError, match=r"Rolled cannot be cut.*differ by"):
        pruning.cut(model, graph, {"0": (0, 1, 2, 3)})


def test_a_cut_network_that_does_not_run_is_refused():
    class Rigid(nn.Sequential):
        width = -1

        def forward(self, x):
            return self[1](torch.relu(self[0](x)).mean((2, 3)).reshape(len(x), self.width))

    model = Rigid(nn.Conv2d(3, 8, 1), nn.Linear(8, 2))
    graph = pruning.trace(model, torch.randn(1, 3, 4, 4))
    model.width = 8
    with pytest.raises(InputError, match=r"Rigid cannot be cut.*does not run"):
        pruning.cut(model, graph, {"0": (0, 1, 2)})
    graph = pruning.trace(model, torch.randn(1, 3, 4, 4))
    assert graph.fixed["0"].startswith("does not bear a cut on trial (after the cut it does not run: ")


def test_masked_is_of_full_size_and_silent_where_removed():
    model = randomise(Fork())
    graph = pruning.trace(model, torch.randn(1, 3, 16, 16))
    twin = pruning.masked(model, graph, {"left": (1,), "fc": (0,)})
    assert all(value.shape == model.state_dict()[key].shape for key, value in twin.state_dict().items())
    assert not twin.left.weight[:4].any()
    assert torch.equal(twin.left.weight[4:], model.left.weight[4:])
    assert not twin.head.weight[:, 1:].any()
    assert not twin.norm.bias[:4].any()


def test_zeroed_filters_can_grow_again():
    model, images, graph = network("resnet20")
    model = copy.deepcopy(model).train()
    kept = some(graph)
    pruning.zero_filters(model, graph, kept)
    for name, group in graph.groups.items():
        gone = sorted(set(range(group.width)) - set(kept[name]))
        for member in group.producers:
            weight = model.get_submodule(member.layer).weight
            assert not weight[gone].any()
            assert weight[list(kept[name])].flatten(1).any(1).all()
    model(images).square().sum().backward()
    assert model.layer1[0].conv1.weight.grad[sorted(set(range(16)) - set(kept["layer1.0.conv1"]))].any()


def test_specs_compose():
    model, images, graph = network("vgg16_cifar")
    once, first = pruning.cut(model, graph, some(graph, 0.7))
    again = pruning.trace(once, images)
    twice, second = pruning.cut(once, again, some(again, 0.5, seed=2))
    spec = pruning.compose(first, second)
    direct = pruning.apply_spec(copy.deepcopy(model), spec)
    assert torch.equal(direct(images), twice(images))
    assert spec == pruning.make_spec(graph, kept_by(graph, spec))
    assert pruning.compose(first, pruning.make_spec(again, {})) == first


class Bright(nn.Module):
    """Rolls its channels for bright images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.first(x)
        return self.second(features.roll(1, 1) if x.mean() > 0.3 else features).mean((2, 3))


def test_a_branch_for_other_images_is_seen_by_the_cut_on_trial():
    torch.manual_seed(0)
    graph = pruning.trace(Bright(), torch.zeros(1, 3, 16, 16))
    assert "first" not in graph.groups
    assert graph.fixed["first"].startswith("does not bear a cut on trial (outputs of up to ")


def test_a_cut_shares_no_memory_and_leaves_the_network_as_it_was():
    model, images, graph = network("resnet20")
    model = copy.deepcopy(model).train()
    model.fc.weight.requires_grad_(False)
    before, identities = copy.deepcopy(model.state_dict()), [*map(id, model.parameters())]
    pruned, _ = pruning.cut(model, graph, {"layer1.1.conv1": (0, 3)})
    memory = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert memory.isdisjoint(tensor.data_ptr() for tensor in pruned.state_dict().values())
    assert [*map(id, model.parameters())] == identities
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in (*model.modules(), *pruned.modules()))
    assert [p.requires_grad for p in pruned.parameters()] == [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        pruned.conv1.weight.zero_()
        assert bool(model.conv1.weight.any())
    assert pruned.eval()(images).shape == (len(images), 10)
