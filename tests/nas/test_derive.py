"""From scores to a network: the budget, the floors, ties, and what folding keeps."""

import pytest
import torch

from rssearch import cost, nas, pruning
from rssearch.errors import InputError
from tests.pruning.networks import distance, fresh, network


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
    profile = cost.profile(found.model, (3, 32, 32))
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


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg16_cifar", "mobilenet_v2", "torchvision:mobilenet_v3_small", "unet", "micronet"]
)
def test_folded_weights_are_the_gates(name):
    model, images, graph = network(name)
    gates = gates_of(graph)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        with gates.attached(model):
            gated = model(images)
        assert distance(nas.fold(model, gates)(images), gated) < 1e-5
        assert distance(model(images), gated) > 1e-3
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())


def test_an_index_shortcut_reads_folded_channels_in_full():
    model, _, graph = network("resnet20")
    gates = gates_of(graph)
    folded = nas.fold(model, gates)
    start = list(graph.groups).index("layer1.0.conv2")
    values = gates.soft().detach()[gates.group_of == start]
    before, after = (net.layer2[0].conv1.weight for net in (model, folded))
    assert torch.allclose(after, before * values[None, :, None, None])
    assert torch.equal(model.layer2[0].shortcut.index, folded.layer2[0].shortcut.index)
