"""Training and counting without PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from rssearch.eager import eager

CODE = """
import sys, torch
from rssearch import models, pruning
from rssearch.config.settings import Recipe
from rssearch.train.loop import make_optimizer

model = models.create("resnet20", 4, input_size=8)
pruning.trace(model, torch.zeros(1, 3, 8, 8))
for name in ("sgd", "adamw"):
    optimizer = make_optimizer(model, Recipe(optimizer=name))
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_training_and_counting_do_not_import_the_compiler() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_steps_and_states_are_those_of_pytorch(kind: type[torch.optim.Optimizer]) -> None:
    states = []
    for optimizer_of in (kind, eager(kind)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = optimizer_of(model.parameters(), lr=0.1, weight_decay=0.01)  # type: ignore[call-arg]
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().sum().backward()
            assert optimizer.step(lambda: torch.tensor(1.0)) == 1
        assert torch.is_grad_enabled()
        states.append((model.state_dict(), optimizer.state_dict()))
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
