"""Cascades of dilated convolutions: what they reach, which are dense, and the receptive field of networks."""

import math
from itertools import combinations_with_replacement, permutations, product

import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.errors import InputError
from rssearch.nas import atrous


@pytest.mark.parametrize(
    ("rates", "reached", "field", "overlap"),
    [
        ((1, 2, 3), 13, 13, 12),
        ((1, 1, 2, 3), 15, 15, 14),
        ((1, 1, 1, 2, 3), 17, 17, 16),
        ((1, 2, 5), 17, 17, 16),
        ((1, 1, 2), 9, 9, 8),
        ((3, 3, 3), 7, 19, 0),
        ((2, 2, 2), 7, 13, 0),
        ((2, 3), 9, 11, 6),
        ((1, 2, 9), 21, 25, 18),
        ((5, 7), 9, 25, 0),
        ((3, 4, 5), 21, 25, 18),
        ((1,), 3, 3, 2),
    ],
)
def test_figures(rates, reached, field, overlap):
    offsets = atrous.reachable_offsets(rates)
    assert (len(offsets), atrous.receptive_field(rates), atrous.neighbour_overlap(rates)) == (reached, field, overlap)
    assert (offsets[0], offsets[-1]) == (-sum(rates), sum(rates))
    assert atrous.coverage(rates) == reached / field
    assert atrous.is_dense(rates) == (reached == field)


def test_the_criterion_is_exact():
    """All multisets of up to four rates in 1..9, against every choice of directions."""
    count = 0
    for length in (1, 2, 3, 4):
        for rates in combinations_with_replacement(range(1, 10), length):
            reached = {
                sum(d * r for d, r in zip(choice, rates, strict=True)) for choice in product((-1, 0, 1), repeat=length)
            }
            assert atrous.reachable_offsets(rates) == sorted(reached)
            assert atrous.is_dense(rates) == (len(reached) == 1 + 2 * sum(rates)), rates
            assert not atrous.is_dense(rates) or math.gcd(*rates) == 1
            count += 1
    assert count == 9 + 45 + 165 + 495


def test_the_order_of_the_rates_does_not_matter():
    for rates in permutations((1, 2, 5)):
        assert atrous.is_dense(rates)
        assert len(atrous.reachable_offsets(list(rates))) == 17


def test_cascades_by_criterion():
    assert list(atrous.cascades(2, 3)) == [(1, 1), (1, 2), (1, 3)]
    assert list(atrous.cascades(2, 3, criterion="gcd")) == [(1, 1), (1, 2), (1, 3), (2, 3)]
    assert list(atrous.cascades(2, 3, criterion="any")) == [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3), (3, 3)]
    dense, weaker, every = (set(atrous.cascades(4, 9, criterion=name)) for name in ("dense", "gcd", "any"))
    assert dense < weaker < every
    assert len(every) == 495
    assert dense == {rates for rates in every if atrous.is_dense(rates)}
    assert weaker == {rates for rates in every if math.gcd(*rates) == 1}
    assert {(1, 1, 2, 3), (1, 1, 3, 9)} <= dense
    assert (1, 2, 9, 9) in weaker - dense


@pytest.mark.parametrize("rates", [(), (1, 0), (1, -2), (1.0,), (True,)])
def test_rates_that_are_none(rates):
    for function in (atrous.receptive_field, atrous.reachable_offsets, atrous.is_dense, atrous.coverage):
        with pytest.raises(InputError, match="must be whole numbers of at least 1"):
            function(rates)


def test_bad_arguments_of_cascades():
    with pytest.raises(InputError, match="length is 0"):
        atrous.cascades(0, 3)
    with pytest.raises(InputError, match="largest is 0"):
        atrous.cascades(3, 0)
    with pytest.raises(InputError, match=r"unknown criterion of cascades 'gdc'\. Did you mean 'gcd'"):
        atrous.cascades(2, 3, criterion="gdc")


@pytest.mark.parametrize("rates", [(1, 2, 3), (2, 3), (3, 3, 3), (5, 7)])
def test_convolutions_reach_what_cascades_say(rates):
    model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=rate, dilation=rate) for rate in rates))
    (field,) = atrous.model_receptive_field(model, 41, in_channels=1, stride=1)
    assert field == atrous.Field(atrous.receptive_field(rates), atrous.receptive_field(rates), atrous.is_dense(rates))


@pytest.mark.parametrize(
    ("rates", "sides"),
    [((1, 1, 2, 3), [186] * 4), ((1, 2, 3), [172] * 4), ((1, 1, 1), [90, 86, 86, 90])],
)
def test_fields_of_micronet_bm3_and_bm2(rates, sides):
    model = models.create("micronet", 2, base=4, rates=rates)
    assert atrous.model_receptive_field(model, 240) == [atrous.Field(side, side, dense=True) for side in sides]


def test_a_field_does_not_depend_on_weights_and_the_model_stays():
    torch.manual_seed(0)
    model = models.create("unet", 2, base=2, levels=2, batch_norm=True, bias=True).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fields = atrous.model_receptive_field(model, 32, stride=2)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    assert model.training
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(-1)
    assert atrous.model_receptive_field(model, 32, stride=2) == fields == [atrous.Field(18, 18, dense=True)] * 2


def test_an_image_that_is_too_small():
    with pytest.raises(InputError, match="not inside an image of 100 pixels"):
        atrous.model_receptive_field(models.create("micronet", 2, base=4), 100)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("micronet", {}),
        ("micronet", {"rates": [1, 2, 3]}),
        ("micronet", {"rates": [1, 1, 1]}),
        ("micronet", {"rates": [[1, 2, 5], [1, 1]], "decoder_rates": [[1], [3, 1]]}),
        ("unet", {"levels": 3}),
    ],
)
def test_the_field_of_encoder_decoders_is_that_of_their_gradients(name, options):
    model, design = models.create(name, 2, base=16, **options), models.design_of(name, {"base": 16, **options})
    fields = atrous.model_receptive_field(model, 200, stride=2 ** (len(design.encoder) - 1))
    whole = atrous.encoder_decoder_field(design.encoder, design.decoder)
    assert whole == max(field.height for field in fields) == max(field.width for field in fields)
