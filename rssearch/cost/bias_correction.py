"""The shift that rounded weights give to the mean of each channel, which the bias of the layer takes back.

Nagel et al., ICCV 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2: rounding
moves the weights of a filter by errors whose sum over many inputs is not 0, so the mean of its output moves. Here the
mean inputs are measured on images, not derived from batch normalisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rssearch.cost.int8_layers import Array, Layer, inputs_of

__all__ = ["mean_shifts"]


def mean_shifts(
    model: Any, layers: Sequence[Layer], errors: Mapping[str, Array], images: Iterable[Tensor]
) -> dict[str, Array]:
    """What errors of the weights add to the mean of each output channel of their layers.

    A layer is linear, so the mean of its outputs is its output for the mean of its inputs.

    Args:
        model: the float32 ONNX model.
        layers: of the model.
        errors: of their weights, by the name of the layer.
        images: batches float32 [B, C, H, W], normalised, not augmented.

    Returns:
        The shifts [K] in float64, by the name of the layer.
    """
    sums: dict[str, Any] = {}
    count = 0
    for found in inputs_of(model, layers, images):
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value.sum(0, keepdims=True, dtype=np.float64)
        count += len(value)
    return {
        layer.node.name: _outputs(model, layer.node, sums[layer.node.input[0]] / count, errors[layer.node.name])
        for layer in layers
    }


def _outputs(model: Any, node: Any, inputs: Array, weight: Array) -> Array:
    """The outputs [1, K, ...] of a layer with other weights and no bias, averaged over their positions: [K]."""
    import onnx
    import onnxruntime

    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:], alone.output[:]
    alone.input.extend(["x", "w"])
    alone.output.append("y")
    graph = onnx.helper.make_graph(
        [alone],
        "layer",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, inputs.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    layer = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(layer.SerializeToString(), providers=["CPUExecutionProvider"])
    (added,) = session.run(None, {"x": inputs.astype(np.float32)})
    shift: Array = np.asarray(added, np.float64).reshape(*added.shape[:2], -1).mean((0, 2))
    return shift
