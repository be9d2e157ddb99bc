"""LFP: the closed form against deletion, and which maps are read."""

import copy

import pytest
import torch

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.lfp import find_maps, lfp, norm_loss, spectral_energy
from tests.pruning.networks import network


def naive(maps):
    """Delete each row in turn. [C, H, W] float64 -> [C]."""
    rows = torch.log1p(torch.fft.fft2(maps).abs()).flatten(1)
    whole = torch.linalg.norm(rows)
    return torch.stack([whole - torch.linalg.norm(rows[torch.arange(len(rows)) != j]) for j in range(len(rows))])


@pytest.mark.parametrize("shape", [(16, 32, 32), (64, 8, 8), (12, 7, 5), (9, 1, 1), (5, 4, 1), (5, 1, 4)])
def test_closed_form_is_the_loss_by_deletion(shape):
    maps = torch.randn(*shape, dtype=torch.float64).relu()
    found = norm_loss(spectral_energy(maps[None]))[0]
    assert torch.allclose(found, naive(maps), rtol=1e-9, atol=1e-12)


def test_float32_is_precise_where_the_difference_of_norms_is_not():
    maps = torch.randn(1, 512, 4, 4, dtype=torch.float64).relu()
    exact, single = norm_loss(spectral_energy(maps)), norm_loss(spectral_energy(maps.float()))
    assert float((single.double() / exact - 1).abs().max()) < 5e-6


def test_dead_maps_score_zero():
    maps = torch.randn(2, 4, 8, 8).relu()
    maps[:, 2] = 0
    maps[1] = 0
    scores = norm_loss(spectral_energy(maps))
    assert torch.equal(scores[0] == 0, torch.tensor([False, False, True, False]))
    assert torch.equal(scores[1], torch.zeros(4))


def test_large_batches_are_chunked_without_a_trace(monkeypatch):
    maps = torch.randn(5, 3, 8, 8)
    whole = spectral_energy(maps)
    monkeypatch.setattr("rssearch.pruning.criteria.lfp._CHUNK", 2 * 3 * 8 * 8)
    assert torch.allclose(spectral_energy(maps), whole, rtol=1e-6)


def places(name, **options):
    model, images, graph = network(name, **options)
    twin = copy.deepcopy(model).requires_grad_(True)
    by_group = {group: set() for group in graph.groups}
    for place, readout in find_maps(twin, graph, images[:1]).items():
        for group in readout:
            by_group[group].add(place)
    return by_group


def test_maps_of_cifar_resnets_are_those_behind_the_relus():
    found = places("resnet20")
    assert found["conv1"] == {("relu", 0, "output")}
    assert found["layer2.1.conv1"] == {("layer2.1.relu1", 0, "output")}
    assert found["layer2.0.conv2"] == {(f"layer2.{block}.relu2", 0, "output") for block in range(3)}
    assert found["layer3.0.conv2"] == {(f"layer3.{block}.relu2", 0, "output") for block in range(3)}


def test_maps_of_vgg_are_taken_before_pooling():
    found = places("vgg16_cifar")
    assert all(found[f"features.conv{i}"] == {(f"features.relu{i}", 0, "output")} for i in range(1, 14))
    assert found["classifier.linear1"] == {("classifier.relu1", 0, "output")}


def test_maps_of_the_stem_of_resnet50_are_taken_behind_its_pooling():
    found = places("resnet50")
    assert found["conv1"] == {("layer1.0.conv1", 0, "input")}  # what max-pooling gives to both branches
    # The blocks of torchvision call one ReLU three times: behind bn1, bn2, and the addition.
    assert found["layer1.1.conv1"] == {("layer1.1.relu", 0, "output")}
    assert found["layer1.1.conv2"] == {("layer1.1.relu", 1, "output")}
    assert found["layer1.0.conv3"] == {(f"layer1.{block}.relu", 2, "output") for block in range(3)}


def test_scores_of_a_layer_are_averages_over_images_then_batches():
    model, _, graph = network("resnet20")
    batches = [(torch.randn(n, 3, 32, 32), torch.zeros(n, dtype=torch.long)) for n in (3, 2)]
    captured = []
    hook = model.layer1[1].relu1.register_forward_hook(lambda _, __, out: captured.append(out.detach().double()))
    for x, _ in batches:
        model(x)
    hook.remove()
    expected = torch.stack([torch.stack([naive(m) for m in maps]).mean(0) for maps in captured]).mean(0)
    assert torch.allclose(lfp(model, graph, batches, 0)["layer1.1.conv1"].double(), expected, rtol=1e-4)


def test_flattened_maps_are_scored_as_maps():
    model, images, graph = network("vgg16_cifar", size=64, input_size=64)
    captured = []
    hook = model.features.relu13.register_forward_hook(lambda _, __, out: captured.append(out.detach().double()))
    model(images)
    hook.remove()
    expected = torch.stack([naive(maps) for maps in captured[0]]).mean(0)
    scores = lfp(model, graph, [(images, torch.zeros(2))], 0)
    assert torch.allclose(scores["features.conv13"].double(), expected, rtol=1e-4)


def test_model_is_untouched():
    model, _, graph = network("resnet20")
    model = copy.deepcopy(model).train()
    before = copy.deepcopy(model.state_dict())
    lfp(model, graph, [(torch.randn(2, 3, 32, 32), torch.zeros(2))], 0)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_data_is_needed():
    model, images, _ = network("resnet20")
    with pytest.raises(InputError, match="method 'lfp' needs data"):
        pruning.prune(model, images, "lfp", rate=0.5)
