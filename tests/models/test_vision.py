"""torchvision's networks, adapted. Weights are faked: there is no network in the tests."""

import pytest
import torch
import torchvision

from rssearch.errors import InputError
from rssearch.models import vision


@pytest.fixture
def trained(monkeypatch):
    """Networks of 1000 classes whose "trained" weights are a seeded initialisation."""
    original = torchvision.models.get_model

    def get_model(name, weights=None, progress=True, **options):
        torch.manual_seed(7)
        return original(name, weights=None, **options)

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    return lambda name: get_model(name, weights="IMAGENET1K_V1")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_weights_are_kept_but_for_the_head(trained, name):
    reference, model = trained(name).state_dict(), vision.build(name, 5, weights="IMAGENET1K_V1").state_dict()
    changed = [key for key in reference if reference[key].shape != model[key].shape]
    assert {key.rsplit(".", 1)[0] for key in changed} == {
        {"resnet18": "fc", "mobilenet_v2": "classifier.1", "squeezenet1_1": "classifier.1"}[name]
    }
    assert all(model[key].shape[0] == 5 for key in changed)
    assert all(torch.equal(reference[key], model[key]) for key in reference if key not in changed)


def test_trained_first_convolution_takes_other_bands(trained):
    old = trained("resnet18").conv1.weight
    new = vision.build("resnet18", 5, in_channels=4, weights="IMAGENET1K_V1").conv1.weight
    assert new.shape == (64, 4, 7, 7)
    assert torch.allclose(new, old[:, [0, 1, 2, 0]] * 0.75)


def test_unknown_weights_name_the_known_ones():
    with pytest.raises(InputError, match=r"unknown weights of resnet50 'V3'.*IMAGENET1K_V1, IMAGENET1K_V2"):
        vision.build("resnet50", 5, weights="V3")


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_weights_that_cannot_be_fetched(monkeypatch, error):
    def get_model(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "/cache")
    with pytest.raises(InputError, match="resnet18: the weights IMAGENET1K_V1 could not be fetched") as found:
        vision.build("resnet18", 5, weights="IMAGENET1K_V1")
    said = str(found.value)
    assert "Put them into /cache/checkpoints as resnet18-f37072fd.pth (https://download.pytorch.org/" in said
    assert said.endswith("or name a file of weights instead: settings.model.weights: FILE (`shrink --weights FILE`)")


@pytest.mark.parametrize(
    ("name", "layer", "imagenet", "small"),
    [("resnet18", "layer1", 8, 32), ("mobilenet_v2", "features.1", 16, 32), ("vgg11", "features.1", 32, 32)],
)
def test_small_stem_keeps_the_resolution(name, layer, imagenet, small):
    for stem, size in (("imagenet", imagenet), ("small", small)):
        model = vision.build(name, 5, stem=stem).eval()
        sizes = []
        model.get_submodule(layer).register_forward_hook(lambda _, __, out, sizes=sizes: sizes.append(out.shape[-1]))
        model(torch.randn(1, 3, 32, 32))
        assert sizes == [size]


def test_small_stem_of_other_bands():
    assert vision.build("resnet18", 5, in_channels=6, stem="small").conv1.weight.shape == (64, 6, 3, 3)


def test_the_head_stays_where_the_classes_are_those_of_the_weights(trained):
    model = vision.build("resnet18", 1000, weights="IMAGENET1K_V1")
    assert torch.equal(model.fc.weight, trained("resnet18").fc.weight)
