"""Slimmable training: what its structures are, what its loss is, and that subnets are the cut network."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rssearch import models, pruning
from rssearch.config.settings import Recipe, Slimmable
from rssearch.nas.slimmable import Sandwich, orders_of
from rssearch.nas.structures import Judged, best_at, first_structures, search_structures
from rssearch.nas.widths import WidthSpace
from rssearch.pruning import ChannelGraph
from rssearch.pruning.subnets import Subnets
from rssearch.train import losses

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return models.create("resnet20", 4, input_size=16)


@pytest.fixture(scope="module")
def graph(network: nn.Module) -> ChannelGraph:
    return pruning.trace(network, torch.zeros(1, *SHAPE))


@pytest.fixture(scope="module")
def space(graph: ChannelGraph) -> WidthSpace:
    return WidthSpace.of(graph, floor=0.1)


@pytest.fixture(scope="module")
def orders(network: nn.Module, graph: ChannelGraph) -> dict[str, list[int]]:
    return orders_of(pruning.score(network, graph, "l2"))


def test_the_order_is_by_score_and_then_by_index() -> None:
    assert orders_of({"a": torch.tensor([1.0, 3.0, 2.0, 3.0])}) == {"a": [1, 3, 2, 0]}


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_structure_is_drawn_at_its_budget(space: WidthSpace, spread: float) -> None:
    rng = np.random.default_rng(0)
    for ratio in (0.1, 0.4, 0.9, 1.0):
        widths = space.draw(ratio, spread, rng)
        assert space.ratio(widths) == pytest.approx(ratio, rel=0.01)
        assert (widths >= space.floors).all()
        assert (widths <= space.full).all()
    assert (space.draw(0.4, 0.0, rng) == space.fitted(np.ones(len(space.floors)), 0.4)).all()


def test_structures_keep_to_their_limits(graph: ChannelGraph) -> None:
    full = graph.widths()
    assert WidthSpace.of(graph, floor=0.1).floors.min() == 2  # a tenth of 16, rounded up
    assert (WidthSpace.of(graph, floor=0.0, min_channels=100).floors == full).all()
    assert (WidthSpace.of(graph, floor=0.0, keep={"conv1": 0.5}).floors[:2] == [8, 1]).all()
    inner = np.array([group.is_inner for group in graph.groups.values()])
    assert (WidthSpace.of(graph, floor=0.0, groups="inner").floors == np.where(inner, 1, full)).all()
    eights = WidthSpace.of(graph, floor=0.1, round_to=8)
    widths = eights.draw(0.5, 0.3, np.random.default_rng(0))
    assert (widths % 8 == 0).all()


def test_a_subnet_is_the_cut_network_and_its_gradients_reach_the_wide_one(
    network: nn.Module, space: WidthSpace, orders: dict[str, list[int]]
) -> None:
    model, graph = copy.deepcopy(network), space.graph
    kept = space.kept(orders, space.draw(0.3, 0.5, np.random.default_rng(1)))
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    cut, spec = pruning.cut(model, graph, kept)
    subnets = Subnets(model, graph)
    subnets(space.kept(orders, space.floors), images)  # the one after it starts from the whole again
    found = subnets(kept, images)
    assert torch.equal(found, cut.train()(images))
    torch.testing.assert_close(found, pruning.masked(model, graph, kept).train()(images), rtol=0, atol=1e-5)
    assert torch.equal(subnets({}, images), copy.deepcopy(model).train()(images))

    subnets(kept, images).square().sum().backward()
    cut.train()(images).square().sum().backward()
    for name, layer in cut.named_modules():
        for kind, of_cut in layer.named_parameters(recurse=False):
            whole = model.get_submodule(name).get_parameter(kind).grad
            assert whole is not None
            assert of_cut.grad is not None
            for side, axis in pruning_axes(model.get_submodule(name), kind):
                channels = torch.tensor(spec["layers"].get(name, {}).get(side, range(whole.shape[axis])))
                others = torch.ones(whole.shape[axis], dtype=torch.bool)
                others[channels] = False
                assert not whole.index_select(axis, others.nonzero().ravel()).any()
                whole = whole.index_select(axis, channels)
            torch.testing.assert_close(whole, of_cut.grad)


def pruning_axes(layer: nn.Module, kind: str) -> list[tuple[str, int]]:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return [("out", 0), ("in", 1)] if kind == "weight" else [("out", 0)]
    return [("both", 0)]


def test_subnets_leave_the_running_statistics_of_the_wide_network(
    network: nn.Module, space: WidthSpace, orders: dict[str, list[int]]
) -> None:
    model = copy.deepcopy(network).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    Subnets(model, space.graph)(space.kept(orders, space.floors), torch.randn(4, *SHAPE))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_the_loss_is_the_sum_over_the_structures(
    network: nn.Module, space: WidthSpace, orders: dict[str, list[int]]
) -> None:
    model, teacher = copy.deepcopy(network).train(), copy.deepcopy(network).eval()
    settings, recipe = Slimmable(form="sandwich", structures=2), Recipe(distill=0.75, temperature=2.0)
    sandwich = Sandwich(space, orders, settings, seed=3)
    sandwich.attach(model)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, *SHAPE, generator=generator), torch.randint(4, (6,), generator=generator)
    label_loss = losses.cross_entropy
    loss = sandwich.at(5)(model, teacher, recipe, label_loss, 0.5, x, y)

    expected = torch.zeros(())
    structures = sandwich.structures(5)
    assert len(structures) == 3
    assert space.ratio(structures[0]) == pytest.approx(0.1, rel=0.01)
    for widths in structures:
        cut, _ = pruning.cut(model, space.graph, space.kept(orders, widths))
        logits: Tensor = cut.train()(x)
        expected += 0.75 * losses.distillation(logits, teacher(x), 2.0, y) + 0.25 * label_loss(logits, y)
    torch.testing.assert_close(loss, 0.5 * expected, rtol=1e-5, atol=1e-6)


def test_structures_depend_on_seed_and_step_alone(space: WidthSpace, orders: dict[str, list[int]]) -> None:
    first, second = (Sandwich(space, orders, Slimmable(), seed=1) for _ in range(2))
    second.structures(0)
    assert all((a == b).all() for a, b in zip(first.structures(7), second.structures(7), strict=True))
    assert any((a != b).any() for a, b in zip(first.structures(7), first.structures(8), strict=True))


def toy_loss(matters: int, full: np.ndarray, widths: np.ndarray) -> float:
    """One group decides alone: each of its channels that goes costs 1, others nothing."""
    return float(full[matters] - widths[matters])


def test_the_search_finds_what_matters(space: WidthSpace) -> None:
    budgets = (0.1, 1.0)
    first = first_structures(space, budgets, 8, 0.3, 0)
    seen: list[Judged] = []
    judge = partial(toy_loss, 3, space.full)
    judged = search_structures(
        space, judge, first, budgets=budgets, population=16, generations=12, seed=0, on_judged=seen.append
    )
    assert judged == seen
    assert len({one.widths for one in judged}) == len(judged)
    assert all(one.macs_ratio == space.ratio(np.array(one.widths)) for one in judged)
    uniform = space.fitted(np.ones(len(space.floors)), 0.25)
    found = best_at(space, judged, 0.25, 3)
    assert len(found) == 3
    assert all(space.ratio(widths) == pytest.approx(0.25, rel=0.01) for widths in found)
    assert judge(found[0]) < 0.5 * judge(uniform)
    again = search_structures(space, judge, first, budgets=budgets, population=16, generations=12, seed=0)
    assert again == judged


def test_the_search_stays_between_its_budgets(space: WidthSpace) -> None:
    judge = partial(toy_loss, 0, space.full)
    for budgets in ((0.2, 0.8), (0.3, 0.3)):
        first = first_structures(space, budgets, 6, 0.3, 0)
        judged = search_structures(space, judge, first, budgets=budgets, population=8, generations=2, seed=1)
        assert 8 <= len(judged) <= 6 + 2 * 8
        assert all(budgets[0] * 0.99 <= one.macs_ratio <= budgets[1] * 1.01 for one in judged)
