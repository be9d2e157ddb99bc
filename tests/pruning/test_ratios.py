"""The papers' lists of ratios, and the published figures that follow from them exactly."""

import re

import pytest
import torch

from rssearch import models, pruning
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.pruning.ratios import PUBLISHED, parse_ratios, published_ratios, ratios_of

R56, R110 = [0] + [0.4] * 2, [0] + [0.4] * 2
ROWS = [
    # network, options, classes, size, list, MACs as thop counts, parameters
    ("resnet56", {}, 10, 32, R56 + [0.5] * 9 + [0.6] * 9 + [0.7] * 9, 35370496, 240793),
    ("resnet110", {}, 10, 32, R110 + [0.5] * 18 + [0.65] * 36, 72827200, 543742),
    ("vgg16_cifar", {}, 10, 32, [0.3] * 7 + [0.75] * 5, 104962368, 2505793),
    ("vgg16_cifar", {}, 10, 32, [0.45] * 7 + [0.78] * 5, 67094528, 1901836),
    ("resnet50", {}, 1000, 224, [0] + [0.5] * 3 + [0.6] * 16, 966597408, 8017755),
    ("resnet56", {}, 10, 32, [0] + [0.15] * 2 + [0.4] * 27, 66707776, 485413),
    ("resnet110", {}, 10, 32, [0] + [0.2] * 2 + [0.3] * 18 + [0.35] * 36, 142084864, 1045951),
    ("resnet50", {}, 1000, 224, [0] + [0.1] * 3 + [0.35] * 16, 2277587704, 15091575),
    ("resnet20", {"shortcut": "B"}, 100, 32, [0] + [0.1] * 2 + [0.25] * 9, 28991808, 203360),
    ("resnet20", {"shortcut": "B"}, 100, 32, [0] + [0.3] * 5 + [0.4] * 3 + [0.5] * 3, 19977792, 135956),
]


@pytest.mark.parametrize(("name", "options", "classes", "size", "ratios", "macs", "params"), ROWS)
def test_published_rows(name, options, classes, size, ratios, macs, params):
    model = models.create(name, classes, **options)
    pruned = pruning.prune(model, torch.zeros(1, 3, size, size), "l1", rates=pruning.layer_rates(name, ratios))
    found = counting.profile(pruned.model, (3, size, size))
    assert found.params == params == pruned.report["params"]
    assert found.macs == macs == pruned.report["macs"]


def test_widths_of_the_second_list_of_resnet56():
    model = models.create("resnet56", 10)
    rates = pruning.layer_rates("resnet56", R56 + [0.5] * 9 + [0.6] * 9 + [0.7] * 9)
    pruned = pruning.prune(model, torch.zeros(1, 3, 32, 32), "l1", rates=rates).model
    assert [pruned.conv1.out_channels, *(s[4].conv2.out_channels for s in (pruned.layer1, pruned.layer2))] == [
        16,
        9,
        19,
    ]
    assert [s[4].conv1.out_channels for s in (pruned.layer1, pruned.layer2, pruned.layer3)] == [8, 12, 19]
    assert pruned.fc.in_features == 64


@pytest.mark.parametrize(
    ("name", "ratios", "message"),
    [
        ("resnet56", [0.1] * 29, "resnet56 takes a list of 30 ratios, not 29"),
        ("vgg16_cifar", [0.1] * 11 + [1.0], "ratio 11 is 1.0"),
        ("resnet18", [0.1], "lists of ratios 'resnet18'"),
    ],
)
def test_bad_lists(name, ratios, message):
    with pytest.raises(InputError, match=message):
        pruning.layer_rates(name, ratios)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[0.]+[0.4]*2+[0.5]*3", [0, 0.4, 0.4, 0.5, 0.5, 0.5]),
        ("[0.0] + [0.15] × 2 + [.4] * 2", [0, 0.15, 0.15, 0.4, 0.4]),
        ("[0.1, 0.2]*2", [0.1, 0.2, 0.1, 0.2]),
        ("[1]", [1.0]),
    ],
)
def test_the_notation_of_the_papers(text, numbers):
    assert parse_ratios(text) == numbers


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[0.4]*2+", "''"),
        ("[0.4]*1000", "'[0.4]*1000'"),  # no list that would fill the memory
        ("[0.4]*-1", "'[0.4]*-1'"),
        ("[0.4+[0.5]", "'[0.4'"),
        ("[-0.4]", "'[-0.4]'"),
        ("[]", "'[]'"),
        ("[exit()]", "'[exit()]'"),
    ],
)
def test_what_is_no_list(text, wrong):
    with pytest.raises(InputError, match=re.escape(f"{text!r} is no list of ratios: {wrong} must be like")):
        parse_ratios(text)


def test_every_published_list_fits_its_network_and_the_second_is_the_stronger_one():
    for model in PUBLISHED["lfp-1"]:
        mild, strong = (ratios_of(name, model) for name in ("lfp-1", "lfp-2"))
        assert mild == pruning.layer_rates(model, published_ratios("lfp-1", model))
        assert list(mild) == list(strong)
        assert sum(strong.values()) > sum(mild.values())


def test_a_list_in_the_notation_is_the_published_one():
    assert ratios_of("[0]+[.4]*2+[.5]*9+[.6]*9+[.7]*9", "resnet56") == ratios_of("lfp-2", "resnet56")


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        ("lfp-3", "resnet56", "unknown list of ratios 'lfp-3'. Did you mean 'lfp-2'?"),
        (0.5, "resnet56", "unknown list of ratios 0.5."),  # as a YAML may have it
        ("lfp-1", "resnet18", "lfp-1 has no ratios for 'resnet18'; it has them for: resnet20, resnet56"),
        ("[0.5]*11", "vgg16_cifar", "vgg16_cifar takes a list of 12 ratios, not 11"),
    ],
)
def test_lists_that_a_study_cannot_use(text, model, message):
    with pytest.raises(InputError, match=re.escape(message)):
        ratios_of(text, model)
