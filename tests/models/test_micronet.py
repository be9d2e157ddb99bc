"""Micro-Net: every count of the paper's tables, cascades, and options that cannot be."""

import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.errors import InputError
from rssearch.models.micronet import Fire

VARIANTS = [{"skips": skips, "squeeze": squeeze} for squeeze in (0.25, 0.125) for skips in ("add", "concat")]
# Of the variants in this order; the paper's networks are add with 0.25, and concat with 0.125 for Miniaturized-Net.
SHALLOW, MICRO_NET, DEEP = (
    (926896, 932016, 545432, 547992),
    (1055920, 1061040, 609944, 612504),
    (1184944, 1190064, 674456, 677016),
)


def create(name="micronet", **options):
    with torch.device("meta"):
        return models.create(name, 2, **options)


def params(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("rates", "counts"),
    [
        ((1, 1, 1), SHALLOW),
        ((1, 2, 3), SHALLOW),
        (((1, 2, 5), (1, 2, 3), (1, 1, 2)), SHALLOW),
        ((1, 1, 2, 3), MICRO_NET),
        (((1, 1, 2, 3),) * 3, MICRO_NET),
        ([[1, 1, 2, 3]] * 3, MICRO_NET),
        ((1, 1, 1, 2, 3), DEEP),
    ],
)
def test_parameters_of_micronet(rates, counts):
    assert tuple(params(create(rates=rates, **variant)) for variant in VARIANTS) == counts


def test_the_defaults_are_the_published_networks():
    assert params(create()) == MICRO_NET[0]
    assert params(create("miniaturized_net")) == 5358744


def test_parameters_of_miniaturized_net():
    found = [params(create("miniaturized_net", **variant)) for variant in VARIANTS]
    assert found == [7845040, 7932080, 5315224, 5358744]


def test_parameters_of_each_layer():
    """Table 3; its first figure, 5158, is misprinted."""
    model = create()
    assert [[params(fire) for fire in stage] for stage in model.encoder] == [
        [3 * 16 + 16 * 32 + 9 * 16 * 32, 6144, 6144, 6144],
        [22528, 24576, 24576, 24576],
        [90112, 98304, 98304, 98304],
    ]
    assert params(model.encoder[0][0]) == 5168
    assert [[params(fire) for fire in stage] for stage in model.decoder] == [[6144] * 3, [24576] * 3, [98304] * 3]
    assert [params(up) for up in model.up] == [32768, 131072]
    assert params(model.head) == 128
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def rates_of(stages):
    return [[fire.expand3.conv.dilation[0] for fire in stage] for stage in stages]


@pytest.mark.parametrize(
    ("options", "encoder", "decoder"),
    [
        ({}, [[1, 1, 2, 3]] * 3, [[3, 2, 1]] * 3),
        ({"rates": (1, 1, 1, 2, 3)}, [[1, 1, 1, 2, 3]] * 3, [[3, 2, 1]] * 3),
        (
            {"rates": [[1, 2, 5], [1, 2, 3], [1, 1, 2]]},
            [[1, 2, 5], [1, 2, 3], [1, 1, 2]],
            [[5, 2, 1], [3, 2, 1], [2, 1, 1]],
        ),
        ({"rates": [1, 2], "levels": 4}, [[1, 2]] * 4, [[2, 1]] * 4),
        ({"rates": [1, 2], "decoder_rates": [4]}, [[1, 2]] * 3, [[4]] * 3),
        ({"rates": [[1], [2, 3]], "decoder_rates": [[2, 2], [1]]}, [[1], [2, 3]], [[2, 2], [1]]),
    ],
)
def test_cascades(options, encoder, decoder):
    model = create(base=8, **options)
    assert (rates_of(model.encoder), rates_of(model.decoder)) == (encoder, decoder)
    assert all(
        fire.expand3.conv.padding == fire.expand3.conv.dilation for fire in model.modules() if isinstance(fire, Fire)
    )


def test_fire_module_by_hand():
    fire = Fire(5, 8, 3, 6, 2, batch_norm=False, bias=True)
    x = torch.randn(2, 5, 9, 7)
    squeezed = nn.functional.relu(nn.functional.conv2d(x, fire.squeeze.conv.weight, fire.squeeze.conv.bias))
    near = nn.functional.conv2d(squeezed, fire.expand1.conv.weight, fire.expand1.conv.bias)
    far = nn.functional.conv2d(squeezed, fire.expand3.conv.weight, fire.expand3.conv.bias, padding=2, dilation=2)
    assert torch.equal(fire(x), torch.cat([near, far], 1).relu())
    assert (near.shape[1], far.shape[1]) == (2, 6)


def test_shares_of_the_filters():
    fire = create(base=10, squeeze=0.3, p3x3=0.75).encoder[1][0]
    convs = (fire.squeeze.conv, fire.expand1.conv, fire.expand3.conv)
    assert [conv.out_channels for conv in convs] == [6, 5, 15]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p3x3": 0.05, "base": 16}, "p3x3 is 0.05, which leaves no 3x3 filter of the 16 of the first level (base)"),
        ({"p3x3": 1}, "p3x3 is 1.0, which leaves no 1x1 filter of the 64"),
        ({"p3x3": 0}, "p3x3 is 0, but must be a number above 0 and at most 1"),
        ({"squeeze": 0.1, "base": 8}, "squeeze is 0.1, which leaves no filter of the 8"),
        ({"squeeze": 1.5}, "squeeze is 1.5, but must be a number above 0 and at most 1"),
        ({"rates": []}, "rates is [], but must be a sequence of rates"),
        ({"rates": "1,2"}, "rates is '1,2', but must be a sequence of rates"),
        ({"rates": [[1, 2], []]}, "rates has an empty cascade"),
        ({"rates": [[1, 2], 3]}, "rates is [[1, 2], 3], but must be a sequence of rates"),
        ({"rates": [1, 0]}, "a rate in rates is 0, but must be a whole number of at least 1"),
        ({"rates": [1, 1.5]}, "a rate in rates is 1.5, but must be a whole number"),
        ({"rates": [[1], [2]], "levels": 3}, "rates has cascades for 2 levels, but there are 3"),
        ({"decoder_rates": [[1], [2]]}, "decoder_rates has cascades for 2 levels, but there are 3"),
        ({"decoder_rates": [-1]}, "a rate in decoder_rates is -1"),
        ({"levels": 0}, "levels is 0, but must be a whole number"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError) as caught:
        models.check_options("micronet", options)
    assert str(caught.value).startswith(f"micronet: {message}")


def test_skips_are_a_choice():
    with pytest.raises(InputError, match=r"unknown skips of micronet 'cat'\. Did you mean 'concat'"):
        models.check_options("micronet", {"skips": "cat"})
