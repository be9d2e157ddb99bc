"""Networks in ONNX compute what they compute in torch."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from rssearch import models
from rssearch.cost.onnx import INPUT, OPSET, OUTPUT, OnnxNetwork, to_onnx
from rssearch.cost.onnx_variants import to_bf16
from rssearch.models.resnet_cifar import IndexShortcut


@pytest.mark.parametrize("name", ["resnet20", "micronet"])
def test_onnxruntime_computes_the_same_for_any_batch(name: str) -> None:
    torch.manual_seed(0)
    model = models.create(name, 6, input_size=40).train()
    for module in model.modules():
        if isinstance(module, IndexShortcut):
            module.scale_inputs(torch.rand(module.in_channels))
    content = to_onnx(model, (3, 40, 40))
    assert model.training, "the network is left as it is"
    (opset,) = onnx.load_from_string(content).opset_import
    assert (opset.domain, opset.version) == ("", OPSET)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == [OUTPUT]
    model.eval()
    for batch in (1, 3):
        images = torch.randn(batch, 3, 40, 40)
        with torch.inference_mode():
            expected = model(images)
        (got,) = session.run(None, {INPUT: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-4, rtol=0)


def test_products_of_bfloat16_are_those_of_rounded_factors() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=4), nn.Linear(8, 5))

    def forward(x: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        wide, grouped, last = layers
        x = nn.functional.conv2d(rounded(x), rounded(wide.weight), wide.bias, padding=1).relu()
        x = x + nn.functional.pad(
            nn.functional.conv2d(rounded(x), rounded(grouped.weight), grouped.bias, groups=4), [1] * 4
        )
        return nn.functional.linear(rounded(x.mean((2, 3))), rounded(last.weight), last.bias)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return forward(x, lambda values: values)

    content = to_onnx(Network().eval(), (3, 12, 12))
    found, images = to_bf16(content), torch.randn(4, 3, 12, 12)
    with torch.inference_mode():
        expected, exact = (
            forward(images, lambda values: values.bfloat16().float()),
            forward(images, lambda values: values),
        )
    got = OnnxNetwork(found)(images)
    # A sum in another order moves a number across the border between two of bfloat16 now and then.
    assert (got - expected).abs().max() < 0.2 * (got - exact).abs().max()
    assert (got - exact).abs().max() > 3e-4
    weights = [w for w in onnx.load_from_string(found).graph.initializer if w.data_type == onnx.TensorProto.BFLOAT16]
    assert sorted(tuple(w.dims) for w in weights) == [(5, 8), (8, 2, 3, 3), (8, 3, 3, 3)]
