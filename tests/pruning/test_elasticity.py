"""Elasticity: by hand, under a scaler, across a resumption."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rssearch.errors import InputError
from rssearch.pruning import Elasticity


def one_filter_by_hand():
    """Two 1x1 filters over two bands; the gradients are known without autograd."""
    conv = nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.5]])[..., None, None])
        conv.bias.copy_(torch.tensor([10.0, -4.0]))
    x = torch.tensor([1.0, 4.0]).view(1, 2, 1, 1)
    factors = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    return conv, x, factors


def test_two_steps_by_hand():
    conv, x, factors = one_filter_by_hand()
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.1, weight_decay=0.5)
    record = Elasticity(conv)
    assert record.values() == {}
    # step 1: outputs 1 - 8 + 10 = 3 and 3 + 2 - 4 = 1, loss 2 * 3 - 1 * 1 = 5; dL/dw = factor * x, without the decay
    loss = (conv(x) * factors).sum()
    assert loss.item() == 5
    loss.backward()
    record.update(loss)
    first = [(2 * 1 + 8 * 2) / 2 / 5, (1 * 3 + 4 * 0.5) / 2 / 5]
    assert record.values()[""].tolist() == pytest.approx(first)
    # step 2: w - 0.1 (gradient + 0.5 w): (1 - .2 - .05, -2 - .8 + .1), (3 + .1 - .15, .5 + .4 - .025); biases alike
    optimizer.step()
    weights, biases = [[0.75, -2.7], [2.95, 0.875]], [10 - 0.2 - 0.5, -4 + 0.1 + 0.2]
    assert conv.weight.flatten(1).tolist() == [pytest.approx(row) for row in weights]
    optimizer.zero_grad()
    loss = (conv(x) * factors).sum()
    value = 2 * (0.75 - 10.8 + biases[0]) - (2.95 + 3.5 + biases[1])
    assert loss.item() == pytest.approx(value, abs=1e-5)
    assert value < 0  # its absolute value divides
    loss.backward()
    record.update(loss)
    second = [(2 * 0.75 + 8 * 2.7) / 2 / -value, (1 * 2.95 + 4 * 0.875) / 2 / -value]
    assert record.values()[""].tolist() == pytest.approx([a + b for a, b in zip(first, second, strict=True)], rel=1e-5)
    assert record.values()[""].dtype == torch.float32


def brute_force(layer: nn.Module, loss: float) -> list[float]:
    """The equation, weight by weight: a loop over outputs and the inputs of their group."""
    gradient, weight = layer.weight.grad, layer.weight.detach()
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    result = []
    for channel in range(layer.out_channels):
        group, place = divmod(channel, outputs)
        terms = []
        for j in range(inputs):
            where = (group * inputs + j, place) if layer.transposed else (channel, j)
            terms += (gradient[where] * weight[where]).abs().flatten().tolist()
        result.append(sum(terms) / len(terms) / loss)
    return result


LAYERS = [
    nn.Conv2d(4, 6, 3),
    nn.Conv2d(4, 6, (1, 3), groups=2, bias=False),
    nn.Conv2d(4, 8, 3, groups=4),
    nn.ConvTranspose2d(4, 6, 3),
    nn.ConvTranspose2d(4, 6, 2, groups=2, stride=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_kind_of_convolution(layer, layout):
    torch.manual_seed(0)
    layer = layer.double().to(memory_format=layout)
    layer.zero_grad()
    record = Elasticity(layer)
    loss = layer(torch.randn(2, 4, 6, 6, dtype=torch.double)).square().mean()
    loss.backward()
    record.update(loss)
    assert record.values()[""].tolist() == pytest.approx(brute_force(layer, loss.item()), rel=1e-6)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 3)
    )


def step(model, scale=1.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 6, 6, generator=generator)
    loss = F.cross_entropy(model(x), torch.randint(0, 3, (4,), generator=generator))
    model.zero_grad()
    (loss * scale).backward()
    return loss


def test_scaled_gradients_give_the_same():
    model = small()
    plain, scaled, by_tensor = Elasticity(model), Elasticity(model), Elasticity(model)
    plain.update(step(model))
    scaled.update(step(model, 1024.0), 1024.0)
    by_tensor.update(step(model, 1024.0), torch.tensor(1024.0))
    for name, value in plain.values().items():
        assert value.min() > 0
        assert torch.equal(scaled.values()[name], value)  # a power of two changes exponents alone
        assert torch.equal(by_tensor.values()[name], value)


def test_a_step_that_a_scaler_leaves_out_adds_nothing():
    model = small()
    record, expected = Elasticity(model), Elasticity(model)
    for one in (record, expected):
        one.update(step(model))
    loss = step(model, seed=2)
    model[3].weight.grad[0, 0, 0, 0] = math.inf
    record.update(loss)
    assert all(torch.equal(record.values()[name], value) for name, value in expected.values().items())


def test_layers_without_a_gradient_stay_at_zero():
    model = small()
    model[0].requires_grad_(False)
    record = Elasticity(model)
    record.update(step(model))
    assert record.values()["0"].tolist() == [0] * 4
    assert record.values()["3"].min() > 0
    model.zero_grad()
    before = record.values()["3"]
    record.update(torch.tensor(1.0))  # no gradient at all: nothing happens
    assert torch.equal(record.values()["3"], before)


def test_a_loss_of_zero_is_no_division_by_zero():
    conv, x, factors = one_filter_by_hand()
    (conv(x) * factors).sum().backward()
    record = Elasticity(conv, eps=0.5)
    record.update(torch.tensor(0.0))
    assert record.values()[""].tolist() == pytest.approx([9 / 0.5, 2.5 / 0.5])
    with pytest.raises(InputError, match="eps is 0"):
        Elasticity(conv, eps=0)


def test_reset_and_state():
    model = small()
    record, whole = Elasticity(model), Elasticity(model)
    for one in (record, whole):
        one.update(step(model))
    other = Elasticity(model)
    other.load_state_dict(record.state_dict())
    for one in (other, whole):
        one.update(step(model, seed=2))
    assert all(torch.equal(other.values()[name], value) for name, value in whole.values().items())
    record.reset()
    assert record.values() == {}
    other.load_state_dict(record.state_dict())
    assert other.values() == {}
    with pytest.raises(InputError, match="another network: 0, 3 differ"):
        Elasticity(nn.Sequential(nn.Conv2d(1, 2, 1))).load_state_dict(whole.state_dict())


def test_the_network_stays_as_it_is():
    model = small()
    loss = step(model)
    before = [(p.clone(), p.grad.clone()) for p in model.parameters()]
    Elasticity(model).update(loss)
    assert all(
        torch.equal(p, value) and torch.equal(p.grad, grad)
        for p, (value, grad) in zip(model.parameters(), before, strict=True)
    )


@pytest.mark.gpu
def test_gpu():
    model = small()
    expected = Elasticity(model)
    expected.update(step(model))
    twin = small()
    record = Elasticity(twin)  # before the network moves
    twin.to("cuda", memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 6, 6, generator=generator).cuda()
    loss = F.cross_entropy(twin(x), torch.randint(0, 3, (4,), generator=generator).cuda())
    loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        record.update(loss)
        record.update(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, value in expected.values().items():
        assert torch.allclose(record.values()[name], 2 * value, rtol=1e-2)
