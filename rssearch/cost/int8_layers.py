"""The layers of a quantised ONNX model whose weights are constants, beside those of the model that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

__all__ = ["Bias", "Layer", "dequantised", "inputs_of", "layers_of"]

_KINDS = ("Conv", "ConvTranspose", "Gemm")

Array = np.ndarray[Any, Any]


class Bias(NamedTuple):
    """The bias of a layer: the constant that holds it, in whole steps, and its steps."""

    name: str
    rounded: Array
    scale: Array


class Layer(NamedTuple):
    """A layer that both models have.

    Attributes:
        node: of the float32 model.
        weight: in float32.
        rounded: the same in whole steps.
        rounded_name: of the constant of the quantised model that holds it.
        scale: the steps, one for each entry of an axis of the weight, or one for all.
        axis: that axis.
        bias: None where it has none.
    """

    node: Any
    weight: Array
    rounded: Array
    rounded_name: str
    scale: Array
    axis: int
    bias: Bias | None


def layers_of(whole: Any, quantised: Any) -> list[Layer]:
    """The layers of a float32 model that a quantised one has under the same name, with constant weights."""
    from onnx import numpy_helper

    floats = {each.name: each for each in whole.graph.initializer}
    constants = {each.name: each for each in quantised.graph.initializer}
    made = {name: node for node in quantised.graph.node for name in node.output}
    found = {node.name: node for node in quantised.graph.node if node.op_type in _KINDS}
    layers = []
    for node in whole.graph.node:
        if node.name not in found or node.input[1] not in floats or node.input[0] in floats:
            continue
        weight, bias = (made.get(name) for name in (*found[node.name].input, "")[1:3])
        if weight is None or weight.input[0] not in constants:
            continue
        rounded, scale = (numpy_helper.to_array(constants[name]) for name in weight.input[:2])
        axis = next((each.i for each in weight.attribute if each.name == "axis"), 1) % rounded.ndim
        held = None
        if bias is not None and bias.input[0] in constants:
            held = Bias(bias.input[0], *(numpy_helper.to_array(constants[name]) for name in bias.input[:2]))
        exact = numpy_helper.to_array(floats[node.input[1]])
        layers.append(Layer(node, exact, rounded, weight.input[0], scale, axis, held))
    return layers


def dequantised(rounded: Array, scale: Array, axis: int) -> Array:
    """Weights in whole steps, symmetric around 0, as float32."""
    shape = [-1 if dim == axis else 1 for dim in range(rounded.ndim)] if scale.ndim else []
    return np.asarray(rounded.astype(np.float32) * scale.reshape(shape))


def inputs_of(model: Any, layers: Sequence[Layer], images: Iterable[Tensor]) -> Iterator[dict[str, Array]]:
    """What layers of a float32 model read: for each batch of images by the name of the tensor, float32 [B, ...]."""
    import onnx
    import onnxruntime

    (given,) = model.graph.input
    inner = [name for name in dict.fromkeys(layer.node.input[0] for layer in layers) if name != given.name]
    telling = onnx.ModelProto()
    telling.CopyFrom(model)
    telling.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(telling.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for batch in images:
        feed = {given.name: batch.numpy()}
        found = session.run(inner, feed) if inner else []  # of no names it gives all
        yield feed | dict(zip(inner, found, strict=True))
