"""CIFAR ResNets and their index shortcut."""

import copy

import pytest
import torch
import torch.nn.functional as F

from rssearch.models.resnet_cifar import IndexShortcut, cifar_resnet


@pytest.mark.parametrize(("before", "after", "stride"), [(16, 16, 1), (16, 32, 2), (32, 64, 2), (5, 8, 2)])
def test_index_shortcut_is_subsampling_and_zero_padding(before, after, stride):
    x = torch.randn(2, before, 8, 8)
    front = (after - before) // 2
    expected = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, front, after - before - front))
    assert torch.equal(IndexShortcut(before, after, stride)(x), expected)


def test_index_shortcut_gradient_reaches_each_channel_once():
    x = torch.randn(1, 4, 4, 4, requires_grad=True)
    IndexShortcut(4, 8, 2)(x).sum().backward()
    expected = torch.zeros(1, 4, 4, 4)
    expected[:, :, ::2, ::2] = 1
    assert torch.equal(x.grad, expected)


def test_index_shortcut_has_a_scale_only_where_a_state_brings_one():
    plain, x = IndexShortcut(4, 8, 2), torch.randn(1, 4, 4, 4)
    assert list(plain.state_dict()) == ["index"]
    scaled = copy.deepcopy(plain)
    scaled.scale_inputs(torch.tensor([1.0, 2.0, 3.0, 0.0]))
    scaled.scale_inputs(torch.tensor([0.5, 1.0, 2.0, 1.0]))
    assert torch.equal(scaled(x), plain(x * torch.tensor([0.5, 2.0, 6.0, 0.0])[:, None, None]))
    assert torch.equal(scaled.scale, torch.tensor([1.0, 1.0, 0.5, 2.0, 6.0, 0.0, 1.0, 1.0]))
    loaded = IndexShortcut(4, 8, 2)
    loaded.load_state_dict(scaled.state_dict())
    assert torch.equal(loaded(x), scaled(x))
    loaded.load_state_dict(plain.state_dict())
    assert loaded.scale is None
    with torch.device("meta"):
        empty = IndexShortcut(4, 8, 2)
    empty.load_state_dict(scaled.state_dict(), assign=True)
    assert torch.equal(empty(x), scaled(x))


@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (56, 9), (110, 18)])
def test_depth(depth, blocks):
    model = cifar_resnet(depth, 10)
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [blocks] * 3
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == depth


def test_every_relu_is_a_module_of_its_own():
    model = cifar_resnet(20, 10).eval()
    calls = []
    relus = [m for m in model.modules() if isinstance(m, torch.nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.randn(1, 3, 32, 32))
    assert len(relus) == 19
    assert len(set(calls)) == len(calls) == 19


def test_shortcut_b_has_convolutions_where_the_width_changes():
    names = [name for name, m in cifar_resnet(20, 10, shortcut="B").named_modules() if name.endswith("shortcut.0")]
    assert names == ["layer2.0.shortcut.0", "layer3.0.shortcut.0"]
