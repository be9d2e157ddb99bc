"""What every method promises on every network."""

import json
from collections import Counter

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from rssearch import pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.pruning.allocate import ALLOCATIONS
from tests.support.networks import SLIM_VGG, SMALL, distance, fresh, network

FAST = [
    ("resnet20", 32),
    ("resnet56", 32),
    ("vgg16_cifar", 32),
    ("resnet18", 32),
    ("resnet50", 32),
    ("mobilenet_v2", 32),
    ("torchvision:mobilenet_v3_small", 32),
    ("unet", 32),
    ("miniaturized_net", 32),
    ("micronet", 32),
]
SLOW = [("resnet34", 32), (SLIM_VGG, 64), ("unet_plain", 32), ("micronet_norm", 32)]
SLOW += [
    (f"torchvision:{name}", 32)
    for name in ("densenet121", "efficientnet_b0", "regnet_y_400mf", "resnext50_32x4d", "convnext_tiny")
]
UNNORMED = {"torchvision:convnext_tiny", "unet_plain", "miniaturized_net", "micronet"}  # no batch normalisation
READ_NORMS = {name for name, method in pruning.METHODS.items() if method.needs_norms}
NETWORKS = [*FAST, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW)]


def data(size, count=1, *, maps=False):
    generator = torch.Generator().manual_seed(0)
    images = (torch.randn(4, 3, size, size, generator=generator) for _ in range(count))
    labels = (4, size, size) if maps else (4,)
    return [(x, torch.randint(0, 10, labels, generator=generator)) for x in images]


@pytest.mark.parametrize("method", pruning.list_methods())
@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_contract(name, size, method):
    model, images, graph = network(name, size)
    if name in UNNORMED and method in READ_NORMS:
        with pytest.raises(InputError, match=f"'{method}' reads the scales of batch normalisation"):
            pruning.score(model, graph, method, data=data(size))
        return
    scores = pruning.score(model, graph, method, data=data(size, maps=name in SMALL))
    allocation = pruning.METHODS[method].allocation
    several, dtype = ((2,), torch.float64) if allocation == "joint" else ((), torch.float32)
    assert all(scores[g].shape == (*several, graph.groups[g].width) and scores[g].dtype == dtype for g in scores)
    kept = pruning.allocate(graph, scores, allocation=allocation, macs_ratio=0.5)
    pruned, spec = pruning.cut(model, graph, kept)

    found = counting.profile(pruned, (3, size, size))
    assert (graph.macs(kept), graph.params(kept), graph.conv_linear_macs(kept)) == (
        found.macs,
        found.params,
        found.conv_linear_macs,
    )
    assert abs(found.macs / graph.macs() / 0.5 - 1) <= 0.01
    with torch.no_grad():
        outputs = pruned(images)
        assert distance(outputs, pruning.masked(model, graph, kept)(images)) < 1e-5
        rebuilt = pruning.apply_spec(fresh(name), json.loads(json.dumps(spec))).eval()
        rebuilt.load_state_dict(load(save(pruned.state_dict())))
        assert torch.equal(rebuilt(images), outputs)
    head = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    pruned_head = [m for m in pruned.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    assert pruned_head.weight.shape[0] == 10
    assert pruned_head.bias is None if head.bias is None else torch.equal(pruned_head.bias, head.bias)
    gone = Counter()
    for group, channels in kept.items():
        for member in graph.groups[group].producers:  # of which some have channels in several groups
            gone[member.layer] += (graph.groups[group].width - len(channels)) * member.index.shape[1]
    for layer, count in gone.items():
        before, after = (pruning.surgery._width(whole.get_submodule(layer), "out") for whole in (model, pruned))
        assert after == before - count


@pytest.mark.parametrize("method", pruning.list_methods())
def test_one_call_does_not_change_the_next(method):
    model, images, _ = network("resnet20")
    first = pruning.prune(model, images, method, rate=0.5, data=data(32))
    other, other_images, _ = network("resnet20", shortcut="B")  # layers of the same names
    pruning.prune(other, other_images, method, rate=0.3, data=data(32))
    second = pruning.prune(model, images, method, rate=0.5, data=data(32))
    assert first.kept == second.kept
    assert first.spec == second.spec
    assert first.report == second.report
    assert torch.equal(first.model(images), second.model(images))


def test_report():
    model, images, graph = network("resnet20")
    pruned = pruning.prune(model, images, "l1", macs_ratio=0.5, round_to=4)
    found = counting.profile(pruned.model, (3, 32, 32))
    report = pruned.report
    assert (report["macs"], report["params"]) == (found.macs, found.params)
    assert (report["baseline_macs"], report["baseline_params"]) == (graph.macs(), graph.params())
    assert report["macs_ratio"] == found.macs / graph.macs()
    assert report["asked"] == {"rate": None, "rates": None, "macs_ratio": 0.5}
    assert report["widths"]["conv1"] == (pruned.model.conv1.out_channels, 16)
    assert report["allocation"] == "uniform"


def test_rates_make_a_global_method_uniform():
    model, images, _ = network("resnet20")
    assert pruning.prune(model, images, "bn_scale", rates={"conv1": 0.5}).report["allocation"] == "uniform"
    with pytest.raises(InputError, match="rates per layer"):
        pruning.prune(model, images, "bn_scale", rates={"conv1": 0.5}, allocation="global")


def test_mistakes_are_found_before_any_work():
    with pytest.raises(InputError, match=r"unknown method 'lpf'.* Did you mean 'lfp'"):
        pruning.prune(nn.Linear(1, 1), torch.zeros(1), "lpf", rate=0.5)
    with pytest.raises(InputError, match="exactly one"):
        pruning.prune(nn.Linear(1, 1), torch.zeros(1), "l1")


def test_networks_without_prunable_channels():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="no prunable channels"):
        pruning.prune(model, torch.randn(1, 3, 4, 4), "l1", rate=0.5)


def test_registry():
    for name, method in pruning.METHODS.items():
        assert method.name == name
        assert method.summary
        assert method.source
        assert method.allocation in ALLOCATIONS
