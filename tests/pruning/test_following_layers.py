"""Following channels through layers of all kinds: subclasses, grouped transposed ones, computed and shared weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from rssearch import pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from tests.support.networks import distance


class NormAct(nn.BatchNorm2d):
    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(super().forward(x))


class SamePad(nn.Conv2d):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, bias=False)
        self.pad = nn.ZeroPad2d(1)

    def forward(self, x):
        return super().forward(self.pad(x))


def chain(conv, norm):
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)]
    return nn.Sequential(conv(3, 16), norm(16), conv(16, 32), norm(32), conv(32, 32), norm(32), *tail)


def plain(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


@pytest.mark.parametrize("conv", [plain, SamePad])
@pytest.mark.parametrize("norm", [lambda c: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()), NormAct])
def test_layers_that_are_subclasses_or_hold_a_child_are_seen(conv, norm):
    result = pruning.prune(chain(conv, norm), torch.randn(2, 3, 32, 32), "l1", rate=0.5)
    assert list(result.report["widths"].values()) == [(8, 16), (16, 32), (16, 32)]
    left = counting.profile(result.model, (3, 32, 32)).conv_linear_macs
    assert left == result.report["conv_linear_macs"] == 32 * 32 * 9 * (3 * 8 + 8 * 16 + 16 * 16) + 16 * 5


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("outputs", [8, 16])
def test_grouped_transposed_convolutions_are_cut_by_blocks(groups, outputs):
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(8, outputs, 2, stride=2, groups=groups)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), up, nn.Conv2d(outputs, 4, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    graph = pruning.trace(net, x)
    group = graph.groups["0"]
    assert (group.width, {(m.layer, m.side): m.index.shape[1] for m in group.members}) == (
        groups,
        {("0", "out"): 8 // groups, ("1", "both"): 8 // groups, ("3", "in"): 8 // groups}
        | {("3", "out"): outputs // groups, ("4", "in"): outputs // groups},
    )
    pruned, _ = pruning.cut(net, graph, {"0": (1,)})
    assert (pruned[3].groups, pruned[3].in_channels, pruned[3].out_channels) == (1, 8 // groups, outputs // groups)
    assert torch.equal(pruned[3].weight, up.weight[8 // groups : 16 // groups])
    assert distance(pruning.masked(net, graph, {"0": (1,)})(x), pruned(x)) < 1e-5
    # The filter of output channel o is the slice of its block's inputs.
    norms = torch.stack([up.weight[:, o].abs().sum(1) for o in range(outputs // groups)], 1)
    expected = norms.view(groups, -1, outputs // groups).sum(1).mean(1)
    first = net[0].weight.abs().sum((1, 2, 3)).view(groups, -1).mean(1)
    assert torch.allclose(pruning.score(net, graph, "l1")["0"], (expected + first) / 2)


@pytest.mark.parametrize("method", pruning.list_methods())
def test_every_method_scores_grouped_transposed_convolutions(method):
    def block(conv):
        return [conv, nn.BatchNorm2d(8), nn.ReLU()]

    up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=4)
    net = nn.Sequential(
        *block(nn.Conv2d(3, 8, 3)), *block(up), nn.Conv2d(8, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    options = {"scheme": "B"} if method == "compound" else {}
    result = pruning.prune(net, x, method, rate=0.5, data=[(x, y)], **options)
    assert result.model(x).shape == (4, 4)


class Normalised(nn.Conv2d):
    """Weight standardisation."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, padding=1)


class Scale(nn.Module):
    def forward(self, weight):
        return 2 * weight


def parametrised(layer):
    parametrize.register_parametrization(layer, "weight", Scale())
    return layer


@pytest.mark.parametrize(
    "change",
    [parametrizations.weight_norm, parametrizations.spectral_norm, parametrised],
    ids=["weight_norm", "spectral_norm", "parametrised"],
)
def test_layers_whose_weight_is_computed_stay_whole_by_name(change):
    middle = change(nn.Conv2d(8, 8, 3, padding=1))
    net = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.ReLU(), middle, nn.Conv2d(8, 4, 1))
    graph = pruning.trace(net, torch.randn(1, 3, 8, 8))
    assert list(graph.groups) == ["0"]
    assert graph.fixed["2"].startswith("is read by 4 (")
    assert graph.fixed["2"].endswith("whose weight is computed or not a layer's")
    assert pruning.prune(net, torch.randn(1, 3, 8, 8), "l1", rate=0.5).model[2].in_channels == 6


def test_weights_that_a_hook_computes_stay_whole_by_name():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), prune.l1_unstructured(nn.Conv2d(8, 8, 1), "weight", 0.3), nn.Conv2d(8, 4, 1)
    )
    with pytest.raises(InputError, match="no prunable channels: '1' has a weight that is computed"):
        pruning.prune(net, torch.randn(1, 3, 8, 8), "l1", rate=0.5)


def test_standardised_weights_stay_whole():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), Normalised(8, 8, 3), nn.Conv2d(8, 4, 1))
    with pytest.raises(InputError, match="no prunable channels: '1' has a weight that is computed"):
        pruning.prune(net, torch.randn(1, 3, 8, 8), "l1", rate=0.5)


def test_layers_that_share_a_weight_stay_whole():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    net[2].weight = net[1].weight
    graph = pruning.trace(net, torch.randn(1, 3, 8, 8))
    assert not graph.groups
    assert graph.fixed["0"] == "is read by 1 and 2, which share a weight"
    assert graph.fixed["2"] == "shares its weight: 1 and 2"


def test_a_layer_that_runs_twice_couples_its_inputs():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.head(self.a(x)) + self.head(self.b(x).relu())

    graph = pruning.trace(Twice(), torch.randn(1, 3, 8, 8))
    assert [m.layer for m in graph.groups["a"].producers] == ["a", "b"]


def test_frozen_statistics_without_parameters_are_followed():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8, affine=False), nn.InstanceNorm2d(8), nn.Conv2d(8, 4, 1))
    result = pruning.prune(net, torch.randn(1, 3, 8, 8), "l1", rate=0.5)
    assert (result.model[1].num_features, result.model[2].num_features) == (4, 4)
    found = counting.profile(result.model, (3, 8, 8))
    assert (found.macs, found.params) == (result.report["macs"], result.report["params"])
