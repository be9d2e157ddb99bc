"""Encoder-decoders: sizes, skips, initial parameters, and the counts of U-Net."""

import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.models.unet import EncoderDecoder

NAMES = ["unet", "miniaturized_net", "micronet"]


def params(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("options", "count"), [({}, 31024960), ({"bias": True}, 31031810)])
def test_parameters_of_unet(options, count):
    with torch.device("meta"):
        assert params(models.create("unet", 2, **options)) == count


@pytest.mark.parametrize(
    ("name", "options", "exact", "thop"),
    [
        ("unet", {}, 185230103552, 210203251712),
        ("miniaturized_net", {}, 22436263296, 47409411456),
        ("micronet", {"rates": (1, 2, 3)}, 31276000000, 43564000000),
        ("micronet", {}, 35884000000, 48172000000),
    ],
)
def test_multiply_accumulates_at_500_pixels(name, options, exact, thop):
    """Counted on shapes alone. thop counts a transposed convolution of stride 2 four times."""
    with torch.device("meta"):
        model = models.create(name, 2, **options)
    found = counting.profile(model, (3, 500, 500))
    assert (found.conv_linear_macs, found.macs) == (exact, thop)


def test_multiply_accumulates_by_hand_where_maps_are_cropped():
    """Ten 3x3 convolutions, two transposed ones that read maps of 16 x 17 and 31 x 34 pixels, and the last one."""
    levels = [(3, 4, 61 * 67), (4, 8, 31 * 34), (8, 16, 16 * 17)]
    exact = sum(9 * n * (inputs * width + width**2) for inputs, width, n in levels)
    exact += sum(9 * n * 3 * width**2 for _, width, n in levels[:2])
    transposed = 16 * 8 * 4 * 16 * 17 + 8 * 4 * 4 * 31 * 34
    exact += transposed + 4 * 2 * 61 * 67
    found = counting.profile(models.create("unet", 2, base=4, levels=3), (3, 61, 67))
    assert (found.conv_linear_macs, found.macs) == (exact, exact + 3 * transposed)


@pytest.mark.parametrize("size", [(64, 64), (61, 67), (125, 63), (5, 9), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image(name, size):
    model = models.create(name, 3, in_channels=4, base=8, levels=3).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 4, *size)).shape == (2, 3, *size)
        assert model.bfloat16()(torch.randn(1, 4, *size).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("skips", ["add", "concat"])
def test_the_way_through_two_levels(skips):
    """By hand, from the parts."""
    model = models.create("micronet", 2, base=8, rates=[[1], [2]], skips=skips)
    x = torch.randn(1, 3, 7, 6)
    above = model.encoder[0](x)
    below = model.decoder[1](model.encoder[1](model.pool(above)))
    assert below.shape == (1, 16, 4, 3)
    up = model.up[0](below)[:, :, :7, :6]
    joined = above + up if skips == "add" else torch.cat([above, up], 1)
    assert torch.equal(model(x), model.head(model.decoder[0](joined)))


def test_an_empty_cascade_goes_up_at_once():
    model = models.create("unet", 2, base=4, levels=2)
    assert list(model.decoder[1].children()) == []
    assert len(model.decoder[0]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_initial_weights_have_the_variance_of_he(name):
    torch.manual_seed(0)
    model = models.create(name, 2, levels=2, bias=True)
    ratios = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            terms = module.in_channels * (module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1)
            ratios.append((float(module.weight.detach().var()) * terms / 2, module.weight.numel()))
            assert not module.bias.any()
    assert all(abs(ratio - 1) < 5 * (2 / count) ** 0.5 for ratio, count in ratios)


def test_normalisation_stands_behind_each_convolution_of_the_blocks():
    for name, blocks in (("unet", 2 + 2 + 2), ("miniaturized_net", 3 * 6), ("micronet", 3 * 14)):
        model = models.create(name, 2, base=8, levels=2, batch_norm=True)
        layers = list(model.modules())
        norms = [place for place, layer in enumerate(layers) if isinstance(layer, nn.BatchNorm2d)]
        assert len(norms) == blocks
        assert all(isinstance(layers[place - 1], nn.Conv2d) for place in norms)
        assert all(isinstance(layers[place + 1], nn.ReLU) for place in norms)


def test_same_seed_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(models.create("micronet", 2, base=8).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_tasks():
    assert [name for name in models.list_models() if models.task_of(name) == "segmentation"] == sorted(NAMES)
    assert models.task_of("torchvision:resnet18") == "classification"
    with pytest.raises(InputError, match="unknown model 'segnet'"):
        models.task_of("segnet")
    assert isinstance(models.create("unet", 2, base=2), EncoderDecoder)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"base": 0}, "unet: base is 0, but must be a whole number of at least 1"),
        ("unet", {"levels": True}, "unet: levels is True, but must be a whole number"),
        ("unet", {"levels": 2.0}, "unet: levels is 2.0, but must be a whole number"),
        ("unet", {"batch_norm": "yes"}, "unet: batch_norm is 'yes', but must be true or false"),
        ("unet", {"bias": 1}, "unet: bias is 1, but must be true or false"),
        ("unet", {"rates": [1]}, "model 'unet' has no option 'rates' ([1]); it has: base, batch_norm, bias, levels"),
    ],
)
def test_bad_options(name, options, message):
    for use in (models.check_options, lambda name, given: models.create(name, 2, **given)):
        with pytest.raises(InputError) as caught:
            use(name, options)
        assert str(caught.value).startswith(message)


def test_options_are_checked_without_drawing_or_allocating():
    before = torch.get_rng_state()
    models.check_options("unet", {"base": 4096})  # 127 billion parameters
    assert torch.equal(torch.get_rng_state(), before)
