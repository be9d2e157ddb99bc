"""What devices have measured, kept in the store for all studies there, and what follows: ``predicted_latency_ms@pi``.

Each network is an artifact of its own, named by what was measured: no two writers meet.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from rssearch.config.space import content_key
from rssearch.cost.device_table import DeviceTable, Layer, Sample, fit
from rssearch.metrics import number
from rssearch.storage.artifacts import Store
from rssearch.storage.location import Location

__all__ = ["LAYERS", "MEASURED", "PREDICTED", "Tables", "layers_file", "predicted", "remember", "tables"]

PREDICTED, MEASURED = "predicted_latency_ms", "latency_ms"
LAYERS = "layers.json"  # beside the ONNX file that a device gets
_MACHINE = ("latency_device", "latency_threads", "latency_provider")
_FILE = "network.json"

Tables = Mapping[frozenset[str], DeviceTable]


def layers_file(found: Sequence[Layer]) -> bytes:
    """The layers of a network as `LAYERS` has them."""
    return json.dumps(found).encode()


def remember(store: Store, device: str, described: bytes, metrics: Mapping[str, Any]) -> None:
    """Keep what a device has measured of a network.

    Args:
        store: of the study.
        device: its name.
        described: the content of `LAYERS`.
        metrics: as the device reports them; without a latency nothing is kept.
    """
    milliseconds = number(metrics.get(f"{MEASURED}@{device}"))
    if milliseconds is None or milliseconds <= 0:
        return
    machine = [metrics.get(f"{name}@{device}") for name in _MACHINE]
    about = {"machine": machine, "layers": json.loads(described)}
    found = {**about, "milliseconds": milliseconds, "when": time.time()}
    store.put(_kind(device), content_key(about), {_FILE: json.dumps(found).encode()})


def tables(store: Store, device: str) -> Tables:
    """The tables of a device by the kinds of layers that they know: of the machine that measured last."""
    keys = store.keys(_kind(device))
    found = [entry for key in keys if (entry := _read(store.root.parent, device, key)) is not None]
    return _fitted(tuple(sorted(found, key=lambda entry: entry[0])))


def predicted(store: Store, named: Collection[str], described: Callable[[], Sequence[Layer]]) -> dict[str, float]:
    """``predicted_latency_ms@<device>`` of each device that metrics name and that can tell.

    Args:
        store: of the study.
        named: metrics of objectives and constraints.
        described: gives the layers of the network, where a device has a table at all.
    """
    found: dict[str, float] = {}
    layers: Sequence[Layer] | None = None
    for device in _devices(named):
        if not (known := tables(store, device)):
            continue
        layers = described() if layers is None else layers
        table = known.get(frozenset(layer.kind for layer in layers))
        milliseconds = table.predict(layers) if table else None
        if milliseconds is not None:
            found[f"{PREDICTED}@{device}"] = milliseconds
    return found


def _devices(named: Iterable[str]) -> list[str]:
    pairs = (name.partition("@") for name in named)
    return list(dict.fromkeys(device for name, at, device in pairs if at and name in (MEASURED, PREDICTED)))


def _kind(device: str) -> str:
    return f"latencies_{device}"


_Entry = tuple[float, str, tuple[Layer, ...], float]  # when, machine, layers, milliseconds


@lru_cache(maxsize=4096)
def _read(storage: Location, device: str, key: str) -> _Entry | None:
    """A network as it was measured; None where it is gone by now."""
    files = Store(storage).get(_kind(device), key)
    if files is None:
        return None
    about = json.loads(files[_FILE])
    layers = tuple(Layer(*layer) for layer in about["layers"])
    return about["when"], json.dumps(about["machine"]), layers, about["milliseconds"]


@lru_cache(maxsize=8)
def _fitted(entries: tuple[_Entry, ...]) -> Tables:
    """Of entries in the order of their measurements."""
    families: dict[frozenset[str], list[Sample]] = defaultdict(list)
    for _, machine, layers, milliseconds in entries:
        if machine == entries[-1][1]:
            sample = Sample(layers, milliseconds)
            families[sample.kinds].append(sample)
    return {kinds: table for kinds, samples in families.items() if (table := fit(samples)) is not None}
