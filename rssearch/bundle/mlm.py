"""A bundle as a STAC item of the Machine Learning Model extension, so that a catalogue can list it.

https://github.com/stac-extensions/mlm, version 1.5.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy as np

from rssearch.bundle.files import BF16, CARD, END_TO_END, END_TO_END_FP16, FP16, INT8, ONNX, PREPROCESSING, WEIGHTS
from rssearch.bundle.preprocessing import bands_of, ends_of

__all__ = ["EXTENSIONS", "item"]

EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.5.2/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
)
TASKS = {
    "classification": "scene-classification",
    "segmentation": "semantic-segmentation",
    "multilabel": "classification",  # which the extension means for one label or several
}
COSTS = ("macs", "params", "bytes", "latency_ms", "latency_device", "latency_threads")
QUALITIES = ("val_accuracy", "test_accuracy", "val_miou", "test_miou")
SETTINGS = ("method", "rate", "macs_ratio", "seed")  # of the trial
_SHA256 = "1220"  # how multihash says that 32 bytes of SHA-256 follow
_TITLES = {
    ONNX: "The network in float32",
    FP16: "The network in float16; its input and output are float32",
    BF16: "The network with products in bfloat16; its input and output are float32",
    INT8: "The network in 8 bits; its input and output are float32",
    END_TO_END: "The network with preprocessing and softmax inside: raw pixels to probabilities",
    END_TO_END_FP16: "The same in float16",
    WEIGHTS: "The weights; architecture.json has the network that they are of",
    PREPROCESSING: "How pixels become the network's input",
    CARD: "Model card",
}


def item(
    study: str, row: Mapping[str, Any], about: Mapping[str, Any], files: Mapping[str, bytes], *, any_size: bool
) -> dict[str, Any]:
    """Describe a bundle.

    Args:
        study: that found the network.
        row: the trial.
        about: the content of ``preprocessing.json``, and the name of the model.
        files: of the bundle.
        any_size: whether the models take images of any height and width.

    Returns:
        A STAC item without a geometry: a network is nowhere.
    """
    name = f"{study}-{row['key']}"
    found = {f"rssearch:{key}": row[key] for key in (*COSTS, *QUALITIES) if row.get(key) is not None}
    settings = {key: row[key] for key in SETTINGS if row.get(key) is not None}
    bands = _bands(about)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "geometry": None,
        "properties": {
            "datetime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "title": f"{about['model']} of the study {study}",
            # Its pattern has letters, digits and a few signs alone.
            "mlm:name": re.sub(r"[^a-zA-Z0-9_.-]", "-", f"rssearch {name}").strip("-_."),
            "mlm:architecture": about["model"],
            "mlm:tasks": [TASKS[about["task"]]],
            "mlm:framework": "ONNX",
            "mlm:framework_version": metadata.version("onnx"),
            **({"mlm:total_parameters": int(row["params"])} if row.get("params") is not None else {}),
            "mlm:input": [_input(about, any_size=any_size)],
            "mlm:output": [_output(about, any_size=any_size)],
            **({"mlm:hyperparameters": settings} if settings else {}),
            **({"bands": bands} if bands else {}),
            **found,
        },
        "assets": {name: _asset(name, files[name], bands) for name in _TITLES if name in files},
        "links": [],
    }


def _names(about: Mapping[str, Any]) -> list[str]:
    """Names of the bands; none where they are not known."""
    bands = bands_of(about)
    return list(bands.names or (("red", "green", "blue") if bands.pictures else ()))


def _bands(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "data_type": bands_of(about).dtype} for name in _names(about)]


def _input(about: Mapping[str, Any], *, any_size: bool) -> dict[str, Any]:
    C, H, W = about["input_shape"]
    names = _names(about)
    low, high = (ends.astype(np.float64) for ends in ends_of(about, C))
    mean = (low + (high - low) * about["mean"]).tolist()
    std = ((high - low) * about["std"]).tolist()
    whole = about["task"] == "segmentation"
    return {
        "name": about["onnx"]["input"],
        "description": about["resize"],
        "bands": names,
        "input": {
            "shape": [-1, C, -1 if any_size else H, -1 if any_size else W],
            "dim_order": ["batch", "bands" if names else "channel", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "z-score", "mean": m, "stddev": s} for m, s in zip(mean, std, strict=True)],
        "resize_type": None if whole or H != W else "interpolation-linear",
        "pre_processing_function": None,
    }


def _output(about: Mapping[str, Any], *, any_size: bool) -> dict[str, Any]:
    count, (_, H, W) = len(about["classes"]), about["input_shape"]
    whole = about["task"] == "segmentation"
    sizes = [-1 if any_size else H, -1 if any_size else W] if whole else []
    return {
        "name": about["onnx"]["output"],
        "description": "logits: their sigmoids are the probabilities of the classes, each by itself"
        if about["task"] == "multilabel"
        else "logits: their softmax over the classes are probabilities",
        "tasks": [TASKS[about["task"]]],
        "result": {
            "shape": [-1, count, *sizes],
            "dim_order": ["batch", "class", *(["height", "width"] if whole else [])],
            "data_type": "float32",
        },
        "classification:classes": [
            {"value": value, "name": name, "description": name, "color_hint": "{:02X}{:02X}{:02X}".format(*colour)}
            for value, (name, colour) in enumerate(zip(about["classes"], about["colours"], strict=True))
        ],
        "post_processing_function": None,
    }


def _asset(name: str, content: bytes, bands: list[dict[str, Any]]) -> dict[str, Any]:
    found = {
        "href": f"./{name}",
        "title": _TITLES[name],
        "file:size": len(content),
        "file:checksum": _SHA256 + hashlib.sha256(content).hexdigest(),
    }
    if name in (ONNX, FP16, BF16, INT8):  # those of the input and output that are described
        return {
            **found,
            "type": "application/octet-stream; framework=onnx",
            "roles": ["mlm:model", "mlm:compiled"],
            "mlm:artifact_type": "onnx.save_model",
            **({"bands": bands} if bands else {}),  # STAC has them in the properties only where an asset has them
        }
    kinds = {PREPROCESSING: "application/json", CARD: "text/markdown"}
    roles = ["metadata"] if name in kinds else ["mlm:weights"] if name == WEIGHTS else ["data"]
    return {**found, "type": kinds.get(name, "application/octet-stream"), "roles": roles}
