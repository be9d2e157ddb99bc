"""Trials that train nothing and can be deployed, for tests of devices: module ``tests.support.deployable``."""

from __future__ import annotations

from typing import Any

from rssearch.cost.device_latencies import LAYERS, layers_file, predicted
from rssearch.cost.device_table import Layer
from rssearch.trial.interface import DEPLOYED
from rssearch.trial.session import Session
from tests.support.devices import network


def run(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """The wider, the better, and the costlier."""
    return {"val_accuracy": 1 - 1 / config["channels"], "macs": config["channels"]}


def deploy(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """A convolution so wide."""
    content = network(config["channels"], 64)
    session.store.put(DEPLOYED, session.key, {"model.onnx": content, LAYERS: layers_file(_layers(config))})
    return {"onnx_bytes": len(content)}


def cost(point: dict[str, Any], session: Session) -> dict[str, Any]:
    """What is known beforehand, with what a device's table says."""
    known = predicted(session.store, session.context.named, lambda: _layers(point))
    return {"macs": point["channels"], **known}


def _layers(point: dict[str, Any]) -> list[Layer]:
    return [Layer("convolution", 27 * 64 * 64 * point["channels"], 64 * 64 * (3 + point["channels"]))]


def measure(_: dict[str, Any], __: Session) -> dict[str, float]:
    """What only the front is worth."""
    return {"test_accuracy": 0.5}
