"""rssearch.cost.latency_table: which layers are timed, and what comes of their times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rssearch import models
from rssearch.cost import latency_table
from rssearch.cost.latency_table import Line, errors, fit, layer_sum, layers, time_layers
from rssearch.errors import InputError


class Twice(nn.Module):
    """Calls one of its layers twice, and an identity."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.skip = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.skip(x))))


CONV = "Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)): 2x4x4 -> 2x4x4"
RELU = "ReLU(): 2x4x4 -> 2x4x4"


def test_layers_are_named_by_configuration_and_shapes_call_by_call() -> None:
    model = Twice().train()
    model.relu.eval()
    assert layers(model, (2, 4, 4)) == [RELU, CONV, RELU]
    assert model.training
    assert not model.relu.training
    assert layers(model, (2, 6, 6)) != layers(model, (2, 4, 4))


class Normed(nn.BatchNorm2d):
    """A normalisation with its activation inside."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


def test_a_layer_that_holds_others_is_one_layer() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)), Normed(2), nn.Sequential(nn.ReLU())
    )
    assert [name.split("(")[0] for name in layers(model, (2, 4, 4))] == ["ParametrizedConv2d", "Normed", "ReLU"]


def test_each_distinct_layer_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[str, tuple[int, ...]]] = []

    def note(layer: nn.Module, x: Tensor) -> float:
        timed.append((type(layer).__name__, tuple(x.shape)))
        return 1.0

    monkeypatch.setattr(latency_table, "_milliseconds", note)
    assert time_layers(Twice(), (2, 4, 4)) == {RELU: 1.0, CONV: 1.0}
    assert timed == [("ReLU", (1, 2, 4, 4)), ("Conv2d", (1, 2, 4, 4))]
    assert time_layers(Twice(), (2, 4, 4), known=[RELU]) == {CONV: 1.0}
    assert time_layers(Twice(), (2, 4, 4), known=[RELU, CONV]) == {}


def test_times_are_positive_and_the_network_stays_as_it_is() -> None:
    model = models.create("resnet20", 10).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    table = time_layers(model, (3, 16, 16))
    assert set(table) == set(layers(model, (3, 16, 16)))
    assert min(table.values()) > 0
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_sum_counts_every_call_and_needs_all_layers() -> None:
    assert layer_sum([RELU, CONV, RELU], {RELU: 0.25, CONV: 2.0}) == 2.5
    assert layer_sum([RELU, CONV], {RELU: 0.25}) is None
    assert layer_sum([], {}) == 0


def test_the_line_goes_through_exact_points_and_weighs_relative_errors() -> None:
    line = fit([1.0, 2.0, 4.0], [2.5, 4.5, 8.5])
    assert line == pytest.approx(Line(2.0, 0.5))
    assert line(3.0) == pytest.approx(6.5)
    # Least squares of the residuals over the measured values, by hand: the points are (1, 1), (2, 4) and (2, 2).
    slope, intercept = fit([1.0, 2.0, 2.0], [1.0, 4.0, 2.0])
    assert slope + intercept == pytest.approx(1.0)
    assert 2 * slope + intercept == pytest.approx((4 / 16 + 2 / 4) / (1 / 16 + 1 / 4))


@pytest.mark.parametrize(("sums", "measured"), [([1.0, 1.0], [1.0, 2.0]), ([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_a_line_needs_two_sums(sums: list[float], measured: list[float]) -> None:
    with pytest.raises(InputError, match="a line needs two networks"):
        fit(sums, measured)


def test_errors() -> None:
    assert errors([1.1, 1.8, 4.0], [1.0, 2.0, 4.0]) == pytest.approx({"mape": 20 / 3, "spearman": 1.0, "kendall": 1.0})
    assert errors([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])["kendall"] == pytest.approx(-1.0)
