"""ONNX models in an older opset compute what they computed."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import defs, helper, numpy_helper
from torch import nn

from rssearch import models
from rssearch.cost.int8 import to_int8
from rssearch.cost.onnx import OPSET, difference, to_onnx
from rssearch.cost.onnx_opset import OPSETS, lowered
from rssearch.errors import InputError


def kinds(content: bytes) -> set[str]:
    """The operators of a model, all of which its opset has."""
    model = onnx.load_from_string(content)
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    for node in model.graph.node:
        schema = defs.get_schema(node.op_type, opset)
        assert {attribute.name for attribute in node.attribute} <= set(schema.attributes), node.op_type
        assert len(node.input) <= schema.max_input
    onnx.checker.check_model(model, full_check=True)
    return {node.op_type for node in model.graph.node}


# Paddings by subsampling shortcuts, means, poolings, interpolations, attention.
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "vgg16_cifar", "micronet", "unet"])
@pytest.mark.parametrize("opset", [17, 18])
def test_networks_in_an_older_opset(name: str, opset: int) -> None:
    torch.manual_seed(0)
    narrow = {"base": 8} if name == "unet" else {}  # the same operators in a sixtieth of the memory
    model = models.create(name, 6, input_size=32, **narrow).eval()
    content = to_onnx(model, (3, 32, 32))
    found = lowered(content, opset)
    assert [entry.version for entry in onnx.load_from_string(found).opset_import if not entry.domain] == [opset]
    assert onnx.load_from_string(found).ir_version <= 8
    assert kinds(found) <= kinds(content)
    largest, scale = difference(model, found, torch.randn(3, 3, 32, 32))
    assert largest <= 1e-4 * max(1, scale)
    assert lowered(content, OPSET) == content
    assert lowered(found, opset) == found


class Modern(nn.Module):
    """What newer networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.grow, self.norm, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU()
        self.shrink = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shrink(self.act(self.norm(self.grow(x))))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        return x.amax(dim=(2, 3)) + nn.functional.silu(x).mean(dim=(2, 3))


def test_newer_operators_by_older_ones() -> None:
    torch.manual_seed(0)
    model = Modern().eval()
    content = to_onnx(model, (3, 8, 8))
    assert "Gelu" in kinds(content)
    found = lowered(content, 17)
    assert "Gelu" not in kinds(found)
    largest, _ = difference(model, found, torch.randn(2, 3, 8, 8))
    assert largest <= 1e-5


def test_eight_bits_are_the_same_numbers() -> None:
    torch.manual_seed(0)
    content = to_int8(to_onnx(models.create("resnet20", 6).eval(), (3, 32, 32)), [torch.randn(8, 3, 32, 32)])["minmax"]
    found = lowered(content, 17)
    kinds(found)
    images = torch.randn(2, 3, 32, 32).numpy()
    outputs = [
        onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
        for each in (content, found)
    ]
    np.testing.assert_array_equal(*outputs)


def of_one_node(kind: str, *inputs: str, **attributes: object) -> bytes:
    """A model of one operator, with a constant `ones` [1] to name."""
    node = helper.make_node(kind, ["image", *inputs], ["logits"], "the_node", **attributes)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 4, 4])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", None, None])
    ones = numpy_helper.from_array(np.array([1], np.int64), "ones")
    graph = helper.make_graph([node], "graph", [image], [logits], [ones])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9).SerializeToString()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (of_one_node("Mish"), "Mish"),
        (of_one_node("Gelu", approximate="tanh"), "Gelu"),
        (of_one_node("Pad", "ones", mode="wrap"), "Pad"),
        (of_one_node("ReduceMean", noop_with_empty_axes=1), "ReduceMean"),
        (of_one_node("ReduceMean", "image"), "ReduceMean"),
        (of_one_node("Resize", "", "scales", antialias=1, mode="linear"), "Resize"),
    ],
)
def test_what_the_opset_cannot_say_is_refused(content: bytes, kind: str) -> None:
    with pytest.raises(InputError, match=rf"^opset 17: the network has the operator {kind} \(the_node\)"):
        lowered(content, 17)


def test_axes_become_an_attribute() -> None:
    found = onnx.load_from_string(lowered(of_one_node("ReduceMax", "ones", keepdims=0), 17))
    (node,) = found.graph.node
    assert list(node.input) == ["image"]
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {"axes": [1], "keepdims": 0}
    assert not found.graph.initializer
    assert OPSETS == (17, 18, 19, 20)
