"""Where a network is cut: inner groups, shares of groups that stay."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.scope import channels_to_keep, share_of
from tests.support.networks import distance, network

RANKINGS = ["uniform", "global", "global_mean", "lamp"]


def scores_of(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(g.width, generator=generator) for name, g in graph.groups.items()}


def outer(name, **options):
    _, _, graph = network(name, **options)
    return {group: g.joined for group, g in graph.groups.items() if not g.is_inner}


ADDED, JOINED = "is joined by an addition", "is joined by a concatenation"


def test_inner_groups_of_residual_networks_are_those_inside_their_blocks():
    _, _, graph = network("resnet18")
    inner = {name for name, group in graph.groups.items() if group.is_inner}
    assert inner == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3, 4) for block in (0, 1)}
    streams = [
        "features.2.conv.2",
        "features.4.conv.2",
        "features.7.conv.2",
        "features.11.conv.2",
        "features.14.conv.2",
    ]
    assert outer("mobilenet_v2") == dict.fromkeys(streams, ADDED)  # depthwise convolutions pass channels on
    assert outer("vgg16_cifar") == {}  # a flattened map too


def test_index_shortcuts_and_projections_are_outer():
    stages = {"layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"}
    assert outer("resnet20", shortcut="A").keys() == {"conv1", *stages}
    assert outer("resnet20", shortcut="B").keys() == {"conv1", *stages}


def test_what_skips_concatenate_is_outer():
    ups = ["encoder.0.1.conv", "encoder.1.1.conv", "up.1", "up.0"]
    assert outer("unet") == dict.fromkeys(ups, JOINED)
    _, _, graph = network("micronet")
    assert all(group.is_inner == ("squeeze" in name) for name, group in graph.groups.items())


class Two(nn.Module):
    """Two convolutions of six channels, an operation on their maps, and a reader."""

    def __init__(self, operation, width=6):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.deep, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.squeeze, self.excite = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.wide, self.out, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(width, 4, 1), nn.Conv2d(4, 2, 1)
        self.operation = operation

    def gate(self, y):
        return self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()

    def forward(self, x):
        return self.head(self.out(self.operation(self, x).relu())).mean((2, 3))


CASES = {  # operation, and how the group of `a` is joined
    "plain": (lambda net, x: net.norm(net.a(x)), None),
    "with_itself": (lambda net, x: (y := net.a(x)) * (y + 3).clamp(0, 6) / 6, None),
    "addition": (lambda net, x: net.a(x) + net.b(x), ADDED),
    "in_place": (lambda net, x: net.a(x).add_(net.b(x)), ADDED),
    "difference": (lambda net, x: net.a(x) - net.b(x), ADDED),
    "larger": (lambda net, x: torch.maximum(net.a(x), net.b(x)), ADDED),
    "addcmul": (lambda net, x: torch.addcmul(net.a(x), net.b(x), net.b(x)), ADDED),
    "stacked": (lambda net, x: torch.stack([net.a(x), net.b(x)], 1).sum(1), JOINED),
    "identity": (lambda net, x: (y := net.a(x)) + net.c(y), ADDED),
    "around_depthwise": (lambda net, x: (y := net.a(x)) + net.deep(y), ADDED),
    "depthwise": (lambda net, x: net.deep(net.norm(net.a(x)).relu()), None),
    "squeezed": (lambda net, x: (y := net.a(x)) * net.gate(y), None),
    "squeezed_after_depthwise": (lambda net, x: (y := net.deep(net.a(x))) * net.gate(y), None),
    "squeezed_and_added": (lambda net, x: (y := net.a(x)) * net.gate(y) + net.b(x), ADDED),
    "factor": (lambda net, x: net.a(x) * net.b(x).sigmoid(), None),
    "reader_of_two": (lambda net, x: net.c(net.a(x)) * net.c(net.b(x)), "is computed by several layers"),
    "gated_halves": (lambda net, x: net.c(nn.functional.glu(net.wide(x), 1)) + net.a(x), ADDED),
}


@pytest.mark.parametrize("name", CASES)
def test_what_joins_channels_comes_from_the_trace(name):
    operation, expected = CASES[name]
    group = pruning.trace(Two(operation).eval(), torch.randn(1, 3, 8, 8)).groups_of("a")
    assert [g.joined for g in group] == [expected]


@pytest.mark.parametrize("image", [False, True])
def test_a_concatenation_joins_also_what_is_beside_the_image(image):
    def join(net, x):
        return torch.cat([net.a(x), x if image else net.b(x)], 1)

    graph = pruning.trace(Two(join, 9 if image else 12).eval(), torch.randn(1, 3, 8, 8))
    assert graph.groups["a"].joined == JOINED
    assert graph.groups["out"].is_inner


def test_halves_of_one_layer_are_one_stream():
    graph = pruning.trace(Two(lambda net, x: nn.functional.glu(net.wide(x), 1)).eval(), torch.randn(1, 3, 8, 8))
    assert graph.groups["wide"].is_inner


@pytest.mark.parametrize("allocation", RANKINGS)
@pytest.mark.parametrize("amount", [{"rate": 0.5}, {"rate": 0.97}, {"macs_ratio": 0.5}])
def test_outer_groups_stay_whole(allocation, amount):
    _, _, graph = network("resnet18")
    kept = pruning.allocate(graph, scores_of(graph), allocation=allocation, groups="inner", **amount)
    assert all(len(kept[n]) == g.width for n, g in graph.groups.items() if not g.is_inner)
    assert any(len(kept[n]) < g.width for n, g in graph.groups.items() if g.is_inner)
    if "macs_ratio" in amount:
        assert abs(graph.macs(kept) / graph.macs() / 0.5 - 1) <= 0.01


def test_a_global_rate_is_of_the_groups_that_are_cut():
    _, _, graph = network("resnet18")
    kept = pruning.allocate(graph, scores_of(graph), allocation="global", groups="inner", rate=0.25)
    inner = [(len(kept[n]), g.width) for n, g in graph.groups.items() if g.is_inner]
    assert sum(width - left for left, width in inner) == 0.25 * 1920  # two convolutions of 64 + 128 + 256 + 512


def test_an_unreachable_target_says_why_and_the_smallest():
    _, _, graph = network("resnet18")
    scores = scores_of(graph)
    ones = {n: (0,) for n, g in graph.groups.items() if g.is_inner}
    least = graph.macs(ones) / graph.macs()
    message = rf"groups 'inner' leaves the rest whole, so that the smallest has {least:.4g}; without 0\.0"
    with pytest.raises(InputError, match=message):
        pruning.allocate(graph, scores, allocation="uniform", groups="inner", macs_ratio=least / 2)
    kept = pruning.allocate(graph, scores, allocation="uniform", groups="inner", macs_ratio=round(least * 1.02, 6))
    assert graph.macs(kept) / graph.macs() <= least * 1.04
    with pytest.raises(InputError, match=r"macs_ratio 0.1 .*: the nearest is .*\(keep leaves the rest whole"):
        pruning.allocate(graph, scores, allocation="global", keep={"*": 0.9}, macs_ratio=0.1)
    with pytest.raises(InputError, match="groups 'inner' and keep leaves"):
        pruning.allocate(graph, scores, allocation="global", groups="inner", keep={"*": 0.9}, macs_ratio=0.1)


def test_a_network_without_inner_groups_is_refused():
    graph = pruning.trace(Two(lambda net, x: net.a(x) + net.b(x)).eval(), torch.randn(1, 3, 8, 8))
    for name in [name for name, group in graph.groups.items() if group.is_inner]:
        del graph.groups[name]
    with pytest.raises(InputError, match=r"the network has no inner group \(a is joined by an addition"):
        pruning.allocate(graph, scores_of(graph), allocation="uniform", groups="inner", rate=0.5)


@pytest.mark.parametrize("method", ["l1", "bn_scale", "compound"])
def test_prune_takes_groups_and_keep(method):
    model, images, graph = network("resnet18")
    data = [(torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,)))]
    pruned = pruning.prune(
        model, images, method, macs_ratio=0.6, data=data, groups="inner", keep={"layer4.0.conv1": 0.9}
    )
    assert all(len(pruned.kept[n]) == g.width for n, g in graph.groups.items() if not g.is_inner)
    assert len(pruned.kept["layer4.0.conv1"]) >= 461  # ceil(0.9 * 512)
    assert abs(pruned.report["macs_ratio"] / 0.6 - 1) <= 0.01
    assert pruned.report["groups"] == "inner"
    assert distance(pruning.masked(copy.deepcopy(model), graph, pruned.kept)(images), pruned.model(images)) < 1e-4


@pytest.mark.parametrize("allocation", RANKINGS)
def test_shares_that_stay(allocation):
    _, _, graph = network("resnet18")
    keep = {"layer1.*.conv1": 1, "layer2.1.conv2": 0.7, "layer[34]*": 0.3, "layer4.1.conv1": 0.5}
    kept = pruning.allocate(graph, scores_of(graph), allocation=allocation, rate=0.9, keep=keep)
    least = {
        **{"layer1.0.conv1": 64, "layer1.1.conv1": 64},
        "layer2.0.conv2": 90,  # its group has layer2.1.conv2; ceil(0.7 * 128)
        **{"layer3.0.conv1": 77, "layer3.0.conv2": 77, "layer3.1.conv1": 77},
        **{"layer4.0.conv1": 154, "layer4.0.conv2": 154, "layer4.1.conv1": 256},  # of two that fit the larger
    }
    assert all(len(kept[name]) >= number for name, number in least.items())
    if allocation == "uniform":
        assert {name: len(kept[name]) for name in least} == least  # the rate's width or the floor
        assert len(kept["conv1"]) == 6
        rates = {"layer4.1.conv1": 0.25, "layer1.0.conv1": 0.5}
        kept = pruning.allocate(graph, scores_of(graph), allocation="uniform", rates=rates, keep=keep)
        assert [len(kept[name]) for name in rates] == [384, 64]


def test_shares_stay_over_several_steps():
    model, images, graph = network("resnet20")
    keep = {"layer1.*.conv1": 0.8, "layer3.2.conv1": 1.0}
    pruned = pruning.prune(model, images, "l2", macs_ratio=0.3, steps=3, allocation="global", keep=keep)
    assert abs(pruned.report["macs_ratio"] / 0.3 - 1) <= 0.01
    assert all(len(pruned.kept[f"layer1.{block}.conv1"]) >= 13 for block in range(3))  # ceil(0.8 * 16), of the whole
    assert len(pruned.kept["layer3.2.conv1"]) == 64
    smaller = pruning.trace(pruned.model, images)
    counts = dict(zip(smaller.groups, channels_to_keep(smaller, keep, graph).tolist(), strict=True))
    assert {name: count for name, count in counts.items() if count} == {
        **{f"layer1.{block}.conv1": 13 for block in range(3)},
        "layer3.2.conv1": 64,
    }


def test_keep_is_rounded_up_to_round_to():
    _, _, graph = network("resnet18")
    kept = pruning.allocate(graph, scores_of(graph), allocation="uniform", rate=0.9, keep={"conv1": 0.51}, round_to=8)
    assert len(kept["conv1"]) == 40  # 33 at least


def test_shares_are_exact():
    assert share_of(np.array([30, 10, 7, 20]), 0.1).tolist() == [3, 1, 1, 2]  # 30 * 0.1 is above 3 in binary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"layer9*": 0.5}}, r"keep: 'layer9\*' fits no group of channels; groups: conv1, layer1.0.conv1"),
        ({"keep": {"fc": 0.5}}, "keep: 'fc' fits no group"),
        ({"keep": {"conv1": 0}}, r"keep\[conv1\] is 0, but must be a number in \(0, 1\]"),
        ({"keep": {"conv1": 1.5}}, r"keep\[conv1\] is 1.5"),
        ({"keep": {"conv1": True}}, r"keep\[conv1\] is True"),
        ({"groups": "outer"}, "unknown groups 'outer'"),
        ({"groups": "inner", "rate": None, "rates": {"conv1": 0.5}}, "groups 'inner' goes with rate or macs_ratio"),
    ],
)
def test_bad_values(options, message):
    _, _, graph = network("resnet18")
    with pytest.raises(InputError, match=message):
        pruning.allocate(graph, scores_of(graph), **{"allocation": "uniform", "rate": 0.5, **options})
