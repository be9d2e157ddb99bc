"""The Taylor criterion, against plain backward passes."""

import copy

import pytest
import torch
import torch.nn.functional as F

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.taylor import taylor
from tests.pruning.networks import network


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 32, 32, generator=generator), torch.randint(0, 10, (4,), generator=generator))
        for _ in range(count)
    ]


def test_scores_are_averages_over_batches_of_first_order_changes():
    model, _, graph = network("resnet20")
    expected = torch.zeros(16)
    for x, y in batches():
        twin = copy.deepcopy(model).eval()
        F.cross_entropy(twin(x), y).backward()
        weight = twin.layer1[1].conv1.weight
        expected += (weight * weight.grad).sum((1, 2, 3)).abs().detach() / 2
    assert torch.allclose(taylor(model, graph, batches(), 0)["layer1.1.conv1"], expected, rtol=1e-4)


def test_scores_predict_the_change_of_the_loss():
    model, _, graph = network("resnet20")
    (x, y), model = batches(1)[0], copy.deepcopy(model).double()
    scores = taylor(model, graph, [(x.double(), y)], 0)["layer2.1.conv1"]
    with torch.no_grad():
        before = F.cross_entropy(model(x.double()), y)
        model.layer2[1].conv1.weight[5] *= 1 - 1e-4
        change = (F.cross_entropy(model(x.double()), y) - before).abs()
    assert float(change) == pytest.approx(float(scores[5]) * 1e-4, rel=0.02)


def test_model_is_untouched_and_may_be_frozen():
    model, _, graph = network("resnet20")
    model = copy.deepcopy(model).train().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        taylor(model, graph, batches(), 0)
    assert model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_data_is_needed():
    model, images, _ = network("resnet20")
    with pytest.raises(InputError, match="method 'taylor' needs data"):
        pruning.prune(model, images, "taylor", rate=0.5)
    with pytest.raises(InputError, match="there is not one batch"):
        pruning.prune(model, images, "taylor", rate=0.5, data=[])
