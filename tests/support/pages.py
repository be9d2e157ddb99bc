"""Made-up trials for the tests of front.html."""

from __future__ import annotations

from typing import Any

from rssearch.config.schema import Bound

TWO: Any = {"val_accuracy": "max", "macs": "min"}
LIMIT = {"macs": Bound(max=60e6)}


def trial(key: str, accuracy: float | None, macs: int, method: str = "l1", **more: Any) -> dict[str, Any]:
    row = {"key": key, "status": "finished", "model": "resnet18", "method": method, "rate": macs / 1e8, "seed": 0}
    row |= {"val_accuracy": accuracy, "macs": macs, "baseline_val_accuracy": 0.95, "baseline_macs": 100_000_000}
    return row | {"params": macs // 10, "baseline_params": 10_000_000, "train_seconds": 2.0, "reason": None} | more
