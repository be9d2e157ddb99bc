"""The cost polynomial."""

import numpy as np
import pytest
import torch

from rssearch.pruning.cost_table import CostTable, Count
from tests.support.networks import network, some


def test_products_and_sums():
    table = CostTable.zeros(2)
    a, b = Count(3, np.array([2.0, 0.0])), Count(1, np.array([1.0, 4.0]))
    table.add_product(5, a, b)
    table.add(7, a)
    for n in ((0, 0), (1, 2), (10, 3)):
        in_a, in_b = 3 + 2 * n[0], 1 + n[0] + 4 * n[1]
        assert table(np.array(n, float)) == 5 * in_a * in_b + 7 * in_a


def test_fractions_are_truncated_per_layer():
    table = CostTable.zeros(1)
    table.truncated += [(1.25, 3, Count(0, np.array([1.0]))), (1.25, 1, Count(0, np.array([1.0])))]
    assert table(np.array([1.0])) == 3 + 1
    assert float(table.of_tensor(torch.tensor([1.0]))) == 5.0


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_soft_widths_agree_with_whole_ones_and_have_the_right_gradient(name):
    _, _, graph = network(name)
    table = graph.tables["macs"]
    widths = graph.widths(some(graph))
    soft = torch.tensor(widths, requires_grad=True)
    cost = table.of_tensor(soft)
    cost.backward()
    assert float(cost.detach()) == table(widths) == graph.macs(some(graph))
    for group in (0, 3, len(widths) - 1):
        up, down = widths.copy(), widths.copy()
        up[group] += 1
        down[group] -= 1
        # A central difference of a quadratic is its derivative.
        assert float(soft.grad[group]) == (table(up) - table(down)) / 2


def test_graph_costs_are_much_faster_than_surgery():
    import time

    _, _, graph = network("resnet20")
    kept = some(graph)
    started = time.perf_counter()
    for _ in range(100):
        graph.macs(kept)
    assert (time.perf_counter() - started) / 100 < 0.002
