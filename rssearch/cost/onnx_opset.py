"""ONNX models in an older opset, for the converters and microcontroller tools that read no newer one.

The converter of the onnx package has no adapters below opset 18 for `Pad`, and leaves attributes that the older
operator does not have. An operator that has no rule here is refused, not written in another meaning: afterwards both
models compute the same on random values, or it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import defs, helper, numpy_helper

from rssearch.cost.onnx import OPSET, TOLERANCE
from rssearch.errors import InputError, cut

__all__ = ["OPSETS", "lowered"]

OPSETS = (17, 18, 19, OPSET)  # those that can be asked for
_DEFAULT = ("", "ai.onnx")  # the names of the domain of the standard


def lowered(content: bytes, opset: int) -> bytes:
    """Write a model in an older opset.

    Args:
        content: a model of a fixed size but for its batch, in opset 20 or older.
        opset: one of `OPSETS`.

    Returns:
        The model, which computes the same; as it was, if it is no newer.

    Raises:
        InputError: an operator cannot be written in that opset.
    """
    model = onnx.load_from_string(content)
    (entry,) = (item for item in model.opset_import if item.domain in _DEFAULT)
    if entry.version <= opset:
        return content
    for graph in _graphs(model.graph):
        values = _constants(graph)
        nodes = [older for node in graph.node for older in _older(node, entry.version, opset, values)]
        del graph.node[:]
        graph.node.extend(nodes)
        _drop_unused(graph)
    entry.version = opset
    model.ir_version = min(model.ir_version, helper.find_min_ir_version_for(list(model.opset_import)))
    found = bytes(model.SerializeToString())
    try:
        onnx.checker.check_model(model, full_check=True)
        furthest = _difference(content, found)
    except Exception as error:  # the boundary: checker, shape inference and onnxruntime have errors of their own
        raise InputError(f"opset {opset}: {cut(' '.join(str(error).split()), 300)}") from error
    if not furthest <= TOLERANCE:
        raise InputError(f"opset {opset}: the model would differ by up to {furthest:.2g}")
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _constants(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Integers of a graph that are known: initializers, and outputs of `Constant`."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return {
        name: [int(value) for value in numpy_helper.to_array(tensor).ravel()]
        for name, tensor in tensors.items()
        if tensor.data_type in whole
    }


def _older(node: onnx.NodeProto, present: int, opset: int, values: dict[str, list[int]]) -> list[onnx.NodeProto]:
    """A node by nodes of an older opset; itself, where that has the same operator."""
    if node.domain not in _DEFAULT:
        return [node]
    schema = defs.get_schema(node.op_type, present)
    if schema.since_version <= opset:
        return [node]
    if node.op_type in _RULES:
        return _RULES[node.op_type](node, opset, values)
    try:
        before = defs.get_schema(node.op_type, opset)
    except defs.SchemaError:
        raise _refused(node, opset) from None
    return [_with_attributes_of(node, schema, before, opset)]


def _with_attributes_of(
    node: onnx.NodeProto, schema: defs.OpSchema, before: defs.OpSchema, opset: int
) -> onnx.NodeProto:
    """The same operator with fewer attributes, if those that are lost say what it does without them."""
    if len(node.input) > before.max_input or len(node.output) > before.max_output:
        raise _refused(node, opset)
    for attribute in list(node.attribute):
        if attribute.name not in before.attributes:
            default = schema.attributes[attribute.name].default_value
            if not default.name or helper.get_attribute_value(attribute) != helper.get_attribute_value(default):
                raise _refused(node, opset)
            node.attribute.remove(attribute)
    return node


def _pad(node: onnx.NodeProto, opset: int, _values: dict[str, list[int]]) -> list[onnx.NodeProto]:
    """Since 18 it may name axes, since 19 it can wrap; torch's exporter does neither."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"constant")
    if (len(node.input) > 3 and node.input[3] and opset < 18) or mode == b"wrap":
        raise _refused(node, opset)
    if opset < 18:
        del node.input[3:]
    return [node]


def _reduce(node: onnx.NodeProto, opset: int, values: dict[str, list[int]]) -> list[onnx.NodeProto]:
    """Until 17 its axes were an attribute."""
    if opset >= 18:
        return [node]
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    empty = kept.pop("noop_with_empty_axes", 0)
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in values:
            raise _refused(node, opset)
        kept["axes"] = values[node.input[1]]
    if not kept.get("axes") and empty:
        raise _refused(node, opset)
    return [helper.make_node(node.op_type, node.input[:1], node.output, node.name, **kept)]


def _gelu(node: onnx.NodeProto, opset: int, _values: dict[str, list[int]]) -> list[onnx.NodeProto]:
    """Half of x times (1 + erf(x / sqrt(2))): an operator of its own since 20."""
    if any(a.name == "approximate" and a.s != b"none" for a in node.attribute):
        raise _refused(node, opset)
    (given,), (found,) = node.input, node.output
    made: list[onnx.NodeProto] = []

    def step(kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{found}_gelu_{len(made)}"
        made.append(helper.make_node(kind, inputs, [name], f"{node.name}_{len(made)}", **attributes))
        return name

    def number(value: float) -> str:
        plain = step("Constant", [], value=numpy_helper.from_array(np.asarray(value, np.float32)))
        return step("CastLike", [plain, given])

    error = step("Erf", [step("Mul", [given, number(0.5**0.5)])])
    share = step("Add", [error, number(1.0)])
    step("Mul", [step("Mul", [given, number(0.5)]), share], found)
    return made


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_RULES: dict[str, Callable[[onnx.NodeProto, int, dict[str, list[int]]], list[onnx.NodeProto]]] = {
    "Pad": _pad,
    "Gelu": _gelu,
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
}


def _refused(node: onnx.NodeProto, opset: int) -> InputError:
    return InputError(
        f"opset {opset}: the network has the operator {node.op_type} ({node.name}), which cannot be written in it; "
        f"opset {OPSET} holds the network as it is"
    )


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Initializers that only said axes."""
    used = {name for inner in _graphs(graph) for node in inner.node for name in node.input}
    used |= {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _difference(content: bytes, found: bytes) -> float:
    """How far the outputs of two models are apart on random values, relative to the largest where that is above 1."""
    outputs = []
    for each in (content, found):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(each, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        outputs.append(session.run(None, {given.name: _random(given.type, given.shape)})[0].astype(np.float64))
    expected, got = outputs
    if expected.shape != got.shape:
        return float("inf")
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def _random(kind: str, shape: list[Any]) -> Any:
    """Two random images for an input such as tensor(float) or tensor(uint8)."""
    rng = np.random.default_rng(0)
    sizes = [size if isinstance(size, int) else _FREE[min(axis, 2)] for axis, size in enumerate(shape)]
    name = kind.removeprefix("tensor(").removesuffix(")")
    if name == "float":
        return rng.standard_normal(sizes).astype(np.float32)
    return rng.integers(0, np.iinfo(name).max, sizes).astype(name)


_FREE = (2, 3, 64)  # a batch, bands, and sides where a model leaves them open
