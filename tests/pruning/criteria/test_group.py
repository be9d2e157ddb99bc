"""The importance of coupled groups, channel by channel against torch_pruning's, and by hand."""

import copy

import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.train.losses import cross_entropy
from tests.support.late import Late
from tests.support.networks import SLIM_VGG, network

torch_pruning = Late("torch_pruning")

NETWORKS = {
    "resnet20": ({"shortcut": "B"}, 32),
    "resnet18": ({}, 32),
    SLIM_VGG: ({}, 32),
    "mobilenet_v2": ({}, 32),
    "unet": ({}, 16),
}
IMPORTANCES = {
    "group_l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "group_taylor": torch_pruning.importance.GroupTaylorImportance,
}


def twins(name):
    """A network, the same for torch_pruning, images and labels."""
    options, size = NETWORKS[name]
    model = copy.deepcopy(network(name, size, **options)[0])
    for layer in list(model.modules()):  # those that change nothing are an addition like any other
        for child, module in layer.named_children():
            if isinstance(module, IndexShortcut) and module.in_channels == module.out_channels:
                setattr(layer, child, nn.Identity())
    torch.manual_seed(0)
    x = torch.randn(4, 3, size, size)
    labels = torch.randint(0, 10, (4, size, size) if name == "unet" else (4,))
    return model, pruning.trace(model, x[:1]), x, labels


@pytest.mark.parametrize("name", NETWORKS)
def test_every_channel_has_the_importance_that_torch_pruning_gives_it(name):
    model, graph, x, labels = twins(name)
    scores = {method: pruning.score(model, graph, method, data=[(x, labels)]) for method in IMPORTANCES}
    model.eval().requires_grad_(True)
    torch.autograd.backward(cross_entropy(model(x), labels))
    dependencies = torch_pruning.DependencyGraph().build_dependency(model, x[:1])
    layers = {module: layer for layer, module in model.named_modules()}
    for group in graph.groups.values():
        root = model.get_submodule(group.name)
        kind = "linear" if isinstance(root, nn.Linear) else "conv"
        handler = getattr(torch_pruning, f"prune_{kind}_out_channels")
        theirs = dependencies.get_pruning_group(root, handler, list(range(group.width)))
        assert {m.layer for m in (*group.producers, *group.consumers)} <= {layers.get(dep.layer) for dep, _ in theirs}
        for method, importance in IMPORTANCES.items():
            torch.testing.assert_close(scores[method][group.name], importance()(theirs), rtol=2e-5, atol=1e-6)


class Small(nn.Module):
    """Two channels with normalisation, a depthwise convolution, and a linear layer on a map of two positions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)
        self.deep, self.head = nn.Conv2d(2, 2, 1, groups=2), nn.Linear(4, 1)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([3.0, 1.0]).reshape(2, 1, 1, 1))
            self.norm.weight.copy_(torch.tensor([2.0, -1.0]))
            self.head.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, 3.0]]))

    def forward(self, x):
        return self.head(self.deep(self.norm(self.conv(x))).flatten(1))


def test_group_l2_by_hand():
    model = Small()
    graph = pruning.trace(model, torch.randn(1, 1, 1, 2))
    found = pruning.score(model, graph, "group_l2")["conv"]
    # Squares of filter, scale and the two columns: 9 + 4 + (1 + 4) = 18 and 1 + 1 + 9 = 11, of three layers.
    assert found.tolist() == pytest.approx([18 / 14.5, 11 / 14.5])


def test_group_taylor_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
        model[2].weight.copy_(torch.tensor([[1.0, 0.5], [-1.0, 0.5]]))
    data = [(torch.ones(1, 1, 1, 1), torch.tensor([0])), (torch.ones(1, 1, 1, 1), torch.tensor([0]))]
    found = pruning.score(model, pruning.trace(model, data[0][0]), "group_taylor", data=data)["0"]
    # Logits (2, 0): the gradient by them is (-q, q). By the filters: -2q and 0; by the columns: (-q, q) and (-2q, 2q).
    # |w dL/dw| of channel 0: 2q + (q + q) = 4q, of channel 1: 0 + (q + q) = 2q.
    assert found.tolist() == pytest.approx([4 / 3, 2 / 3])


def test_a_block_of_a_grouped_convolution_counts_its_own_weights():
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, groups=2, bias=False), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1.0)
        model[1].weight[2:] = 3.0  # the second block
    (group,) = (graph := pruning.trace(model, torch.randn(1, 3, 4, 4))).groups.values()
    assert [member.index.shape for member in group.members] == [(2, 2)] * 4
    # Both channels of a unit: filters 6, inputs and outputs of the block 4 w^2 each, columns 4.
    assert pruning.score(model, graph, "group_l2")["0"].tolist() == pytest.approx([18 / 50, 82 / 50])


def test_group_taylor_needs_data():
    model, _, graph = network("resnet20")
    with pytest.raises(InputError, match="'group_taylor' needs data"):
        pruning.score(model, graph, "group_taylor")


def test_all_zero_weights_are_no_nan():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    graph = pruning.trace(model, torch.randn(1, 3, 4, 4))
    assert pruning.score(model, graph, "group_l2")["0"].tolist() == [0, 0, 0, 0]
