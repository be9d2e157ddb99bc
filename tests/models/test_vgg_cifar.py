"""VGG-16 for small images."""

import pytest
import torch
from torch import nn

from rssearch.errors import InputError
from rssearch.models.vgg_cifar import vgg16_cifar


def test_layers():
    model = vgg16_cifar(10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert all(c.bias is not None for c in convolutions)
    assert [m.out_features for m in model.modules() if isinstance(m, nn.Linear)] == [512, 10]


@pytest.mark.parametrize("size", [16, 32, 64, 100])
def test_head_fits_the_input_size(size):
    assert vgg16_cifar(3, input_size=size).eval()(torch.randn(1, 3, size, size)).shape == (1, 3)


def test_too_small():
    with pytest.raises(InputError, match="input_size is 8"):
        vgg16_cifar(3, input_size=8)
