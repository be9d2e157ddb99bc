"""Made-up trials with known fronts."""

import io

from rich.console import Console

TWO = {"val_accuracy": "max", "macs": "min"}


def trial(key, accuracy, macs, **more):
    row = {
        "key": key,
        "status": "finished",
        "dataset": "eurosat",
        "model": "resnet18",
        "method": "l1",
        "rate": 0.5,
        "seed": 0,
        "val_accuracy": accuracy,
        "test_accuracy": None,
        "macs": macs,
        "params": macs // 10,
        "macs_ratio": macs / 100e6,
        "params_ratio": macs / 100e6,
        "baseline_val_accuracy": 0.95,
        "baseline_macs": 100_000_000,
        "baseline_params": 10_000_000,
        "train_seconds": 1.5,
        "reason": None,
    }
    return {**row, **more}


def study():
    """The front is a, c, d; the knee is c."""
    return [
        trial("d", 0.94, 80_000_000, method="lfp"),
        trial("a", 0.60, 10_000_000),
        trial("b", 0.55, 20_000_000, method="lfp"),
        trial("c", 0.90, 25_000_000),
        trial("n", float("nan"), 5_000_000),
        trial("i", None, 1_000_000, status="infeasible", reason="macs_ratio 0.01 is below 0.05"),
        trial("f", 0.99, 1_000_000, status="failed", reason="the loss is nan"),
    ]


def keys(rows):
    return [row["key"] for row in rows]


def shown(table, width=80):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    return console.file.getvalue()


def two_datasets():
    others = [trial("u" + row["key"], row["val_accuracy"], row["macs"], dataset="ucmerced") for row in study()[:4]]
    return [*others[:2], *study(), *others[2:]]
