"""rssearch.models.initialisation: a cut network begins as one that was designed with its widths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rssearch import models, pruning
from rssearch.models.initialisation import initialise, names_of, recorded

KAIMING = nn.init.kaiming_normal_


class Designed(nn.Module):
    """Kaiming by the fan-out, zeros for a scale, a default bias, and a parameter that is made by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, bias=False)
        self.fc = nn.Linear(width, 4)
        self.gain = nn.Parameter(torch.full((1,), 0.5))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight.data, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(torch.relu(self.bn(self.conv1(x))))
        return self.gain * self.fc(y.mean((2, 3)))


def narrow(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    with recorded() as calls:
        model = Designed(width)
    names = names_of(model)
    graph = pruning.trace(model, torch.zeros(1, 3, 8, 8))
    half = {name: tuple(range(1, group.width, 2)) for name, group in graph.groups.items()}
    cut = pruning.apply_spec(model, pruning.make_spec(graph, half))
    initialise(cut, calls, names, seed)
    return cut


@pytest.mark.parametrize("seed", [0, 7])
def test_it_is_the_network_that_the_constructor_would_make_with_these_widths(seed: int) -> None:
    found = narrow(16, seed).state_dict()
    torch.manual_seed(seed)
    expected = Designed(8).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_random_numbers_of_others_stay_and_so_does_torch() -> None:
    torch.manual_seed(3)
    model = Designed(4)
    before = torch.get_rng_state()
    initialise(model, [], names_of(model), 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert nn.init.kaiming_normal_ is KAIMING
    with pytest.raises(ZeroDivisionError), recorded():
        raise ZeroDivisionError
    assert nn.init.kaiming_normal_ is KAIMING


@pytest.mark.parametrize(("name", "mode"), [("resnet20", "out"), ("resnet18", "out"), ("unet", "in")])
def test_networks_keep_their_kind_of_initialisation_at_the_new_fan(name: str, mode: str) -> None:
    torch.manual_seed(0)
    with recorded() as calls:
        model = models.create(name, 5)
    names, graph = names_of(model), pruning.trace(model, torch.zeros(1, 3, 64, 64))
    kept = pruning.allocate(graph, pruning.score(model, graph, "l1"), allocation="uniform", rate=0.5)
    cut = pruning.apply_spec(model, pruning.make_spec(graph, kept))
    initialise(cut, calls, names, 0)
    convolutions = [m for m in cut.modules() if type(m) is nn.Conv2d and m.weight.numel() > 5_000]
    assert convolutions
    for conv in convolutions:
        fan = conv.weight[0, 0].numel() * (conv.out_channels if mode == "out" else conv.in_channels)
        assert conv.weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.05)
