"""Allocation: rates, budgets, floors, ties."""

import pytest
import torch

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.allocate import FLOOR, _lamp
from tests.support.networks import network


def scores_of(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(g.width, generator=generator) for name, g in graph.groups.items()}


def allocate(graph, scores=None, allocation="uniform", **options):
    return pruning.allocate(graph, scores or scores_of(graph), allocation=allocation, **options)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.78, 0.9, 0.99])
def test_uniform_truncates_like_the_papers_and_keeps_the_best(rate):
    _, _, graph = network("resnet20")
    scores = scores_of(graph)
    for name, channels in allocate(graph, scores, rate=rate).items():
        width = graph.groups[name].width
        assert len(channels) == max(1, int(width * (1 - rate)))
        assert set(channels) == set(scores[name].topk(len(channels)).indices.tolist())
        assert list(channels) == sorted(channels)


@pytest.mark.parametrize("allocation", ["uniform", "global", "global_mean", "lamp"])
@pytest.mark.parametrize("amount", [{"rate": 0}, {"rate": 0.0, "round_to": 7}, {"macs_ratio": 1}, {"macs_ratio": 1.0}])
def test_nothing_asked_nothing_removed(allocation, amount):
    _, _, graph = network("resnet20")
    kept = allocate(graph, allocation=allocation, **amount)
    assert kept == {name: tuple(range(g.width)) for name, g in graph.groups.items()}


@pytest.mark.parametrize("allocation", ["uniform", "global", "global_mean", "lamp"])
def test_of_equal_scores_the_lower_index_stays(allocation):
    _, _, graph = network("resnet20")
    kept = allocate(graph, {name: torch.ones(g.width) for name, g in graph.groups.items()}, allocation, rate=0.5)
    assert all(channels == tuple(range(len(channels))) for channels in kept.values())


def test_rates_by_layer():
    _, _, graph = network("resnet18")
    kept = allocate(graph, rates={"layer1.0.conv1": 0.5, "layer2.1.conv2": 0.25, "fc": 0})
    assert len(kept["layer1.0.conv1"]) == 32
    assert len(kept["layer2.0.conv2"]) == 96  # the group of layer2.1.conv2
    assert sum(len(kept[name]) < g.width for name, g in graph.groups.items()) == 2


@pytest.mark.parametrize("round_to", [4, 8, 7])
@pytest.mark.parametrize("allocation", ["uniform", "global", "global_mean", "lamp"])
@pytest.mark.parametrize("amount", [{"rate": 0.45}, {"rate": 0.95}, {"macs_ratio": 0.5}])
def test_rounding(round_to, allocation, amount):
    _, _, graph = network("vgg16_cifar")
    for name, channels in allocate(graph, allocation=allocation, round_to=round_to, **amount).items():
        width = graph.groups[name].width
        assert len(channels) == width or (len(channels) % round_to == 0 and len(channels) >= min(round_to, width))


def test_rounding_goes_down():
    _, _, graph = network("resnet20")
    kept = allocate(graph, rate=0.3, round_to=4)  # 16 -> 11, 32 -> 22, 64 -> 44
    assert {graph.groups[n].width: len(c) for n, c in kept.items()} == {16: 8, 32: 20, 64: 44}


def test_min_channels():
    _, _, graph = network("resnet20")
    assert {len(c) for c in allocate(graph, rate=0.99, min_channels=5).values()} == {5}
    assert {len(c) for c in allocate(graph, rate=0.99, min_channels=5, round_to=4).values()} == {8}
    kept = allocate(graph, rate=0.99, min_channels=40)
    assert all(len(c) == min(40, graph.groups[n].width) for n, c in kept.items())


def test_global_ranks_over_all_groups():
    _, _, graph = network("resnet20")
    scores = {name: torch.full((g.width,), 10.0 + i) for i, (name, g) in enumerate(graph.groups.items())}
    scores["layer3.0.conv1"] = torch.arange(64) / 64
    total = sum(g.width for g in graph.groups.values())
    kept = allocate(graph, scores, "global", rate=20 / total + 1e-9)
    assert kept["layer3.0.conv1"] == tuple(range(20, 64))
    assert all(len(kept[name]) == g.width for name, g in graph.groups.items() if name != "layer3.0.conv1")


def test_global_never_collapses_a_group():
    _, _, graph = network("vgg16_cifar")
    scores = scores_of(graph)
    scores["features.conv7"] = torch.zeros(256)
    kept = allocate(graph, scores, "global", rate=0.5)
    assert kept["features.conv7"] == tuple(range(26))  # ceil(10 % of 256), of equal scores the first
    kept = allocate(graph, scores, "global", rate=0.999)
    assert FLOOR == 0.1
    assert all(len(c) == -(-graph.groups[n].width // 10) for n, c in kept.items())
    kept = allocate(graph, scores, "global", rate=0.999, floor=0.05)
    assert all(len(c) == -(-graph.groups[n].width // 20) for n, c in kept.items())


@pytest.mark.parametrize("allocation", ["uniform", "global", "global_mean", "lamp"])
@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.25, 0.1, 0.03])
@pytest.mark.parametrize("name", ["resnet20", "vgg16_cifar", "mobilenet_v2"])
def test_macs_ratio_is_met(allocation, ratio, name):
    _, _, graph = network(name)
    kept = allocate(graph, allocation=allocation, macs_ratio=ratio)
    assert abs(graph.macs(kept) / graph.macs() / ratio - 1) <= 0.01


@pytest.mark.parametrize("ratio", [0.6, 0.3])
def test_macs_ratio_is_met_in_multiples_of_8(ratio):
    _, _, graph = network("resnet18")
    for allocation in ("uniform", "global"):
        kept = allocate(graph, allocation=allocation, macs_ratio=ratio, round_to=8)
        assert abs(graph.macs(kept) / graph.macs() / ratio - 1) <= 0.01
        assert all(len(c) % 8 == 0 for c in kept.values())


def test_uniform_budget_stays_near_uniform():
    _, _, graph = network("resnet20")
    kept = allocate(graph, macs_ratio=0.5)
    shares = [len(c) / graph.groups[n].width for n, c in kept.items()]
    assert max(shares) - min(shares) <= 2 / 16


def test_unreachable_budgets_name_the_nearest():
    _, _, graph = network("resnet20")
    with pytest.raises(InputError, match=r"macs_ratio 0.001 cannot be met within 1%: the nearest is 0\.0\d+"):
        allocate(graph, macs_ratio=0.001)
    with pytest.raises(InputError, match="cannot be met"):
        allocate(graph, macs_ratio=0.2, min_channels=12)
    with pytest.raises(InputError, match=r"the nearest is 1 .*round_to = 64"):
        allocate(graph, macs_ratio=0.9, round_to=64)


def test_groups_without_scores_stay_whole():
    _, _, graph = network("resnet20")
    scores = scores_of(graph)
    del scores["conv1"]
    for amount in ({"rate": 0.5}, {"macs_ratio": 0.4}):
        for allocation in ("uniform", "global"):
            assert len(allocate(graph, scores, allocation, **amount)["conv1"]) == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of rate, rates and macs_ratio, not none"),
        ({"rate": 0.5, "macs_ratio": 0.5}, "not rate, macs_ratio"),
        ({"rate": 1.0}, r"rate is 1.0, but must be in \[0, 1\)"),
        ({"rate": -0.1}, "rate is -0.1"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"macs_ratio": 0.0}, r"macs_ratio is 0.0, but must be in \(0, 1\]"),
        ({"macs_ratio": 1.1}, "macs_ratio is 1.1"),
        ({"rates": {"conv1": 1.5}}, r"rates\[conv1\] is 1.5"),
        ({"rates": {"conv7": 0.5}}, "unknown layer 'conv7'"),
        ({"rates": {"fc": 0.5}}, "layer 'fc' cannot be pruned: it reaches the output"),
        ({"rates": {"layer2.0.conv2": 0.5, "layer2.1.conv2": 0.4}}, "its group 'layer2.0.conv2' has 0.5"),
        ({"rates": {"conv1": 0.5}, "allocation": "global"}, "rates per layer leave nothing to rank"),
        ({"rate": 0.5, "allocation": "local"}, "unknown allocation 'local'"),
        ({"rate": 0.5, "round_to": 0}, "round_to is 0"),
        ({"rate": 0.5, "min_channels": 0}, "min_channels is 0"),
    ],
)
def test_bad_values(options, message):
    _, _, graph = network("resnet20")
    with pytest.raises(InputError, match=message):
        allocate(graph, **options)


@pytest.mark.parametrize(
    ("group", "value", "message"),
    [
        ("conv9", torch.ones(16), "unknown group of channels 'conv9'"),
        ("conv1", torch.ones(15), r"has 16 channels, but scores \(15,\)"),
        ("conv1", torch.tensor([float("nan")] * 16), "not finite"),
    ],
)
def test_bad_scores(group, value, message):
    _, _, graph = network("resnet20")
    with pytest.raises(InputError, match=message):
        allocate(graph, {group: value}, rate=0.5)


def test_lamp_normalises_inside_each_group():
    _, _, graph = network("resnet20")
    values = torch.tensor([3.0, 1.0, 2.0])
    found = _lamp(values.double().numpy())
    assert found.tolist() == [1.0, 1 / 14, 4 / 13]  # 9/9, 1/(1 + 4 + 9), 4/(4 + 9)
    assert _lamp(torch.zeros(3).double().numpy()).tolist() == [0, 0, 0]
    scores = scores_of(graph)
    scaled = {name: value * 10**i for i, (name, value) in enumerate(scores.items())}
    assert allocate(graph, scaled, "lamp", rate=0.5) == allocate(graph, scores, "lamp", rate=0.5)
    assert allocate(graph, scaled, "global", rate=0.5) != allocate(graph, scores, "global", rate=0.5)


def test_global_mean_does_not_care_for_the_scale_of_a_layer():
    _, _, graph = network("resnet20")
    scores = scores_of(graph)
    scaled = {name: value * 4**i for i, (name, value) in enumerate(scores.items())}
    assert allocate(graph, scaled, "global_mean", rate=0.5) == allocate(graph, scores, "global_mean", rate=0.5)
    means = {name: value / value.double().mean() for name, value in scores.items()}
    assert allocate(graph, scores, "global_mean", rate=0.5) == allocate(graph, means, "global", rate=0.5)


def test_joint_needs_several_criteria():
    _, _, graph = network("resnet20")
    with pytest.raises(InputError, match=r"allocation 'joint' needs scores of several criteria"):
        allocate(graph, allocation="joint", rate=0.5)


def test_other_allocations_judge_by_the_highest_of_several_scores():
    _, _, graph = network("resnet20")
    one, other = scores_of(graph, 0), scores_of(graph, 1)
    both = {name: torch.stack([one[name], other[name]]) for name in one}
    highest = {name: torch.maximum(one[name], other[name]) for name in one}
    assert allocate(graph, both, "uniform", rate=0.5) == allocate(graph, highest, "uniform", rate=0.5)
