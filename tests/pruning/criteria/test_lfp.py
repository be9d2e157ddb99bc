"""LFP: the closed and the stable form against deletion, for both logarithms."""

import copy

import pytest
import torch

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.lfp import LOGARITHMS, norm_loss, spectral_energy
from tests.pruning.criteria.test_maps import outputs
from tests.support.networks import network

PAPER = {"log1p": lambda f: torch.log(1 + f), "literal_eps": lambda f: 1 + torch.log(f + 1e-12)}
both = pytest.mark.parametrize("log", PAPER)


def naive(maps, log="log1p"):
    """Delete each row in turn. [C, H, W] float64 -> [C]."""
    rows = PAPER[log](torch.fft.fft2(maps).abs()).flatten(1)
    whole = torch.linalg.norm(rows)
    return torch.stack([whole - torch.linalg.norm(rows[torch.arange(len(rows)) != j]) for j in range(len(rows))])


def closed(energy):
    """The paper's form: a difference of two norms. [N, C] -> [N, C]."""
    total = energy.sum(1, keepdim=True)
    return total.sqrt() - (total - energy).sqrt()


def relu_maps(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).relu()


@both
@pytest.mark.parametrize(
    "shape", [(16, 32, 32), (64, 8, 8), (512, 4, 4), (12, 7, 5), (9, 1, 1), (5, 4, 1), (5, 1, 4), (1, 8, 8)]
)
def test_three_forms_agree(shape, log):
    maps = relu_maps(*shape)
    energy, expected = spectral_energy(maps[None], log), naive(maps, log)
    torch.testing.assert_close(norm_loss(energy)[0], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(closed(energy)[0], expected, rtol=1e-9, atol=1e-12)


@both
def test_float32_is_precise_where_the_difference_of_norms_is_not(log):
    energy = spectral_energy(relu_maps(1, 512, 4, 4), log)
    exact = norm_loss(energy)
    error = {form: float((form(energy.float()).double() / exact - 1).abs().max()) for form in (norm_loss, closed)}
    assert error[norm_loss] < 1e-6
    assert error[closed] > 1e-5


@pytest.mark.parametrize("scale", [1e-6, 1, 1e4])
@pytest.mark.parametrize(
    "shape", [(16, 32, 32), (64, 8, 8), (512, 4, 4), (512, 2, 2), (40, 7, 5), (9, 1, 1), (16, 9, 8), (4, 224, 224)]
)
def test_float32_is_precise_from_the_maps_on(shape, scale):
    maps = scale * relu_maps(3, *shape)
    exact, single = norm_loss(spectral_energy(maps)), norm_loss(spectral_energy(maps.float()))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=5e-6, atol=0)


@both
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 7, 5), (5, 1, 4), (1, 1, 1), (2, 16, 4)])
def test_small_maps_have_the_spectra_of_the_fft(shape, log, monkeypatch):
    maps = relu_maps(2, *shape)
    product = spectral_energy(maps, log)
    monkeypatch.setattr("rssearch.pruning.criteria.lfp._SMALL", 0)
    torch.testing.assert_close(product, spectral_energy(maps, log), rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", ["resnet20", "vgg16_cifar"])
def test_ranking_of_a_network_in_float32_is_that_of_float64(name):
    model, images, graph = network(name)
    single = pruning.score(model, graph, "lfp", data=[(images, torch.zeros(2))])
    exact = pruning.score(copy.deepcopy(model).double(), graph, "lfp", data=[(images.double(), torch.zeros(2))])
    for group, scores in exact.items():
        torch.testing.assert_close(single[group], scores, rtol=1e-4, atol=1e-7)  # the maps are in float32, too
        order = single[group].argsort()
        assert bool((scores[order].diff() > -1e-4 * scores.max()).all()), group


def with_dead_maps():
    """Channel 2 is dead; so is all of the second image."""
    maps = torch.randn(2, 4, 8, 8).relu()
    maps[:, 2] = 0
    maps[1] = 0
    return maps


def test_dead_maps_score_zero():
    scores = norm_loss(spectral_energy(with_dead_maps()))
    assert torch.equal(scores[0] == 0, torch.tensor([False, False, True, False]))
    assert torch.equal(scores[1], torch.zeros(4))


def test_dead_maps_are_the_most_important_to_the_literal_logarithm():
    scores = norm_loss(spectral_energy(with_dead_maps(), "literal_eps"))
    assert bool(scores.isfinite().all())
    assert int(scores[0].argmax()) == 2
    assert torch.equal(scores[1], scores[1, :1].expand(4))  # alike


@both
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1, 1e6, 1e12])
def test_scores_are_finite(scale, log):
    scores = norm_loss(spectral_energy(with_dead_maps() * scale, log))
    assert bool(scores.isfinite().all())
    assert bool((scores >= 0).all())


def test_large_batches_are_chunked_without_a_trace(monkeypatch):
    maps = torch.randn(5, 3, 8, 8)
    whole = spectral_energy(maps)
    monkeypatch.setattr("rssearch.pruning.criteria.lfp._CACHED", 4 * 8 * 8)  # maps of two images in one part
    assert torch.allclose(spectral_energy(maps), whole, rtol=1e-6)


@both
def test_scores_of_a_network_are_those_by_deletion(log):
    model, _, graph = network("resnet20")
    batches = [(torch.randn(n, 3, 32, 32), torch.zeros(n, dtype=torch.long)) for n in (3, 2)]
    captured = outputs(model, "layer1.1.relu1", batches)
    expected = torch.stack([torch.stack([naive(m, log) for m in maps.double()]).mean(0) for maps in captured]).mean(0)
    scores = pruning.score(model, graph, "lfp", data=batches, log=log)
    assert torch.allclose(scores["layer1.1.conv1"].double(), expected, rtol=1e-4)


def test_logarithms():
    assert next(iter(LOGARITHMS)) == "log1p"
    model, images, _ = network("resnet20")
    with pytest.raises(InputError, match=r"unknown log of lfp 'log2'.*Known: literal_eps, log1p"):
        pruning.prune(model, images, "lfp", rate=0.5, data=[(images, torch.zeros(2))], log="log2")
