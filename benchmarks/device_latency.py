"""How well a device's table predicts: networks cut at random, measured as an agent does, on this machine.

Each group of coupled channels keeps a fifth to all of its channels, drawn for each cut; the first network is whole. The
table of a family learns from its first networks and predicts the others, which are measured as well. Beside it is the
prediction by a line over the MACs of the same networks. Latencies are those of fastest passes, which other work on the
machine disturbs least.

    python benchmarks/device_latency.py [--families resnet20 resnet18] [--learn 8] [--predict 8]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import load, write_rows
from latency import NETWORKS, SHAPE, build, cut

from rssearch.agent.client import measured
from rssearch.cost.device_layers import layers
from rssearch.cost.device_table import Layer, Sample, fit
from rssearch.cost.onnx import to_onnx


def networks(name: str, count: int) -> list[tuple[list[Layer], bytes]]:
    """The layers and the ONNX file of each."""
    whole, graph = build(name)
    generator, found = torch.Generator().manual_seed(1), []
    for index in range(count):
        shares = [1 - 0.8 * float(torch.rand((), generator=generator)) for _ in graph.groups]
        widths = {
            group: max(1, round(node.width * share)) if index else node.width
            for (group, node), share in zip(graph.groups.items(), shares, strict=True)
        }
        model = cut(whole, graph, widths)
        found.append((layers(model, SHAPE, "fp32"), to_onnx(model, SHAPE)))
    return found


def fastest(contents: list[bytes], args: argparse.Namespace) -> list[float]:
    """Milliseconds of the fastest pass of each, of some rounds: other work on the machine only ever adds to it."""
    found = [float("inf")] * len(contents)
    for _ in range(args.rounds):
        for index, content in enumerate(contents):
            said = measured(content, args.threads, "CPUExecutionProvider", seconds=120)
            if "error" in said:
                raise SystemExit(said["error"])
            found[index] = min(found[index], *said["times_ms"])
    return found


def rows_of(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each network of a family."""
    made = networks(name, args.learn + args.predict)
    times = fastest([content for _, content in made], args)
    samples = [Sample(found, value) for (found, _), value in zip(made, times, strict=True)]
    learned, macs = samples[: args.learn], [sum(layer.macs for layer in sample.layers) for sample in samples]
    truth = np.array([sample.milliseconds for sample in samples])
    table = fit(learned)
    if table is None:
        raise SystemExit("--learn: a table needs more networks")
    count = len(learned)
    line = np.polyfit(macs[:count], truth[:count], 1, w=1 / truth[:count])
    rows = [
        {
            "network": name,
            "used_for": "table" if index < count else "test",
            "macs": macs[index],
            "measured_ms": round(sample.milliseconds, 4),
            "predicted_ms": round(table.predict(sample.layers) or float("nan"), 4),
            "predicted_by_macs_ms": round(float(np.polyval(line, macs[index])), 4),
            "expected_error": round(table.error, 4),
            "threads": args.threads,
            "load_average": load(),
        }
        for index, sample in enumerate(samples)
    ]
    tell(name, rows)
    return rows


def tell(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the errors for the networks that no table was learned from."""
    test = [row for row in rows if row["used_for"] == "test"]
    for column in ("predicted_ms", "predicted_by_macs_ms"):
        errors = [abs(row[column] / row["measured_ms"] - 1) for row in test]
        print(f"{name:12s} {column:21s} {len(test)} networks: MAPE {100 * np.mean(errors):.1f} %", flush=True)


def main() -> None:
    """All families into one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--learn", type=int, default=8)
    parser.add_argument("--predict", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    rows = [row for name in args.families for row in rows_of(name, args)]
    tell("all", rows)
    print(write_rows("device_latency", rows, ("onnxruntime",), args.out))


if __name__ == "__main__":
    main()
