"""From scores to a network: the budget, the floors, ties, and what folding keeps."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch import nas, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from tests.support.networks import SLIM_VGG, distance, fresh, network, some


def gates_of(graph, seed=0):
    gates = nas.Gates(graph)
    with torch.no_grad():
        gates.scores.normal_(generator=torch.Generator().manual_seed(seed))
    return gates


@pytest.mark.parametrize("ratio", [0.7, 0.5, 0.3])
@pytest.mark.parametrize("name", ["resnet20", "vgg16_cifar", "resnet18", "mobilenet_v2", "unet", "micronet"])
def test_budget(name, ratio):
    model, images, graph = network(name)
    gates = gates_of(graph)
    found = nas.derive(model, gates, macs_ratio=ratio, folded=False)
    profile = counting.profile(found.model, (3, 32, 32))
    assert found.report["macs"] == profile.macs
    assert abs(profile.macs / graph.macs() / ratio - 1) <= 0.01
    with torch.no_grad(), gates.attached(model, lambda: gates.hard(found.kept)):
        assert distance(model(images), found.model(images)) < 1e-5
    rebuilt = pruning.apply_spec(fresh(name), found.spec).eval()
    rebuilt.load_state_dict(found.model.state_dict())
    assert torch.equal(rebuilt(images), found.model(images))


def test_one_threshold_for_all_groups():
    model, _, graph = network("vgg16_cifar")
    gates = gates_of(graph)
    found = nas.derive(model, gates, macs_ratio=0.5)
    kept_low, gone_high = [], []
    for name, scores in gates.by_group().items():
        kept = list(found.kept[name])
        kept_low.append(float(scores[kept].min()))
        gone = sorted(set(range(len(scores))) - set(kept))
        gone_high.append(float(scores[gone].max()))
    # Single channels may be moved to meet the budget, where the threshold's own steps are too coarse.
    assert sorted(gone_high)[-2] <= sorted(kept_low)[1]


def test_ties_keep_the_lower_index():
    model, _, graph = network("resnet20")
    gates = nas.Gates(graph)
    with torch.no_grad():
        gates.scores.fill_(1)
    found = nas.derive(model, gates, macs_ratio=0.6)
    assert all(channels == tuple(range(len(channels))) for channels in found.kept.values())
    assert nas.derive(model, gates, macs_ratio=0.6).kept == found.kept


def test_floor_and_impossible_targets():
    model, _, graph = network("vgg16_cifar")
    gates = nas.Gates(graph)
    with torch.no_grad():
        gates.scores[gates.group_of == 6] = -9
    found = nas.derive(model, gates, macs_ratio=0.5)
    assert len(found.kept["features.conv7"]) == 13  # 5 % of 256, rounded up
    with pytest.raises(InputError, match=r"macs_ratio 0.001 cannot be met within 1%: the nearest is 0.00"):
        nas.derive(model, gates, macs_ratio=0.001)


# A network of each kind in the registry: shortcuts, additions, concatenations, depthwise and transposed convolutions.
FOLDED = ["resnet20", "resnet20 shortcut=B", "resnet18", "vgg16_cifar", "mobilenet_v2"]
FOLDED += ["torchvision:mobilenet_v3_small", "unet", "unet_plain", "miniaturized_net", "miniaturized_net skips=add"]
FOLDED += ["micronet", "micronet skips=concat", "micronet_norm"]
DEEP = ["resnet56", "resnet50", SLIM_VGG, "torchvision:densenet121", "torchvision:efficientnet_b0"]


@pytest.mark.parametrize("name", [*FOLDED, *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)])
def test_the_folded_network_gives_what_the_gated_one_gives(name):
    name, *option = name.split(" ")
    model, images, graph = network(name, **dict(pair.split("=") for pair in option))
    gates, kept = gates_of(graph), some(graph, 0.7)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        with gates.attached(model):
            gated = model(images)
        with gates.attached(model, lambda: gates() * gates.hard(kept)):
            pruned = model(images)
        folded = nas.fold(model, gates)
        assert distance(folded(images), gated) < 1e-5
        assert distance(pruning.cut(folded, graph, kept)[0](images), pruned) < 1e-5
        assert distance(nas.fold(folded, gates)(images), gated) > 1e-3  # they were not all open
        assert distance(model(images), gated) > 1e-3
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


def test_the_gates_of_an_index_shortcut_are_its_scale():
    model, images, graph = network("resnet20")
    gates = gates_of(graph)
    folded = nas.fold(model, gates)
    values = gates.soft().detach()[gates.group_of == list(graph.groups).index("layer1.0.conv2")]
    assert torch.equal(folded.layer2[0].shortcut.scale, torch.cat([torch.ones(8), values, torch.ones(8)]))
    assert torch.equal(model.layer2[0].shortcut.index, folded.layer2[0].shortcut.index)
    assert str(pruning.trace(folded, images)) == str(graph)
    found = nas.derive(model, gates, macs_ratio=0.5)
    rebuilt = pruning.apply_spec(fresh("resnet20"), found.spec).eval()
    rebuilt.load_state_dict(found.model.state_dict())
    assert torch.equal(rebuilt(images), found.model(images))
    assert distance(pruning.apply_spec(nas.fold(model, gates), found.spec)(images), found.model(images)) < 1e-5
    half = copy.deepcopy(folded).bfloat16()
    assert half(images.bfloat16()).dtype == torch.bfloat16


class SamePadding(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), padding=1)


def three(first, second):
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *head).eval()


def test_layers_with_code_of_their_own_are_folded_exactly_or_refused():
    images = torch.randn(2, 3, 8, 8)
    model = three(SamePadding(3, 8, 3), SamePadding(8, 8, 3))
    gates = gates_of(pruning.trace(model, images))
    with torch.no_grad(), gates.attached(model):
        gated = model(images)
    assert distance(nas.fold(model, gates)(images), gated) < 1e-5

    # Tracing leaves the channels of such a layer whole, so that only gates of another network reach it.
    model = three(SamePadding(3, 8, 3), Standardised(8, 8, 3))
    with pytest.raises(InputError, match="nothing to search: '2' has a weight that is computed"):
        gates_of(pruning.trace(model, images))
    with pytest.raises(InputError, match="cannot be folded into the weights of all of 2: the outputs would change"):
        nas.fold(model, gates)

    model = three(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    gates = gates_of(pruning.trace(model, images))
    nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(InputError, match="cannot be folded into '2', whose weights are computed"):
        nas.fold(model, gates)
