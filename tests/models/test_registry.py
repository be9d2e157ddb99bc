"""The registry: names, options, parameter counts."""

import pytest
import torch

from rssearch import models
from rssearch.errors import InputError

# Recomputed from the definitions of the papers' baselines.
COUNTS = [
    ("resnet56", 10, {}, 853018),
    ("resnet110", 10, {}, 1727962),
    ("resnet20", 100, {"shortcut": "B"}, 278324),
    ("vgg16_cifar", 10, {}, 14991946),
    ("vgg16_cifar", 21, {}, 14997589),
    ("resnet18", 10, {}, 11181642),
    ("resnet50", 1000, {}, 25557032),
    ("resnet50", 45, {}, 23600237),
    ("vgg16_bn", 45, {}, 134453357),
]


@pytest.mark.parametrize(("name", "classes", "options", "count"), COUNTS)
def test_parameter_counts(name, classes, options, count):
    with torch.device("meta"):  # the largest would be half a gigabyte
        model = models.create(name, classes, **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", [name for name in models.list_models() if name != "vgg16_bn"])
@pytest.mark.parametrize("bands", [3, 5])
def test_every_model_takes_bands_and_gives_classes(name, bands):
    model = models.create(name, 7, in_channels=bands, input_size=32).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, bands, 32, 32))
    assert logits.shape == ((2, 7) if models.task_of(name) == "classification" else (2, 7, 32, 32))


def test_torchvision_names_beyond_the_registry():
    model = models.create("torchvision:squeezenet1_1", 7, in_channels=4).eval()
    assert model(torch.randn(1, 4, 64, 64)).shape == (1, 7)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("micronet:1,2,3", (1, 2, 3)),
        ("micronet:1,2,5/1,2,3/1,1,2", ((1, 2, 5), (1, 2, 3), (1, 1, 2))),
        ("micronet:2/1", ((2,), (1,))),
    ],
)
def test_a_micronet_is_named_by_its_rates(name, rates):
    named, built = models.create(name, 2, base=16), models.create("micronet", 2, base=16, rates=rates)
    assert models.task_of(name) == "segmentation"
    assert repr(named) == repr(built)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("micronet:1-2", {}, "the rates '1-2' of a micronet are not whole numbers with commas"),
        ("micronet:1,2", {"rates": [1]}, "has no option 'rates'"),
        ("micronet:1,0", {"base": 16}, "a rate in rates is 0, but must be a whole number of at least 1"),
        ("resnet21", {}, "unknown model 'resnet21'. Did you mean 'resnet20'"),
        ("torchvision:resnet19", {}, "unknown torchvision model 'resnet19'"),
        ("efficientnet_b0", {}, "Did you mean 'torchvision:efficientnet_b0' or 'timm:efficientnet_b0'?"),
        ("eficientnet_b1", {}, "unknown model 'eficientnet_b1'. Did you mean 'torchvision:efficientnet_b1'?"),
        ("unet/resnet18", {}, "Did you mean 'smp:unet/resnet18'?"),
        ("torchvision:fcn_resnet50", {"stem": "small"}, "has no option 'stem' ('small'); it has: weights"),
        ("resnet20", {"stem": "small"}, "model 'resnet20' has no option 'stem' ('small'); it has: shortcut"),
        ("vgg16_cifar", {"weights": "DEFAULT"}, "it has none"),
        ("resnet18", {"shortcut": "A"}, "it has: stem, weights"),
        ("resnet18", {"stem": "tiny"}, "unknown stem of resnet18 'tiny'"),
        ("resnet20", {"shortcut": "C"}, "unknown shortcut of resnet20 'C'"),
        ("resnet18", {"weights": "IMAGENET1K_V9"}, "Known: IMAGENET1K_V1"),
        ("torchvision:densenet121", {"stem": "small"}, "has no option 'stem'"),
        ("torchvision:vit_b_16", {"depth": 3}, "has no option 'depth'"),
    ],
)
def test_bad_names_and_options(name, options, message):
    with pytest.raises(InputError) as caught:
        models.check_options(name, options)
    assert message in str(caught.value)
    with pytest.raises(InputError):
        models.create(name, 10, **options)


def test_what_is_only_looked_at_has_no_values():
    assert all(p.is_meta for p in models.without_numbers("resnet18", 10).parameters())
    assert not any(p.is_meta for p in models.without_numbers("torchvision:regnet_x_400mf", 10).parameters())


def test_options_that_are_none_are_not_given():
    models.check_options("vgg16_cifar", {"stem": None, "shortcut": None, "weights": None})
    models.create("resnet20", 10, stem=None, shortcut=None)


@pytest.mark.parametrize("sizes", [{"num_classes": 0}, {"num_classes": 3, "in_channels": 0}])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(InputError, match="must be at least 1"):
        models.create("resnet20", **sizes)
