"""ONNX models made of another one: with the preprocessing inside, in float16, and in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from rssearch.cost.onnx import INPUT, OUTPUT

__all__ = ["FP16_TOLERANCE", "PIXELS", "PROBABILITIES", "end_to_end", "to_bf16", "to_fp16"]

PIXELS, PROBABILITIES = "pixels", "probabilities"
# Of the logits between float32 and float16, relative to the largest where that is above 1: a number has 11 bits.
FP16_TOLERANCE = 1e-2
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")  # what is computed in bfloat16


def end_to_end(
    content: bytes,
    factor: npt.NDArray[np.float32],
    offset: npt.NDArray[np.float32],
    dtype: str,
    fill: Sequence[float],
    nodata: float | None = None,
    *,
    several: bool = False,
) -> bytes:
    """Put what is done before and behind a network into the model.

    Args:
        content: from ``image``, float32 [B, C, H, W], to ``logits`` [B, K, ...].
        factor: float32 of C numbers, which raw values are multiplied by.
        offset: float32 [C], which is added.
        dtype: of the raw values.
        fill: what stands for values without data in each band: those that are `nodata`, or no finite numbers.
        nodata: the value that marks them; None: there is none.
        several: whether an image may have several classes, whose probabilities are sigmoids; else they are a softmax.

    Returns:
        The model from ``pixels``, raw values [B, C, H, W], to ``probabilities``, float32 [B, K, ...].
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    (given,), (found,) = graph.input, graph.output
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def constant(name: str, values: Sequence[float] | npt.NDArray[np.float32]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32).reshape(1, -1, 1, 1), name))
        return name

    before = [helper.make_node("Cast", [PIXELS], ["pixels_float"], to=onnx.TensorProto.FLOAT)]
    raw = "pixels_float"
    if dtype == "float32":  # neither NaN nor an infinite number is less than that
        before.append(helper.make_node("Abs", [raw], ["pixels_size"]))
        before.append(
            helper.make_node("Less", ["pixels_size", constant("pixels_infinite", [np.inf])], ["pixels_finite"])
        )
        before.append(
            helper.make_node("Where", ["pixels_finite", raw, constant("pixels_fill", fill)], ["pixels_numbers"])
        )
        raw = "pixels_numbers"
    if nodata is not None:
        before.append(helper.make_node("Equal", [raw, constant("pixels_nodata", [nodata])], ["pixels_lost"]))
        before.append(
            helper.make_node("Where", ["pixels_lost", constant("pixels_filling", fill), raw], ["pixels_filled"])
        )
        raw = "pixels_filled"
    before.append(helper.make_node("Mul", [raw, constant("pixels_factor", factor)], ["pixels_scaled"]))
    before.append(helper.make_node("Add", ["pixels_scaled", constant("pixels_offset", offset)], [INPUT]))
    if several:
        behind = helper.make_node("Sigmoid", [OUTPUT], [PROBABILITIES])
    else:
        behind = helper.make_node("Softmax", [OUTPUT], [PROBABILITIES], axis=1)
    nodes = [*before, *graph.node, behind]
    del graph.node[:]
    graph.node.extend(nodes)
    given.name, given.type.tensor_type.elem_type = PIXELS, kind
    found.name = PROBABILITIES
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def to_fp16(content: bytes) -> bytes:
    """Weights and computation in float16; input and output stay float32.

    Args:
        content: a float32 model.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(onnx.load_from_string(content), keep_io_types=True)
    # It casts a number that several nodes need once for each, by nodes of the same name.
    nodes = {(node.name, *node.output): node for node in model.graph.node}
    kept = list(nodes.values())
    del model.graph.node[:]
    model.graph.node.extend(kept)
    OnnxModel(model).topological_sort()  # the casts are behind all other nodes
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def to_bf16(content: bytes) -> bytes:
    """Round what convolutions and linear layers multiply to bfloat16; sums, biases and all else stay in float32.

    So do processors with products of bfloat16 (AVX512-BF16, AMX, GPUs). onnxruntime has no such convolution on CPUs:
    the factors are rounded by casts there and back, which gives the same numbers on any processor, but not their speed.
    Weights are kept in 16 bits.

    Args:
        content: a float32 model.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    casts: dict[str, list[onnx.NodeProto]] = {}  # by what is rounded
    kept: dict[str, onnx.TensorProto] = {}

    def rounded(name: str) -> str:
        if name not in casts:
            short, back = f"{name}_bf16", f"{name}_rounded"
            nodes = [helper.make_node("Cast", [short], [back], back, to=onnx.TensorProto.FLOAT)]
            if name in weights:
                kept[short] = _bfloat16(weights[name], short)
            else:
                nodes.insert(0, helper.make_node("Cast", [name], [short], short, to=onnx.TensorProto.BFLOAT16))
            casts[name] = nodes
        return f"{name}_rounded"

    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type in _PRODUCTS:
            known = set(casts)
            node.input[0], node.input[1] = rounded(node.input[0]), rounded(node.input[1])
            nodes += [cast for name, made in casts.items() if name not in known for cast in made]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*tensors, *kept.values()])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _bfloat16(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Rounded to the nearest, ties to even, as torch rounds."""
    import torch

    values = torch.from_numpy(numpy_helper.to_array(tensor).copy()).bfloat16().view(torch.int16).numpy()
    return helper.make_tensor(name, onnx.TensorProto.BFLOAT16, list(tensor.dims), values.tobytes(), raw=True)
