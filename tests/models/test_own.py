"""User-defined networks, by import strings."""

from __future__ import annotations

import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.errors import InputError
from rssearch.models import outputs


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


def test_an_entry_says_which_output_is_the_logits() -> None:
    model = models.create("tests.support.own:SCORES", 4).eval()
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    assert list(model.state_dict()) == ["features.weight", "features.bias", "head.weight", "head.bias"]
    models.check_logits("tests.support.own:SCORES", (3, 8, 8), {})


def test_a_network_of_several_outputs_is_refused_with_what_to_write() -> None:
    with pytest.raises(InputError, match=r"gives a dict with 'maps', 'scores', .*Entry\(BUILD, logits='maps'\)"):
        models.check_logits("tests.support.own:Both", (3, 8, 8), {})
    with pytest.raises(InputError, match=r"gives logits \[1, 10\] for an image of 3x8x8 .*not logits \[1, 10, 8, 8\]"):
        outputs.check("it", lambda: models.create("tests.support.own:SCORES", 10), (3, 8, 8), 10, maps=True)


@pytest.mark.parametrize(
    ("output", "entry"),
    [((1, 2), 0), ([1, 2], -1), ({"a": 1}, "a"), ({0: 1}, 0), (namedtuple("Two", "a b")(1, 2), "a")],
)
def test_an_entry_is_a_key_a_position_or_a_name(output: Any, entry: str | int) -> None:
    assert outputs.Pick(entry)(nn.Identity(), (), output) in (1, 2)


@pytest.mark.parametrize(("output", "entry"), [((1, 2), 2), ({"a": 1}, "b"), ((1, 2), "a"), (3, 0)])
def test_an_entry_that_there_is_not_is_named(output: Any, entry: str | int) -> None:
    with pytest.raises(InputError, match=f"Identity gives a .*, which has no entry {entry!r} for the logits"):
        outputs.Pick(entry)(nn.Identity(), (), output)


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


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no such width')", "its code cannot build the network: RuntimeError: no such width"),
        ("raise SystemExit(0)", "its code cannot build the network: SystemExit: 0"),
        ("return None", "gives a NoneType, not a torch.nn.Module"),
        ("return nn.LazyLinear(num_classes)", "'weight' has no shape yet"),
        ("return Counting(3, num_classes)", "'_extra_state' in its state is dict, no tensor"),
    ],
    ids=["raises", "exits", "none", "lazy", "state"],
)
@pytest.mark.filterwarnings("ignore")  # torch's, of lazy layers
def test_what_builds_no_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    counting = "class Counting(nn.Linear):\n    def get_extra_state(self):\n        return {}\n\n\n"
    text = f"from torch import nn\n\n\n{counting}def odd(num_classes, in_channels=3):\n    {code}\n"
    _module(tmp_path, monkeypatch, text)
    with pytest.raises(InputError, match=said):
        models.create("ownbroken:odd", 3)


def test_other_outputs_in_training_are_refused_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = (
        "    def forward(self, x):\n        y = self.l(x.mean((2, 3)))\n        return (y, y) if self.training else y\n"
    )
    start = "    def __init__(self, num_classes, in_channels=3):\n        super().__init__()\n"
    layer = "        self.l = nn.Linear(in_channels, num_classes)\n\n"
    text = f"from torch import nn\n\n\nclass odd(nn.Module):\n{start}{layer}{forward}"
    _module(tmp_path, monkeypatch, text)
    with pytest.raises(InputError, match="gives a tuple of 2 in training mode, not one tensor of logits"):
        models.check_logits("ownbroken:odd", (3, 8, 8), {})


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "ownbroken.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, "ownbroken", raising=False)
