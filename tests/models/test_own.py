"""User-defined networks, by import strings."""

from __future__ import annotations

import pytest
import torch

from rssearch import models
from rssearch.errors import InputError


def test_a_function_is_a_network_whose_parameters_are_its_options() -> None:
    assert models.options_of("tests.support.own:tiny") == ["width"]
    assert models.task_of("tests.support.own:tiny") == "classification"
    model = models.create("tests.support.own:tiny", 5, in_channels=4, input_size=16, width=6).eval()
    assert model(torch.zeros(2, 4, 16, 16)).shape == (2, 5)
    assert model[0].out_channels == 6


def test_a_class_is_one_too() -> None:
    model = models.create("rssearch.models.unet:EncoderDecoder", 2, design=models.design_of("unet", {"base": 8}))
    assert type(model).__name__ == "EncoderDecoder"


def test_an_entry_says_more() -> None:
    assert models.task_of("tests.support.own:PIXELS") == "segmentation"
    assert models.create("tests.support.own:PIXELS", 2, width="8")(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 16, 16)
    with pytest.raises(InputError, match=r"^unknown width of tests.support.own:PIXELS '5'"):
        models.create("tests.support.own:PIXELS", 2, width="5")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tests.support.own:lacking",
            "tests.support.own:lacking: has no parameter 'in_channels'; a network is built by num_classes and",
        ),
        (
            "tests.support.own:NUMBER",
            "tests.support.own:NUMBER: is neither a function that builds a network nor a rssearch.models.Ent",
        ),
        ("tests.support.own:gone", "tests.support.own:gone: tests.support.own has no function 'gone'"),
        ("tests.away:tiny", "tests.away:tiny: there is no module 'tests.away' in "),
    ],
)
def test_what_builds_no_network_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        models.create(name, 2)


def test_an_option_that_the_function_does_not_take_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^model 'tests.support.own:tiny' has no option 'depth' \(3\); it has: width$"
    ):
        models.create("tests.support.own:tiny", 2, depth=3)


def test_only_code_of_ones_own_is_part_of_what_names_results() -> None:
    assert (
        models.code_of("resnet20") is models.code_of("micronet:1,1") is models.code_of("torchvision:resnet18") is None
    )
    assert len(models.code_of("tests.support.own:tiny") or "") == 64
