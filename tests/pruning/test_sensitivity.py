"""Sensitivities: what is measured, curves without noise, and widths at a budget."""

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError, TrialFailed
from rssearch.pruning.picture import draw_sensitivities, sensitivities_png
from rssearch.pruning.sensitivity import Sensitivity, from_json, narrowed, to_json
from rssearch.train.loop import recalibrate_on
from tests.support.networks import network


def curves_of(graph, seed=0):
    rng = np.random.default_rng(seed)
    curves = {}
    for name, group in graph.groups.items():
        widths = sorted({max(1, round(group.width * share)) for share in (0.1, 0.25, 0.5, 0.75, 1)})
        heights = rng.uniform(0.2, 3) * np.exp(-rng.uniform(2, 8) * np.array(widths) / group.width)
        heights[-1] = 0
        curves[name] = Sensitivity(tuple(widths), tuple(heights.tolist()))
    return curves


def scores_of(graph, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(group.width, generator=generator) for name, group in graph.groups.items()}


def allocate(graph, curves, ratio, **options):
    return pruning.allocate(
        graph, scores_of(graph), allocation="sensitivity", macs_ratio=ratio, sensitivities=curves, **options
    )


def test_curves_have_no_noise_and_are_linear_between_what_was_measured():
    curve = Sensitivity((2, 4, 6, 8, 10), (3.0, 0.5, 1.5, -0.2, 0.0))
    assert curve.monotone().tolist() == [3.0, 1.0, 1.0, 0.0, 0.0]  # 0.5 and 1.5 are out of order: their mean
    assert curve.at(np.array([1, 2, 3, 5, 7, 9, 10])).tolist() == [np.inf, 3.0, 2.0, 1.0, 0.5, 0.0, 0.0]


def test_a_whole_group_costs_nothing_whatever_its_last_measurement_says():
    assert Sensitivity((1, 2), (-1.0, 0.0)).monotone().tolist() == [0.0, 0.0]


def test_json_gives_the_curves_back():
    curves = {"a": Sensitivity((1, 2, 4), (0.3, 0.1, 0.0))}
    assert from_json(to_json(curves)) == curves


def two_layers():
    """Two channels between two linear layers: x0 * 3 and x1, of which the second layer tells the difference."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1))
        model[3].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    return model.eval()


def test_a_group_is_cut_alone_recalibrated_and_measured_apart():
    model = two_layers()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = pruning.trace(model, torch.zeros(1, 2, 1, 1))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(8, 2, 1, 1, generator=generator), torch.arange(8) % 2) for _ in range(4)]
    curves = pruning.measure_sensitivities(model, graph, {"0": torch.tensor([1.0, 2.0])}, batches[:2], batches[2:])

    def loss(gates):
        x = torch.cat([b[0] for b in batches[:2]])[:, :, 0, 0] * torch.tensor([3.0, 1.0])
        mean = torch.stack([x[:8].mean(0), x[8:].mean(0)]).mean(0)
        variance = torch.stack([x[:8].var(0), x[8:].var(0)]).mean(0)
        y = torch.cat([b[0] for b in batches[2:]])[:, :, 0, 0] * torch.tensor([3.0, 1.0])
        logits = (y - mean) / (variance + 1e-5).sqrt() * torch.tensor(gates) * torch.tensor([1.0, 2.0])
        return nn.functional.cross_entropy(logits, torch.arange(16) % 2).item()

    assert curves["0"].widths == (1, 2)  # all shares of two channels are one or both
    assert curves["0"].increases == pytest.approx((loss([0.0, 1.0]) - loss([1.0, 1.0]), 0.0), abs=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_measured_is_what_the_pruned_network_loses():
    model, images, graph = network("resnet20")
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randn(4, *images.shape[1:], generator=generator), torch.arange(4)) for _ in range(2)]
    scores = {name: value for name, value in scores_of(graph).items() if name in {"conv1", "layer2.0.conv1"}}
    curves = pruning.measure_sensitivities(model, graph, scores, batches[:1], batches[1:])
    assert list(curves) == list(scores)
    assert curves["conv1"].widths == (2, 3, 4, 6, 8, 12, 16)

    def loss(kept):
        smaller, _ = pruning.cut(model, graph, kept)
        recalibrate_on(smaller, batches[:1], device=torch.device("cpu"))
        with torch.no_grad():
            return nn.functional.cross_entropy(smaller.eval()(batches[1][0]), batches[1][1]).item()

    best = scores["layer2.0.conv1"].topk(16).indices.sort().values.tolist()
    assert curves["layer2.0.conv1"].widths[4] == 16
    assert curves["layer2.0.conv1"].increases[4] == pytest.approx(loss({"layer2.0.conv1": best}) - loss({}), abs=1e-5)


def test_no_batches_and_a_loss_that_is_not_finite_are_refused():
    model = two_layers()
    graph = pruning.trace(model, torch.zeros(1, 2, 1, 1))
    scores, batch = {"0": torch.ones(2)}, (torch.ones(2, 2, 1, 1), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="need batches"):
        pruning.measure_sensitivities(model, graph, scores, [batch], [])
    with pytest.raises(TrialFailed, match="the loss is nan with 2 of 2 channels of '0'"):
        pruning.measure_sensitivities(
            model, graph, scores, [batch], [batch], label_loss=lambda logits, _: logits.sum() * float("nan")
        )


@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.25, 0.1])
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "unet"])
def test_budgets_are_met_from_below(name, ratio):
    _, _, graph = network(name)
    kept = allocate(graph, curves_of(graph), ratio)
    assert 0.99 * ratio <= graph.macs(kept) / graph.macs() <= ratio


def test_what_costs_no_loss_is_still_filled_up_to_the_budget():
    _, _, graph = network("resnet20")
    flat = {name: Sensitivity((1, group.width), (0.0, 0.0)) for name, group in graph.groups.items()}
    kept = allocate(graph, flat, 0.6)
    assert graph.macs(kept) / graph.macs() == pytest.approx(0.6, rel=0.01)
    shares = [len(channels) / graph.groups[name].width for name, channels in kept.items()]
    assert min(shares) > 0.4  # evenly: not one group down to a channel


def test_the_group_that_costs_most_loss_is_spared_and_the_best_channels_stay():
    _, _, graph = network("resnet20")
    curves = {name: Sensitivity((2, g.width), (1.0, 0.0)) for name, g in graph.groups.items()}
    curves["layer1.1.conv1"] = Sensitivity((2, 16), (1000.0, 0.0))
    kept = allocate(graph, curves, 0.4)
    assert len(kept["layer1.1.conv1"]) == 16
    for name, channels in kept.items():
        assert set(channels) == set(scores_of(graph)[name].topk(len(channels)).indices.tolist())


def test_rounding_floors_and_groups_without_curves():
    _, _, graph = network("resnet20")
    curves = curves_of(graph)
    kept = allocate(graph, curves, 0.4, round_to=4)
    assert all(len(channels) % 4 == 0 for channels in kept.values())
    assert min(len(channels) for channels in allocate(graph, curves, 0.3, min_channels=5).values()) >= 5
    del curves["conv1"]
    assert len(allocate(graph, curves, 0.4)["conv1"]) == 16
    _, least = narrowed(graph, curves, np.ones(len(graph.groups), np.int64), 1, 0.5 * graph.macs())
    assert least[1:].tolist() == [curve.widths[0] for curve in curves.values()]  # nothing below what was measured


def test_no_other_widths_of_a_network_have_less_total_increase_at_the_budget():
    _, _, graph = network("resnet20")
    curves = curves_of(graph, 3)
    kept = allocate(graph, curves, 0.5)
    total = sum(float(curves[name].at(np.array([len(c)]))[0]) for name, c in kept.items())
    rng = np.random.default_rng(0)
    for _ in range(200):
        ranks = {
            name: torch.from_numpy(rng.uniform(size=g.width) * rng.uniform(0.3, 1)) for name, g in graph.groups.items()
        }
        other = pruning.allocate(graph, ranks, allocation="global", macs_ratio=0.5)
        found = [
            float(curves[name].at(np.array([max(len(c), curves[name].widths[0])]))[0]) for name, c in other.items()
        ]
        assert sum(found) > total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.5}, "'sensitivity' needs macs_ratio"),
        ({"rates": {"conv1": 0.5}}, "go with allocation 'uniform'"),
        ({"macs_ratio": 0.5}, "needs sensitivities"),
        (
            {"macs_ratio": 0.001, "sensitivities": "own"},
            r"macs_ratio 0.001 cannot be met within 1%: the nearest is 0\.0",
        ),
        ({"macs_ratio": 0.5, "sensitivities": {"conv1": Sensitivity((1, 8), (1.0, 0.0))}}, "is of 8"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    _, _, graph = network("resnet20")
    if options.get("sensitivities") == "own":
        options = options | {"sensitivities": curves_of(graph)}
    with pytest.raises(InputError, match=message):
        pruning.allocate(graph, scores_of(graph), allocation="sensitivity", **options)


def three_layers():
    torch.manual_seed(0)
    layers = []
    for before, width in ((3, 40), (40, 60), (60, 40)):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 4)).eval()


def test_a_budget_between_coarse_steps_is_met_from_above():
    model = nn.Sequential(nn.Conv2d(3, 20, 1, bias=False), nn.Conv2d(20, 4, 1, bias=False))
    graph = pruning.trace(model.eval(), torch.zeros(1, 3, 4, 4))
    kept = allocate(graph, {"0": Sensitivity((2, 20), (1.0, 0.0))}, 0.497)  # a step is 0.05: 9 are far, 10 are near
    assert len(kept["0"]) == 10


def test_pruning_in_one_call_and_in_steps():
    model, images = three_layers(), torch.randn(2, 3, 8, 8)
    graph = pruning.trace(model, images)
    batches = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(2)]
    how = {"macs_ratio": 0.5, "allocation": "sensitivity"}
    pruned = pruning.prune(model, images, "l1", data=iter(batches), **how)
    scores = pruning.score(model, graph, "l1")
    curves = pruning.measure_sensitivities(model, graph, scores, batches[:1], batches[1:])
    assert pruned.kept == pruning.allocate(graph, scores, sensitivities=curves, **how)
    stepped = pruning.prune(model, images, "l1", data=iter(batches), steps=2, **how)
    assert stepped.report["macs_ratio"] == pytest.approx(0.5, rel=0.01)
    assert stepped.kept != pruned.kept  # the second step was measured on the network of the first


@pytest.mark.parametrize(("method", "data", "message"), [("l1", 1, "two batches"), ("compound", 2, "several criteria")])
def test_pruning_refuses_too_little_data_and_several_criteria(method, data, message):
    model, images, _ = network("resnet20")
    batches = [(images, torch.arange(2))] * data
    with pytest.raises(InputError, match=message):
        pruning.prune(model, images, method, macs_ratio=0.5, allocation="sensitivity", data=batches)


def test_the_picture_has_a_line_for_each_group_and_a_ring_where_it_is_cut():
    curves = {"a": Sensitivity((1, 2, 4), (0.3, 0.1, 0.0)), "b": Sensitivity((1, 4), (2.0, 0.0))}
    figure = draw_sensitivities(curves, {"a": (0, 2)})
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines if not line.get_label().startswith("_")] == ["a (4)", "b (4)"]
    rings = [line.get_xydata().tolist() for line in lines if line.get_marker() == "o"]
    assert rings == [[[0.5, 0.1]]]
    assert sensitivities_png(curves).startswith(b"\x89PNG")
