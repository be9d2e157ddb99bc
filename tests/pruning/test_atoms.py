"""Channels that must go together are the connected components of a graph."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rssearch.pruning.atoms import _connected


@given(st.data())
def test_components_are_those_of_scipy_in_the_same_order(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 60))
    number = st.integers(0, total - 1)
    edges = np.array(data.draw(st.lists(st.tuples(number, number), max_size=80)), np.int64).reshape(-1, 2)
    cut = data.draw(st.integers(0, len(edges)))
    links = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(total, total))
    found = _connected([(part[:, 0], part[:, 1]) for part in (edges[:cut], edges[cut:])], total)
    assert np.array_equal(found, connected_components(links, directed=False)[1])


def test_a_long_chain_is_one_component_and_what_has_no_edge_is_alone() -> None:
    order = np.random.default_rng(0).permutation(5000)
    assert _connected([(order[:-1], order[1:])], 5000).max() == 0
    assert _connected([], 3).tolist() == [0, 1, 2]
