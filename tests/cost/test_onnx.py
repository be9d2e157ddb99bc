"""Networks in ONNX compute what they compute in torch."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch

from rssearch import models
from rssearch.cost.onnx import INPUT, OPSET, OUTPUT, to_onnx
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
