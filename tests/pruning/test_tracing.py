"""What a trace refuses to follow, and what it notices of a network's code."""

import pytest
import torch
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.atoms import Atoms
from rssearch.pruning.following import Follower


def test_outputs_without_a_tensor_are_refused():
    class Mute(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return str(self.a(x).shape)

    with pytest.raises(InputError, match="Mute gives str, in which there is no tensor to follow"):
        pruning.trace(Mute(), torch.randn(1, 3, 4, 4))


def test_parameters_without_a_shape_are_refused():
    with pytest.raises(InputError, match=r"0\.weight has no shape yet"):
        pruning.trace(nn.Sequential(nn.LazyConv2d(8, 1)), torch.randn(1, 3, 4, 4))


class Reads(nn.Module):
    """Calls a function with its input."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 1), function

    def forward(self, x):
        self.function(x)
        return self.conv(x)


@pytest.mark.parametrize(
    ("function", "branches"),
    [
        (lambda x: 1 if x.mean() > 0 else 2, True),
        (lambda x: x.mean().item(), True),
        (lambda x: int(x.mean()) + float(x.max()), True),
        (lambda x: x.sum().tolist(), True),
        (lambda x: x[x > 0], True),
        (lambda x: torch.equal(x, x), True),
        (lambda x: range(x.long().argmax() * 0), True),
        (lambda x: x.float() + x.int().double(), False),
        (lambda x: x[:, :2] + x.shape[1] + x.dim(), False),
        (lambda x: torch.where(x > 0, x, 0), False),
    ],
)
def test_code_that_reads_values_is_noticed(function, branches):
    model = Reads(function)
    with Follower(model, Atoms()) as follower:
        model(torch.randn(1, 3, 4, 4))
    assert follower.branches == branches
