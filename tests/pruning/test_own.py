"""User-defined pruning methods, by import strings."""

from __future__ import annotations

import pytest
import torch

from rssearch import models, pruning
from rssearch.errors import InputError

IMAGE = torch.zeros(1, 3, 32, 32)


def test_a_criterion_alone_is_a_method() -> None:
    method = pruning.get_method("tests.support.own:spread")
    assert (method.name, method.summary) == ("tests.support.own:spread", "Smallest standard deviation of the filter.")
    assert (method.allocation, method.needs_data, method.options) == ("uniform", True, {})
    torch.manual_seed(0)
    model = models.create("resnet20", 4)
    pruned = pruning.prune(model, IMAGE, "tests.support.own:spread", rate=0.5)
    deviations = model.get_parameter("layer1.0.conv1.weight").detach().flatten(1).std(dim=1)
    (kept,) = [channels for group, channels in pruned.kept.items() if group == "layer1.0.conv1"]
    assert kept == tuple(sorted(deviations.topk(8).indices.tolist()))
    assert pruned.report["method"] == "tests.support.own:spread"


def test_a_method_brings_its_recipe_and_options() -> None:
    method = pruning.get_method("tests.support.own:SPARSE")
    assert (method.name, method.allocation, method.train) == (
        "tests.support.own:SPARSE",
        "global_mean",
        {"bn_l1": 1e-4},
    )
    model = models.create("resnet20", 4)
    graph = pruning.trace(model, IMAGE)
    squares = pruning.score(model, graph, "tests.support.own:SPARSE")
    roots = pruning.score(model, graph, "tests.support.own:SPARSE", exponent="0.5")
    assert squares.keys() == roots.keys() == graph.groups.keys()
    assert not any(torch.equal(squares[name], roots[name]) for name in squares)
    with pytest.raises(InputError, match=r"^unknown exponent of tests.support.own:SPARSE '3'"):
        pruning.score(model, graph, "tests.support.own:SPARSE", exponent="3")


def test_what_scores_nothing_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^tests.support.own:NUMBER: is neither a function that scores channels nor"):
        pruning.get_method("tests.support.own:NUMBER")
    with pytest.raises(InputError, match=r"^unknown method 'l3'\. Known: "):
        pruning.get_method("l3")


def test_only_code_of_ones_own_is_part_of_what_names_results() -> None:
    assert pruning.code_of("l1") is None
    assert len(pruning.code_of("tests.support.own:spread") or "") == 64
