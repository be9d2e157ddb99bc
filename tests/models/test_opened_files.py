"""User-defined networks that read files while they are built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rssearch import models
from rssearch.errors import InputError
from tests.support.own import tiny

CODE = """
import torch
from tests.support.own import tiny

def given(num_classes, in_channels=3, weights=None):
    model = tiny(num_classes, in_channels)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    return model

def hidden(num_classes, in_channels=3):
    return given(num_classes, in_channels, weights="my.pt")

def writes(num_classes, in_channels=3):
    with open("log.txt", "w") as file:
        file.write("built")
    return tiny(num_classes, in_channels)
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The weights in my.pt of the working directory, beside a module whose name no other test has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"nets_{tmp_path.name}.py").write_text(CODE)
    torch.manual_seed(5)
    state = tiny(3).state_dict()
    torch.save(state, tmp_path / "my.pt")
    return state


def test_a_file_that_no_key_knows_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert state
    with pytest.raises(InputError, match=r":hidden: reads my.pt while it is built, .* a parameter `weights`"):
        models.create(f"nets_{tmp_path.name}:hidden", 3)


def test_the_weights_that_it_is_given_are_its_own(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = f"nets_{tmp_path.name}:given"
    assert models.takes_weights(name)
    for path in ("my.pt", str(tmp_path / "my.pt")):
        model = models.create(name, 3, weights=path)
        assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_what_it_writes_and_what_lies_elsewhere_is_not_asked_for(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert state
    models.create(f"nets_{tmp_path.name}:writes", 3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot build the network: FileNotFoundError"):
        models.create(f"nets_{tmp_path.name}:hidden", 3)
