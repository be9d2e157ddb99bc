"""Networks in 8 bits: weights rounded by the outputs of their layer, and biases that take back the mean shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from rssearch import models
from rssearch.cost.int8 import CALIBRATIONS, _static, to_int8
from rssearch.cost.int8_layers import Layer, dequantised, inputs_of, layers_of
from rssearch.cost.onnx import OnnxNetwork, to_onnx
from rssearch.cost.weight_rounding import _second_moments, round_by_output


def images(count: int, *, seed: int = 0) -> Tensor:
    return torch.rand(count, 4, 12, 12, generator=torch.Generator().manual_seed(seed)) + 0.5


def layers(content: bytes, quantised: bytes) -> list[Layer]:
    return layers_of(onnx.load_from_string(content), onnx.load_from_string(quantised))


def constants(content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load_from_string(content).graph.initializer}


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
    content, seen = to_onnx(network, (4, 12, 12)), [images(5), images(3, seed=1)]
    plain, adjusted = _static(content, seen, "minmax"), to_int8(content, seen)["minmax"]
    (before,), (after,) = layers(content, plain), layers(content, adjusted)
    assert before.bias is not None
    assert after.bias is not None
    changed = {
        each for each, values in constants(plain).items() if not np.array_equal(values, constants(adjusted)[each])
    }
    assert before.bias.name in changed
    assert changed <= {before.bias.name, before.rounded_name}
    assert np.abs(after.rounded).max() <= 64  # 7 bits

    def mean(weight: np.ndarray[Any, Any]) -> Tensor:
        layer = network.layer
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        layer.weight.data = torch.from_numpy(weight.copy())
        with torch.no_grad():
            given = network(torch.cat(seen)).double()
        return given.mean([dim for dim in range(given.dim()) if dim != 1])

    shift = (mean(dequantised(after.rounded, after.scale, after.axis)) - mean(after.weight)).numpy()
    moved = (after.bias.rounded.astype(np.int64) - before.bias.rounded) * before.bias.scale
    assert np.abs(shift).max() > before.bias.scale.max()  # there is something to correct
    assert np.abs(moved + shift).max() <= 0.51 * before.bias.scale.max()


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "transposed"])
def test_second_moments_say_what_the_squares_of_the_outputs_are(name: str) -> None:
    torch.manual_seed(0)
    network = LAYERS[name]().eval()
    layer = network.layer
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    content, x = to_onnx(network, (4, 12, 12)), images(3)
    (found,) = layers(content, _static(content, [x], "minmax"))
    read = x.mean((2, 3)) if name == "linear" else x
    moments = _second_moments(found, read)
    filters = layer.weight.detach().double().reshape(len(moments), -1, moments.shape[1])
    with torch.no_grad():
        outputs = layer(read) - layer.bias.reshape(-1, *[1] * (read.dim() - 2))
    squares = outputs.double().square().sum([dim for dim in range(outputs.dim()) if dim != 1]).reshape(len(moments), -1)
    torch.testing.assert_close(torch.einsum("gkn,gnm,gkm->gk", filters, moments, filters), squares, rtol=1e-4, atol=0)


def test_of_large_maps_positions_are_drawn_from_everywhere() -> None:
    """As many as steps of a row's length would read: then all would be on the left edge, beside the padding."""
    torch.manual_seed(0)
    network = Alone(nn.Conv2d(4, 6, 3, padding=1)).eval()
    content = to_onnx(network, (4, 12, 12))
    (found,) = layers(content, _static(content, [images(8)], "minmax"))
    x = torch.ones(32, 4, 64, 64)
    moments = _second_moments(found, x).reshape(4, 3, 3, 4, 3, 3)[0, :, :, 0, :, :]
    seen = moments[1, 1, 1, 1]  # the weight in the middle of a filter reads no padding
    assert seen == 2048
    for row, column in ((0, 1), (1, 0), (1, 2), (2, 1)):  # those at an edge read it in one of 64 positions
        assert 0.94 * seen < moments[row, column, row, column] < seen


def test_inputs_that_go_together_share_the_error_and_others_are_rounded_to_the_nearest() -> None:
    weight, scale = torch.tensor([[[0.4, 0.4, 0.4]]]), torch.ones(1, 1)
    assert round_by_output(weight, scale, torch.eye(3)[None], 63).tolist() == [[[0, 0, 0]]]
    together = torch.ones(1, 3, 3)  # the sum of the weights alone matters: 1.2
    assert round_by_output(weight, scale, together, 63).sum() == 1
    assert round_by_output(100 * weight, scale, together, 63).max() == 40
    assert round_by_output(200 * weight, scale, together, 63).max() == 63
    assert round_by_output(weight, scale, torch.zeros(1, 3, 3), 63).tolist() == [
        [[0, 0, 0]]
    ]  # inputs that are always 0


def test_the_error_of_the_outputs_is_less_than_that_of_rounding_to_the_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 400, 5, generator=generator) @ torch.randn(2, 5, 20, generator=generator)
    inputs += 0.3 * torch.randn(2, 400, 20, generator=generator)
    weight, scale = torch.randn(2, 8, 20, generator=generator), torch.full((2, 8), 0.1)
    steps = round_by_output(weight, scale, inputs.mT @ inputs, 63)

    def error(rounded: Tensor) -> float:
        return float(((rounded * 0.1 - weight) @ inputs.double().mT).square().mean())

    assert error(steps) < error((weight / 0.1).round().double()) / 3


def test_inputs_are_rounded_in_order_and_those_behind_a_block_take_over_its_errors() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 150, generator=generator, dtype=torch.float64)
    moments = inputs.T @ inputs
    weight, step = torch.randn(3, 150, generator=generator, dtype=torch.float64), 0.2
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(150)
    factor = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    rest, expected = weight.clone(), torch.zeros_like(weight)
    for n in range(150):
        expected[:, n] = (rest[:, n] / step).round().clamp(-63, 63)
        rest -= ((rest[:, n] - expected[:, n] * step) / factor[n, n])[:, None] * factor[n]
    found = round_by_output(weight[None], torch.full((1, 3), step), moments[None], 63)
    assert torch.equal(found[0], expected)


def test_a_deep_network_is_nearer_to_itself() -> None:
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
    exact = OnnxNetwork(content)(others)

    def error(converted: bytes) -> Tensor:
        return OnnxNetwork(converted)(others) - exact

    plain, adjusted = error(to_int8(content, [seen], learned=True)["minmax"]), error(to_int8(content, [seen])["minmax"])
    assert adjusted.mean(0).abs().max() < plain.mean(0).abs().max() / 4
    assert adjusted.square().mean() < plain.square().mean() / 4


def test_what_has_learned_to_be_rounded_stays_and_weights_are_those_of_each_calibration() -> None:
    torch.manual_seed(0)
    content, seen = to_onnx(Without().eval(), (4, 12, 12)), [images(8)]
    learned, adjusted = to_int8(content, seen, CALIBRATIONS, learned=True), to_int8(content, seen, CALIBRATIONS)
    for way in CALIBRATIONS:
        assert learned[way] == _static(content, seen, way)
        alone = to_int8(content, seen, [way])[way]
        one, other = constants(alone), constants(adjusted[way])
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_transposed_convolution_in_groups_stays_in_float32() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, stride=2, groups=4)).eval()
    content, x = to_onnx(network, (4, 12, 12)), images(8)
    converted = to_int8(content, [x])["minmax"]
    (first,) = layers(content, converted)
    assert first.node.op_type == "Conv"
    assert (OnnxNetwork(converted)(x) - OnnxNetwork(content)(x)).abs().max() < 0.05


def test_a_filter_of_zeros_stays_so() -> None:
    torch.manual_seed(0)
    network = Alone(nn.Conv2d(4, 6, 3, padding=1)).eval()
    assert isinstance(network.layer, nn.Conv2d)
    with torch.no_grad():
        network.layer.weight[2] = 0
    content, x = to_onnx(network, (4, 12, 12)), images(8)
    converted = to_int8(content, [x])["minmax"]
    (layer,) = layers(content, converted)
    assert not layer.rounded[2].any()
    assert (OnnxNetwork(converted)(x) - OnnxNetwork(content)(x)).abs().max() < 0.05


class Without(nn.Module):
    """A layer without a bias, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.twice(torch.relu(self.twice(torch.relu(self.first(x)))))
        return maps


def test_a_layer_that_is_called_twice_keeps_one_weight_and_has_two_biases() -> None:
    torch.manual_seed(0)
    content, seen = to_onnx(Without().eval(), (4, 12, 12)), [images(8)]
    plain, adjusted = constants(_static(content, seen, "minmax")), constants(to_int8(content, seen)["minmax"])
    moved = {name for name in plain if not np.array_equal(plain[name], adjusted[name])}
    assert {name for name in moved if "bias" in name} == {"twice.bias_quantized", "twice.bias0_quantized"}
    assert moved <= {name for name in plain if name.endswith("_quantized")}
    model = onnx.load_from_string(content)
    _, *twice = layers(content, to_int8(content, seen)["minmax"])
    _, *before = layers(content, _static(content, seen, "minmax"))
    (inputs,) = inputs_of(model, twice, seen)
    for layer, old in zip(twice, before, strict=True):
        assert layer.bias is not None
        assert old.bias is not None
        error = torch.from_numpy(dequantised(layer.rounded, layer.scale, layer.axis) - layer.weight)
        read = torch.from_numpy(inputs[layer.node.input[0]])
        shift = nn.functional.conv2d(read, error, padding=1).double().mean((0, 2, 3)).numpy()
        moved = (layer.bias.rounded.astype(np.int64) - old.bias.rounded) * old.bias.scale
        assert np.abs(moved + shift).max() <= 0.51 * old.bias.scale.max()
