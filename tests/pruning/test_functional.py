"""Costs outside of plain layers, at other widths."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch import pruning
from rssearch.cost import counting
from rssearch.pruning import functional
from tests.support.networks import some


class SamePadding(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


class Twice(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + F.conv2d(x, self.weight, self.bias, padding=2, dilation=2)


class Blur(nn.Module):
    """A fixed filter on as many channels as there are."""

    def __init__(self):
        super().__init__()
        self.register_buffer("filter", torch.ones(1, 1, 3, 3) / 9)

    def forward(self, x):
        return F.conv2d(x, self.filter.expand(x.shape[1], -1, -1, -1), stride=2, padding=1, groups=x.shape[1])


class Mixed(nn.Module):
    """A parameter that no layer holds."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x):
        return torch.einsum("bchw,oc->bohw", x, self.weight)


def between(*layers, size=8):
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)]
    inner = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *layers]
    return nn.Sequential(*inner, nn.ReLU(), nn.Conv2d(size, 12, 3, padding=1), nn.ReLU(), *head).eval()


@pytest.mark.parametrize(
    "layers",
    [
        lambda: between(SamePadding(8, 10, 3), size=10),
        lambda: between(Twice(8, 10, 3, padding=1), size=10),
        lambda: between(type("Up", (nn.ConvTranspose2d,), {})(8, 10, 2, stride=2), size=10),
        lambda: between(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 10, 3)), size=10),
        lambda: between(type("Pool", (nn.AdaptiveAvgPool2d,), {})(3)),
        lambda: between(Blur(), nn.Conv2d(8, 6, 1), Blur(), size=6),
        lambda: between(Mixed(8)),
    ],
)
def test_costs_are_exact_after_the_cut(layers, caplog):
    model = layers()
    graph = pruning.trace(model, torch.randn(1, 3, 13, 13))
    for share in (0.3, 0.6):
        kept = some(graph, share)
        found = counting.profile(pruning.cut(model, graph, kept)[0], (3, 13, 13))
        expected = found.macs, found.conv_linear_macs, found.params
        assert (graph.macs(kept), graph.conv_linear_macs(kept), graph.params(kept)) == expected
    assert not caplog.messages


def test_a_ratio_of_macs_is_one_of_what_is_computed():
    """A network of convolutions with a padding of their own costs, and is pruned, as its plain twin."""

    def network(conv, padding):
        torch.manual_seed(0)
        first, second = conv(3, 8, 3, padding=padding), conv(8, 32, 3, padding=padding)
        layers = [first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(32), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    image = torch.randn(1, 3, 32, 32)
    reports = [pruning.prune(network(*how), image, "l1", macs_ratio=0.5) for how in ((nn.Conv2d, 1), (SamePadding, 0))]
    assert reports[0].report == reports[1].report
    assert reports[0].kept == reports[1].kept
    assert reports[1].report["baseline_macs"] == 2_777_440
    assert reports[1].report["conv_linear_macs"] == counting.profile(reports[1].model, (3, 32, 32)).conv_linear_macs


def test_terms_of_every_kind_are_found():
    """Of four groups one does not matter, two matter together, and one with its square."""

    def missing(removed):
        a, b, d = (removed.get(name, 0) for name in "abd")
        return np.array([5.0 * a + 3 * b - 2 * a * b, 7.0 * d + d * d, a])

    halves, quarters = {"a": 8, "b": 4, "c": 6, "d": 1, "e": 2}, {"a": 4, "b": 2, "c": 3, "d": 1, "e": 1}
    terms = functional._terms(missing, halves, quarters)
    assert set().union(*terms) == {"a", "b", "d"}
    for at in (halves, quarters, {"a": 1, "b": 3, "d": 1}):
        assert np.array_equal(functional._value(terms, at), missing(at))


def test_costs_that_cannot_be_followed_are_said(caplog):
    class Repeated(nn.Conv2d):
        """Convolves once for every four channels that it has."""

        def forward(self, x):
            y = super().forward(x)
            for _ in range(self.out_channels // 4):
                y = torch.maximum(y, super().forward(x))
            return y

    pruning.trace(between(Repeated(8, 8, 1)), torch.randn(1, 3, 6, 6))
    assert caplog.messages == [
        "the costs of a pruned Sequential are not exact: those of its layers do not follow the widths"
    ]


def test_products_of_maps_leave_their_channels_whole_and_so_their_costs(caplog):
    class Steps(nn.Module):
        def forward(self, x):
            flat = x.flatten(2)
            for _ in range(x.shape[1] // 4):
                flat = flat @ (flat.mT @ flat).softmax(-1)
            return flat.reshape(x.shape)

    net = between(Steps())
    graph = pruning.trace(net, torch.randn(1, 3, 6, 6))
    assert caplog.messages == []
    assert graph.fixed["0"] == "passes through 3 (Steps)"
    kept = {name: tuple(range(group.width // 2)) for name, group in graph.groups.items()}
    assert counting.profile(pruning.cut(net, graph, kept)[0], (3, 6, 6)).macs == graph.macs(kept)
