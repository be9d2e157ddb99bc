"""Trials whose networks have made-up latencies, for tests of the machinery: module ``tests.support.timed``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rssearch.cost.latency import metric
from rssearch.trial.session import Session

EPOCH_METRICS = ("val_accuracy",)
ON_REQUEST = ("latency_ms",)


def run(config: dict[str, Any], session: Session) -> dict[str, Any]:
    """Three epochs, after the latency has been found where the study asks; writes down that it was trained."""
    if "latency_ms" in session.context.requested:
        session.report_static_metrics({"latency_ms": 10 * (1 - config["rate"]), "latency_device": "made up"})
    with Path(session.settings.options["log"]).open("a") as file:
        file.write(f"{session.key}\n")
    for epoch in range(1, 4):
        session.report({"epoch": epoch, "val_accuracy": epoch * config["rate"] / 3})
    return {"val_accuracy": config["rate"], "macs": 1 - config["rate"], **session.static_metrics}


def measure(_: dict[str, Any], session: Session) -> dict[str, float]:
    """As many milliseconds as images, of each listed runtime."""
    return {metric(runtime, batch): float(batch) for runtime, batch in session.settings.latency.pairs()}
