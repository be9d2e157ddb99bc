"""Costs: exact counts, and models that stay as they were."""

import copy

import pytest
import torch
from torch import nn

from rssearch import cost, models


def test_counts_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 3 * 9 * 8 * 16 * 16 = 55296; bias counted as a parameter only
        nn.BatchNorm2d(8),  # 4 * 8 * 16 * 16 = 8192
        nn.ReLU(),
        nn.AvgPool2d(2),  # 8 * 8 * 8 = 512
        nn.Conv2d(8, 8, 3, groups=4, bias=False),  # 2 * 9 * 8 * 6 * 6 = 5184
        nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False),  # 8 * 4 * 4 positions of the kernel * 36 inputs = 4608
        nn.AdaptiveAvgPool2d(1),  # (144 + 1) * 4 = 580
        nn.Flatten(),
        nn.Linear(4, 10),  # 40
    )
    found = cost.profile(model, (3, 16, 16))
    assert found.conv_linear_macs == 55296 + 5184 + 4608 + 40
    # For a transposed convolution thop multiplies the outputs, not the inputs, by the kernel: stride^2 as much.
    assert found.macs == 55296 + 8192 + 512 + 5184 + 4 * 4608 + 580 + 40
    assert found.params == 3 * 9 * 8 + 8 + 16 + 2 * 9 * 8 + 8 * 4 * 4 + 50
    assert found.counter.startswith("thop 0.1.1")


@pytest.mark.parametrize(
    ("name", "classes", "options", "macs", "exact"),
    [
        ("resnet56", 10, {}, 127619776, 125485696),
        ("resnet110", 10, {}, 257086144, 252887680),
        ("vgg16_cifar", 10, {}, 314572288, 313463808),
        ("vgg16_cifar", 21, {}, 314577920, 313469440),
        ("resnet20", 100, {"shortcut": "B"}, 41625920, 40818944),
    ],
)
def test_published_baselines(name, classes, options, macs, exact):
    found = cost.profile(models.create(name, classes, **options), (3, 32, 32))
    assert (found.macs, found.conv_linear_macs) == (macs, exact)


def test_model_is_untouched(capsys, recwarn):
    model = models.create("resnet20", 10)
    model.layer1.eval()  # a mixed mode, which must come back as it was
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    first, second = cost.profile(model, (3, 32, 32)), cost.profile(model, (3, 32, 32))
    assert first == second
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert capsys.readouterr() == ("", "")
    assert not list(recwarn)


def test_frozen_parameters_count():
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).requires_grad_(False)
    assert cost.profile(frozen, (3, 2, 2)).params == 52


def test_output_tensors():
    a, b, c = (torch.zeros(n) for n in (1, 2, 3))
    assert [len(t) for t in cost.output_tensors({"x": a, "y": [b, (c, None)]})] == [1, 2, 3]
