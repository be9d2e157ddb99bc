"""The Taylor criterion, against plain backward passes."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch import pruning
from rssearch.errors import InputError
from rssearch.pruning.criteria.taylor import taylor
from tests.support.networks import network


def batches(count=2):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, 3, 32, 32, generator=generator), torch.randint(0, 10, (4,), generator=generator))
        for _ in range(count)
    ]


def test_scores_are_averages_over_batches_of_first_order_changes():
    model, _, graph = network("resnet20")
    expected = torch.zeros(16)
    for x, y in batches():
        twin = copy.deepcopy(model).eval()
        F.cross_entropy(twin(x), y).backward()
        weight = twin.layer1[1].conv2.weight  # reads the channels of layer1.1.conv1
        expected += (weight * weight.grad).sum((0, 2, 3)).abs().detach() / 2
    assert torch.allclose(taylor(model, graph, batches(), 0)["layer1.1.conv1"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("resnet20", "layer2.1.conv1"),
        ("resnet20", "layer2.0.conv2"),  # read by two blocks, and by the next stage's convolution and index shortcut
        ("resnet18", "layer4.0.conv2"),  # read by the other block and the classifier
        ("mobilenet_v2", "features.3.conv.0.0"),  # through a depthwise convolution
        ("vgg16_cifar", "features.conv13"),  # by a linear layer
        ("torchvision:mobilenet_v3_small", "features.4.block.0.0"),  # multiplied by squeeze-and-excitation
    ],
)
def test_scores_are_the_slope_of_the_loss_when_all_readers_read_less(name, group):
    model, _, graph = network(name)
    (x, y), model = batches(1)[0], copy.deepcopy(model).double().eval()
    if "mobilenet" in name:  # whose logits hardly differ before it is trained
        with torch.no_grad():
            [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1].weight.mul_(1e3)
    scores = taylor(model, graph, [(x.double(), y)], 0)[group]
    channel, score = int(scores.argmax()), float(scores.max())
    own = {member.layer for member in graph.groups[group].producers}
    readers = [member for member in graph.groups[group].members if member.side == "in" and member.layer not in own]

    def loss(factor):
        def less(module, inputs, columns=None):
            scale = torch.ones(inputs[0].shape[1], dtype=torch.float64)
            scale[columns] = factor
            return (inputs[0] * scale.reshape(-1, *[1] * (inputs[0].dim() - 2)),)

        handles = [
            model.get_submodule(m.layer).register_forward_pre_hook(partial(less, columns=m.index[channel]))
            for m in readers
        ]
        with torch.no_grad():
            found = float(F.cross_entropy(model(x.double()), y))
        for handle in handles:
            handle.remove()
        return found

    slope = (loss(1 + 1e-6) - loss(1 - 1e-6)) / 2e-6
    assert score == pytest.approx(abs(slope), rel=1e-3)
    assert score > 1e-8


def test_model_is_untouched_and_may_be_frozen():
    model, _, graph = network("resnet20")
    model = copy.deepcopy(model).train().requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        taylor(model, graph, batches(), 0)
    assert model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_data_is_needed():
    model, images, _ = network("resnet20")
    with pytest.raises(InputError, match="method 'taylor' needs data"):
        pruning.prune(model, images, "taylor", rate=0.5)
    with pytest.raises(InputError, match="there is not one batch"):
        pruning.prune(model, images, "taylor", rate=0.5, data=[])
