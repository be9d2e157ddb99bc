"""A network as an ONNX file with a batch of any size; and such a file as a network of torch.

onnx and onnxruntime are imported where a file is made or run: most of what imports this module trains or plans.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rssearch.cost.counting import duplicate
from rssearch.errors import InputError, cut

OPSET = 20  # what torch's exporter writes without conversion; onnxruntime reads it since 1.17
INPUT, OUTPUT = "image", "logits"
TOLERANCE = 1e-4  # of the logits between torch and onnxruntime, relative to the largest where that is above 1


def to_onnx(model: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """Export a network in eval mode.

    Args:
        model: from float32 [B, C, H, W] to one tensor [B, ...]; it is left as it is, wherever it is.
        input_shape: (C, H, W), fixed in the file; B is free.

    Returns:
        The ONNX model, weights included: input ``image``, output ``logits``.
    """
    return _export(model, input_shape, {0: torch.export.Dim("batch")})


def to_onnx_of_any_size(model: nn.Module, input_shape: tuple[int, int, int]) -> bytes:
    """The same with a free height and width, for a network that gives logits [B, K, H, W].

    Raises:
        InputError: the network is made for one size.
    """
    free = {axis: torch.export.Dim(name) for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    import onnx

    size = f"{input_shape[1]}x{input_shape[2]}"
    try:
        content = _export(model, input_shape, free)
    except Exception as error:  # the boundary: what in a network needs a size shows in some error of the exporter
        why = cut(" ".join(str(error).split()), 300)
        raise InputError(f"the network takes images of {size} alone: {why}") from error
    (given,) = onnx.load_from_string(content).graph.input
    if any(dimension.HasField("dim_value") for dimension in given.type.tensor_type.shape.dim[2:]):
        raise InputError(f"the network takes images of {size} alone")  # the exporter made them constants
    return content


def _export(model: nn.Module, input_shape: tuple[int, int, int], free: Mapping[int, Any]) -> bytes:
    twin = duplicate(model).float().cpu().eval()
    images = torch.zeros(2, *input_shape)  # a batch of one would be taken for a constant
    with quiet("torch.onnx"), contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(
            twin,
            (images,),
            dynamo=True,
            dynamic_shapes=(free,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


class OnnxNetwork(nn.Module):
    """An ONNX model as a network on the CPU: what measures a network of torch measures it as well.

    Args:
        content: as `to_onnx` writes it.
        threads: None: torch's present number.
    """

    def __init__(self, content: bytes, threads: int | None = None) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads or torch.get_num_threads(), 3
        self.content = content
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        """Logits of float32 [B, C, H, W]."""
        (logits,) = self.session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    def __deepcopy__(self, _memo: dict[int, Any]) -> OnnxNetwork:
        """Itself: a session has no state that a pass changes."""
        return self


def difference(model: nn.Module, content: bytes, images: Tensor) -> tuple[float, float]:
    """How far the ONNX model is from the network that it was made of.

    Args:
        model: the network, on the CPU in eval mode.
        content: the ONNX model.
        images: float32 [B, C, H, W], normalised.

    Returns:
        The largest absolute difference of the logits, and the largest logit.
    """
    with torch.inference_mode():
        expected, found = model(images), OnnxNetwork(content)(images)
    return (found - expected).abs().max().item(), expected.abs().max().item()


@contextlib.contextmanager
def quiet(name: str | None = None) -> Iterator[None]:
    """Without the messages of a logger about itself; errors are raised."""
    logger, handler = logging.getLogger(name), logging.NullHandler()
    level = logger.level
    logger.setLevel(logging.ERROR)
    logger.addHandler(handler)  # a warning to a root logger without one would give it one for good
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
