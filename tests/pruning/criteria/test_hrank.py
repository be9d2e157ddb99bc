"""HRank: ranks of maps."""

import pytest
import torch

from rssearch import pruning
from rssearch.pruning.criteria.hrank import ranks
from tests.pruning.criteria.test_maps import outputs
from tests.support.networks import network


def low_rank(rank, height, width):
    """A matrix of whole numbers: the rank does not depend on rounding."""
    matrix = torch.zeros(height, width)
    matrix[torch.arange(rank), torch.arange(rank)] = torch.arange(1.0, rank + 1)
    shuffle = torch.eye(height)[torch.randperm(height)].tril_().fill_diagonal_(1)  # unit triangular: invertible
    return shuffle @ matrix


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 7), (7, 4), (1, 5), (32, 32), (1, 1)])
def test_ranks(height, width):
    expected = list(range(min(height, width) + 1))
    maps = torch.stack([low_rank(rank, height, width) for rank in expected])
    found = ranks(torch.stack([maps, maps.flip(0)]))
    assert found.tolist() == [expected, expected[::-1]]
    assert found.dtype == torch.float32


def test_what_is_below_the_rounding_of_float32_has_no_rank():
    noisy = torch.eye(8, dtype=torch.float64)
    noisy[3:] *= 1e-7  # below 8 * 1.2e-7
    assert ranks(noisy[None, None].float()).item() == 3
    assert ranks(noisy[None, None]).item() == 8
    assert ranks(torch.eye(8, dtype=torch.float16)[None, None] * 1e-3).item() == 8  # the size itself does not matter


def test_scores_of_a_network_are_average_ranks():
    model, images, graph = network("resnet20")
    batches = [(images, torch.zeros(2)), (images.flip(-1), torch.zeros(2))]
    scores = pruning.score(model, graph, "hrank", data=batches)
    maps = torch.cat(outputs(model, "layer1.1.relu1", batches))
    expected = torch.tensor([[int(torch.linalg.matrix_rank(m)) for m in image] for image in maps]).float().mean(0)
    assert torch.equal(scores["layer1.1.conv1"], expected)


def test_linear_layers_are_scored_by_how_often_a_channel_is_active():
    model, images, graph = network("vgg16_cifar")
    scores = pruning.score(model, graph, "hrank", data=[(images, torch.zeros(2))])["classifier.linear1"]
    (units,) = outputs(model, "classifier.relu1", [(images, None)])
    assert torch.equal(scores, (units > 0).float().mean(0))
    assert set(scores.tolist()) == {0, 0.5, 1}
