"""The shift that rounded weights give to the mean of each channel, taken back by the layer's bias.

Nagel et al., ICCV 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2: rounding
moves the weights of a filter by an error whose sum over many inputs is not 0, so that the mean of its output moves. The
mean inputs are measured here on calibration images, not derived from batch normalisation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["bias_corrected"]

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


def bias_corrected(content: bytes, quantised: bytes, images: Iterable[Tensor]) -> bytes:
    """Correct the biases of a quantised network.

    A layer is linear, so the mean of its outputs is its output for the mean of its inputs: the shift of a channel is what
    the rounding error of the weights makes of the mean input of the float32 network, averaged over the map.

    Args:
        content: the float32 ONNX model, batch normalisation folded.
        quantised: what `rssearch.cost.onnx.to_int8` made of it: nodes keep their names.
        images: batches float32 [B, C, H, W] that measure the mean inputs, normalised, not augmented.

    Returns:
        The quantised model with other int32 biases. A layer without a bias stays as it is.
    """
    import onnx

    model = onnx.load_from_string(quantised)
    constants = {each.name: each for each in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    layers = {node.name: node for node in model.graph.node if node.op_type in _LAYERS}
    whole = onnx.load_from_string(content)
    floats = {each.name: onnx.numpy_helper.to_array(each) for each in whole.graph.initializer}
    own = [node for node in whole.graph.node if node.name in layers and node.input[1] in floats]
    means = _means(whole, [node.input[0] for node in own], images)
    for node in own:
        weight, bias = (made.get(name) for name in (*layers[node.name].input, "", "")[1:3])
        if weight is None or bias is None:
            continue
        error = _dequantised(weight, constants) - floats[node.input[1]]
        shift = _shift(node, means[node.input[0]], error)
        scale = onnx.numpy_helper.to_array(constants[bias.input[1]])
        held = constants[bias.input[0]]
        limits = np.iinfo(np.int32)
        whole_steps = onnx.numpy_helper.to_array(held).astype(np.float64) - np.rint(shift / scale)
        corrected = np.clip(whole_steps, limits.min, limits.max).astype(np.int32)
        held.CopyFrom(onnx.numpy_helper.from_array(corrected, held.name))
    return bytes(model.SerializeToString())


def _means(model: Any, names: list[str], images: Iterable[Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """The mean of tensors of a model over images: [1, ...] each, float32."""
    import onnx
    import onnxruntime

    (given,) = model.graph.input
    inner = [name for name in dict.fromkeys(names) if name != given.name]
    telling = onnx.ModelProto()
    telling.CopyFrom(model)
    telling.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(telling.SerializeToString(), options, providers=["CPUExecutionProvider"])
    sums: dict[str, Any] = dict.fromkeys((given.name, *inner), 0.0)
    count = 0
    for batch in images:
        found = session.run(inner, {given.name: batch.numpy()}) if inner else []  # of no names it gives all
        for name, value in zip(sums, (batch.numpy(), *found), strict=True):
            sums[name] = sums[name] + value.sum(0, keepdims=True, dtype=np.float64)
        count += len(batch)
    return {name: (value / count).astype(np.float32) for name, value in sums.items()}


def _shift(node: Any, mean: np.ndarray[Any, Any], error: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What an error of a layer's weights adds to the mean of each of its output channels: [K]."""
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
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, mean.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(error.astype(np.float32), "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (added,) = session.run(None, {"x": mean})
    return np.asarray(added, np.float64).reshape(*added.shape[:2], -1).mean((0, 2))


def _dequantised(node: Any, constants: dict[str, Any]) -> np.ndarray[Any, Any]:
    """What a DequantizeLinear makes of a constant, with a scale for each entry of its axis."""
    import onnx

    values, scale, zero = (onnx.numpy_helper.to_array(constants[name]).astype(np.float32) for name in node.input)
    if scale.ndim == 0:
        return np.asarray((values - zero) * scale)
    axis = next((each.i for each in node.attribute if each.name == "axis"), 1)
    shape = [-1 if dim == axis % values.ndim else 1 for dim in range(values.ndim)]
    return np.asarray((values - zero.reshape(shape)) * scale.reshape(shape))
