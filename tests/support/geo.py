"""GeoTIFFs, and small ONNX networks for any bands, made without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import rasterio
from affine import Affine
from onnx import helper, numpy_helper

from rssearch.bundle.files import encode, manifest
from rssearch.bundle.predict import Network

UTM = "EPSG:32633"
PLACE = Affine(10.1, 0, 500_000 + 1 / 3, 0, -10.1, 5_000_000.7)
CLASSES = ["forest", "lake", "road"]


def geotiff(path: Path, pixels: npt.NDArray[Any], *, names: list[str] | None = None, **profile: Any) -> Path:
    """A GeoTIFF of pixels [C, H, W] in UTM, uncompressed."""
    count, height, width = pixels.shape
    about = {"crs": UTM, "transform": PLACE, "dtype": pixels.dtype, **profile}
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, **about) as file:
        file.write(pixels)
        for number, name in enumerate(names or [], 1):
            file.set_band_description(number, name)
    return path


def model(bands: int, classes: int, size: int, *, segments: bool) -> bytes:
    """A convolution, over the whole image averaged where it classifies."""
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (classes, bands, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["image", "weights"], ["map" if not segments else "logits"], pads=[1] * 4)]
    if not segments:
        nodes.append(helper.make_node("GlobalAveragePool", ["map"], ["mean"]))
        nodes.append(helper.make_node("Flatten", ["mean"], ["logits"]))
    shape = ["batch", classes, *([size, size] if segments else [])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", bands, size, size])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "weights")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(made.SerializeToString())


def about(bands: int = 4, *, size: int = 16, segments: bool = True, classes: list[str] | None = None) -> dict[str, Any]:
    """A preprocessing.json: of 16-bit reflectance, or of 8-bit RGB for three bands."""
    classes = classes or CLASSES
    found: dict[str, Any] = {
        "task": "segmentation" if segments else "classification",
        "classes": classes,
        "input_shape": [bands, size, size],
        "mean": [0.3] * bands,
        "std": [0.1] * bands,
        "onnx": {"input": "image", "output": "logits", "opset": 20},
        "colours": [[40 * (i % 6), i % 256, 90] for i in range(len(classes))],
    }
    if segments:
        found["tiles"] = {"size": size, "overlap": size // 4}
    if bands != 3:
        found |= {"dtype": "uint16", "bands": [f"B{i:02}" for i in range(bands)], "fill": None}
        found["scale"] = {"low": [0] * bands, "high": [10_000] * bands}
    return found


def network(described: dict[str, Any]) -> Network:
    """A network in memory."""
    bands, size, _ = described["input_shape"]
    content = model(bands, len(described["classes"]), size, segments=described["task"] == "segmentation")
    return Network(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]), described)


def bundle(folder: Path, described: dict[str, Any]) -> Path:
    """What of a bundle prediction needs."""
    bands, size, _ = described["input_shape"]
    content = model(bands, len(described["classes"]), size, segments=described["task"] == "segmentation")
    files = {"model.onnx": content, "preprocessing.json": encode(described)}
    folder.mkdir()
    for name, data in (files | {"manifest.json": manifest(files)}).items():
        (folder / name).write_bytes(data)
    return folder


def reflectance(height: int, width: int, bands: int = 4) -> npt.NDArray[np.uint16]:
    """Pixels [C, H, W] of smooth fields."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(1, 10_000, (bands, height // 5 + 1, width // 5 + 1))
    return coarse.repeat(5, 1).repeat(5, 2)[:, :height, :width].astype(np.uint16)
