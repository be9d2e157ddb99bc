"""CHIP: the nuclear norm without each row, against deletion."""

import pytest
import torch

from rssearch import pruning
from rssearch.pruning.criteria.chip import nuclear_norm_loss
from tests.pruning.criteria.test_maps import outputs
from tests.support.networks import network


def naive(matrix):
    """Set each row to zero in turn. [C, n] float64 -> [C]."""
    rows = torch.arange(len(matrix))[:, None]
    without = torch.stack([matrix.where(rows != j, 0) for j in range(len(matrix))])
    return torch.linalg.matrix_norm(matrix, "nuc") - torch.linalg.matrix_norm(without, "nuc")


def relu_rows(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).relu()


SHAPES = [(16, 1024), (32, 256), (64, 64), (128, 16), (100, 49), (200, 4), (40, 1), (1, 16), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_integral_is_the_loss_by_deletion(shape):
    matrix = relu_rows(*shape)
    torch.testing.assert_close(nuclear_norm_loss(matrix[None])[0], naive(matrix), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 30), (60, 30), (30, 30)])
@pytest.mark.parametrize("rank", [1, 4, 29])
def test_matrices_that_lack_rank(shape, rank):
    rank = min(rank, shape[0] - 1)
    matrix = relu_rows(shape[0], rank) @ relu_rows(rank, shape[1])
    expected = naive(matrix)
    found = nuclear_norm_loss(matrix[None])[0]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7 * float(torch.linalg.matrix_norm(matrix, 2)))


@pytest.mark.parametrize("shape", [(41, 40), (40, 41), (40, 40)])
def test_ill_conditioned_matrices(shape):
    left, _, right = torch.linalg.svd(relu_rows(*shape), full_matrices=False)
    matrix = (left * torch.logspace(0, -6, 40, dtype=torch.float64)) @ right
    torch.testing.assert_close(nuclear_norm_loss(matrix[None])[0], naive(matrix), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_dead_equal_and_weak_rows(shape):
    matrix = relu_rows(*shape)
    matrix[3] = 0
    matrix[8] = matrix[7]
    matrix[9] *= 1e-4
    found = nuclear_norm_loss(matrix[None])[0]
    torch.testing.assert_close(found, naive(matrix), rtol=1e-6, atol=1e-7)
    assert found[3] == 0
    assert 0 < found[9] < 1e-3
    assert bool((found >= 0).all())


def test_orthogonal_rows_lose_their_own_norms():
    norms = torch.tensor([3.0, 0.0, 1.0, 1e-3])
    rows = torch.diag(norms)[:, torch.tensor([2, 0, 3, 1])]
    torch.testing.assert_close(nuclear_norm_loss(rows[None])[0], norms.double(), rtol=1e-6, atol=0)


def test_rows_that_say_the_same_share_their_norm():
    """k equal rows of norm 1 have the nuclear norm sqrt(k)."""
    rows = torch.zeros(9, 5)
    rows[:, 2] = 1
    expected = torch.full((1, 9), 3 - 8**0.5, dtype=torch.float64)
    torch.testing.assert_close(nuclear_norm_loss(rows[None]), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_size_does_not_matter(scale):
    matrices = torch.stack([relu_rows(6, 9).float(), torch.zeros(6, 9)])
    found = nuclear_norm_loss(matrices * scale)
    torch.testing.assert_close(found / scale, nuclear_norm_loss(matrices), rtol=1e-5, atol=1e-6)
    assert torch.equal(found[1], torch.zeros(6).double())


def test_large_batches_are_chunked_without_a_trace(monkeypatch):
    matrices = relu_rows(5, 6, 9)
    whole = nuclear_norm_loss(matrices)
    monkeypatch.setattr("rssearch.pruning.criteria.chip._CHUNK", 2 * 6 * (9 + 121))
    torch.testing.assert_close(nuclear_norm_loss(matrices), whole, rtol=1e-12, atol=0)


def test_scores_of_a_network_are_those_by_deletion():
    model, images, graph = network("resnet20")
    batches = [(images, torch.zeros(2)), (images.flip(-1), torch.zeros(2))]
    scores = pruning.score(model, graph, "chip", data=batches)
    for group, layer in (("layer1.1.conv1", "layer1.1.relu1"), ("layer3.1.conv1", "layer3.1.relu1")):
        maps = torch.cat(outputs(model, layer, batches)).flatten(2).double()
        expected = torch.stack([naive(image) for image in maps]).mean(0)
        torch.testing.assert_close(scores[group].double(), expected, rtol=1e-5, atol=1e-6)
