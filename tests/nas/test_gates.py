"""Gates: what they do to a network, and the expected cost that they have."""

import copy

import pytest
import torch
from torch import nn

from rssearch import nas, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from tests.support.networks import SLIM_VGG, Fork, distance, network, randomise, some

NETWORKS = ["resnet20", "vgg16_cifar", "resnet18", "mobilenet_v2", "torchvision:mobilenet_v3_small"]
NETWORKS += ["unet", "miniaturized_net", "micronet"]
SLOW = ["resnet50", SLIM_VGG, "torchvision:densenet121", "torchvision:efficientnet_b0", "torchvision:convnext_tiny"]
SLOW += ["unet_plain", "micronet_norm"]
EVERY = [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@pytest.mark.parametrize("name", EVERY)
def test_hard_gates_are_the_pruned_network(name):
    model, images, graph = network(name)
    if "convnext" in name:  # whose blocks hardly count before they are trained
        model = copy.deepcopy(model)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith("layer_scale"):
                    parameter.fill_(1)
    kept = some(graph)
    gates = nas.Gates(graph)
    pruned, _ = pruning.cut(model, graph, kept)
    with torch.no_grad():
        plain = model(images)
        with gates.attached(model, lambda: gates.hard(kept)):
            gated = model(images)
        assert distance(gated, pruned(images)) < 1e-5
        assert distance(gated, plain) > 1e-3
        assert torch.equal(model(images), plain)  # nothing is left behind


def test_hard_gates_are_the_pruned_network_after_concatenations_and_grouped_convolutions():
    torch.manual_seed(0)
    model = randomise(Fork()).eval()
    images = torch.randn(2, 3, 16, 16)
    graph = pruning.trace(model, images)
    kept, gates = some(graph, 0.5), nas.Gates(graph)
    pruned, _ = pruning.cut(model, graph, kept)
    with torch.no_grad(), gates.attached(model, lambda: gates.hard(kept)):
        assert distance(model(images), pruned(images)) < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_open_gates_change_nothing(name):
    model, images, graph = network(name)
    gates = nas.Gates(graph)
    with torch.no_grad():
        plain = model(images)
        with gates.attached(model, lambda: torch.ones_like(gates.scores)):
            assert torch.equal(model(images), plain)


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16_cifar"])
def test_soft_gates_are_those_behind_the_normalisation(name):
    """With convolution, BN and ReLU alone, a gate on what is read is a gate on the scale and shift of the BN before."""
    model, images, graph = network(name)
    gates = nas.Gates(graph, seed=3)
    with torch.no_grad():
        gates.scores.normal_(generator=torch.Generator().manual_seed(0))
    group = graph.groups["layer1.0.conv1" if "resnet" in name else "features.conv3"]
    only = torch.ones_like(gates.scores)
    start = [*graph.groups].index(group.name)
    first = sum(g.width for g in list(graph.groups.values())[:start])
    only[first : first + group.width] = gates.soft().detach()[first : first + group.width]
    written = copy.deepcopy(model)
    with torch.no_grad():
        (norm,) = [written.get_submodule(m.layer) for m in group.members if m.kind == "norm"]
        norm.weight.mul_(only[first : first + group.width])
        norm.bias.mul_(only[first : first + group.width])
        with gates.attached(model, lambda: only):
            assert distance(model(images), written(images)) < 1e-5


def test_copies_state_and_low_precision():
    model, images, graph = network("resnet20")
    model = copy.deepcopy(model)
    names, gates = list(model.state_dict()), nas.Gates(graph)
    with torch.no_grad(), gates.attached(model):
        gated = model(images)
        assert list(model.state_dict()) == names
        assert torch.equal(copy.deepcopy(model)(images), gated)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert distance(model(images).float(), gated) < 0.1
        half = copy.deepcopy(model).bfloat16()
        assert half(images.bfloat16()).dtype == torch.bfloat16
    again = nas.Gates(graph, seed=9)
    again.load_state_dict(gates.state_dict())
    assert torch.equal(again.scores, gates.scores)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_initial_scores_follow_the_seed_alone():
    _, _, graph = network("resnet20")
    state = torch.get_rng_state()
    first, second, other = nas.Gates(graph, seed=1), nas.Gates(graph, seed=1), nas.Gates(graph, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.scores, second.scores)
    assert not torch.equal(first.scores, other.scores)
    assert abs(float(first.scores.detach().mean()) - 1) < 0.005
    assert 0.008 < float(first.scores.detach().std()) < 0.012


@pytest.mark.parametrize("name", EVERY)
def test_expected_cost_at_full_width_and_at_kept_channels(name):
    model, _, graph = network(name)
    gates = nas.Gates(graph)
    assert float(gates.expected_ratio(torch.ones_like(gates.scores))) == pytest.approx(1, rel=1e-12)
    assert graph.conv_linear_macs() == counting.profile(model, (3, 32, 32)).conv_linear_macs
    kept = some(graph)
    expected = graph.conv_linear_macs(kept) / graph.conv_linear_macs()
    assert float(gates.expected_ratio(gates.hard(kept))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "unet", "micronet"])
def test_expected_cost_is_the_mean_over_random_gates(name):
    _, _, graph = network(name)
    gates, generator = nas.Gates(graph), torch.Generator().manual_seed(0)
    with torch.no_grad():
        gates.scores.normal_(generator=generator)
        chances = gates.soft()
        drawn = [float(gates.expected_ratio(torch.bernoulli(chances, generator=generator))) for _ in range(3000)]
    mean, deviation = torch.tensor(drawn).mean(), torch.tensor(drawn).std()
    assert abs(float(mean - gates.expected_ratio(chances))) < 4 * float(deviation) / 3000**0.5


@pytest.mark.parametrize("name", ["resnet20", "vgg16_cifar", "mobilenet_v2"])
def test_the_gradient_of_the_cost_agrees_with_finite_differences(name):
    _, _, graph = network(name)
    gates = nas.Gates(graph).double()
    gates.temperature = 0.7
    ratio = gates.expected_ratio(gates.soft())
    (gradient,) = torch.autograd.grad(ratio, [gates.scores])
    for channel in range(0, len(gates.scores), max(1, len(gates.scores) // 7)):
        ends = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                gates.scores[channel] += step
                ends.append(float(gates.expected_ratio(gates.soft())))
                gates.scores[channel] -= step
        assert float(gradient[channel]) == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-6)


def test_straight_through_gates():
    _, _, graph = network("resnet20")
    gates = nas.Gates(graph, straight_through=True)
    with torch.no_grad():
        gates.scores.normal_(generator=torch.Generator().manual_seed(0))
    values = gates()
    assert torch.allclose(values, (gates.scores > 0).float(), atol=1e-6)
    (through,) = torch.autograd.grad(values.sum(), [gates.scores])
    (soft,) = torch.autograd.grad(gates.soft().sum(), [gates.scores])
    assert torch.equal(through, soft)


def test_a_network_without_channels_to_search():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="nothing to search"):
        nas.Gates(pruning.trace(model, torch.randn(1, 3, 4, 4)))
