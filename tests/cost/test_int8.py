"""Biases that take back what rounded weights do to the mean of a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rssearch import models
from rssearch.cost.bias_correction import bias_corrected
from rssearch.cost.onnx import OnnxNetwork, _rounded, to_int8, to_onnx


def images(count: int, *, seed: int = 0, channels: int = 4) -> Tensor:
    return torch.rand(count, channels, 12, 12, generator=torch.Generator().manual_seed(seed)) + 0.5


def constants(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return {
        each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(content).graph.initializer
    }


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.mean((2, 3)))
        return logits


class Alone(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.layer(x)
        return maps


LAYERS = {
    "padded": lambda: Alone(nn.Conv2d(4, 6, 3, padding=1)),
    "stride": lambda: Alone(nn.Conv2d(4, 6, 3, stride=2)),
    "dilated groups": lambda: Alone(nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2)),
    "depthwise": lambda: Alone(nn.Conv2d(4, 8, 3, groups=4)),
    "transposed": lambda: Alone(nn.ConvTranspose2d(4, 6, 2, stride=2)),
    "linear": Head,
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_bias_moves_by_what_the_error_of_the_weights_adds_in_the_mean(name: str) -> None:
    torch.manual_seed(0)
    network = LAYERS[name]().eval()
    content = to_onnx(network, (4, 12, 12))
    quantised = _rounded(content, [images(8)], "minmax")
    corrected = bias_corrected(content, quantised, [images(5), images(3, seed=1)])
    before, after = constants(quantised), constants(corrected)
    (bias,) = (each for each in before if each.endswith("bias_quantized"))
    assert {each for each in before if not np.array_equal(before[each], after[each])} == {bias}

    def mean(weight: np.ndarray[Any, Any]) -> Tensor:
        layer = network.layer
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        known = layer.weight.detach().clone()
        layer.weight.data = torch.from_numpy(weight.copy())
        with torch.no_grad():
            given = network(torch.cat([images(5), images(3, seed=1)])).double()
        layer.weight.data = known
        return given.mean([dim for dim in range(given.dim()) if dim != 1])

    exact = onnx.numpy_helper.to_array(
        next(each for each in onnx.load_from_string(content).graph.initializer if each.name.endswith("weight"))
    )
    weight = next(each.removesuffix("_quantized") for each in before if each.endswith("weight_quantized"))
    axis = 1 if name == "transposed" else 0
    scale = before[f"{weight}_scale"].reshape([-1 if dim == axis else 1 for dim in range(exact.ndim)])
    as_rounded = (before[f"{weight}_quantized"] * scale).astype(np.float32)
    if as_rounded.shape != network.layer.weight.shape:
        as_rounded, exact = as_rounded.T, exact.T
    shift = (mean(as_rounded) - mean(exact)).numpy()
    step = before[f"{bias}_scale"]
    moved = (after[bias].astype(np.int64) - before[bias]) * step
    assert np.abs(shift).max() > 3 * step.max()  # there is something to correct
    assert np.abs(moved + shift).max() <= 0.51 * step.max()


def test_the_means_of_a_deep_networks_logits_come_back() -> None:
    generator = torch.Generator().manual_seed(0)
    network = models.create("resnet20", 6)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.3)  # type: ignore[union-attr]
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) * 1.5 + 0.5)  # type: ignore[union-attr]
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.3
    network.eval()
    content = to_onnx(network, (3, 32, 32))
    seen, others = torch.randn(32, 3, 32, 32, generator=generator), torch.randn(64, 3, 32, 32, generator=generator)
    quantised = _rounded(content, [seen], "minmax")
    exact = OnnxNetwork(content)(others)

    def shift(converted: bytes) -> float:
        return float((OnnxNetwork(converted)(others) - exact).mean(0).abs().max())

    assert shift(to_int8(content, [seen])) < shift(quantised) / 4


class Without(nn.Module):
    """A layer without a bias, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.twice(torch.relu(self.twice(torch.relu(self.first(x)))))
        return maps


def test_a_layer_without_a_bias_stays_and_one_that_is_called_twice_has_two() -> None:
    torch.manual_seed(0)
    content = to_onnx(Without().eval(), (4, 12, 12))
    quantised = _rounded(content, [images(8)], "minmax")
    before, after = constants(quantised), constants(bias_corrected(content, quantised, [images(8)]))
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith("_quantized") and "bias" in name}
    assert len(moved) == 2
