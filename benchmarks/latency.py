"""Latency: torch.compile and onnxruntime against eager PyTorch, and predictions from layers against measurements.

`runtimes`: each network whole and pruned to half of its MACs, with one image and with 32, by every runtime, one after
the other in one run. `table`: networks cut at random (each group of coupled channels loses a share between 0 and 80 %),
measured whole, and predicted by `rssearch.cost.latency_table` with a line from four other networks of the same family;
beside it the prediction by a line over the MACs of these four. A measurement whose interquartile range is above a tenth
of its median was disturbed: it is taken again, up to `--tries` times, and the calmest counts. Ratios and predictions
are of fastest passes, which other work on the machine disturbs least; medians stand beside them. `rounding`: what
half of the MACs leave of the time, with and without multiples of channels that are fast on this machine.

    python benchmarks/latency.py [--parts runtimes table rounding] [--threads 1]
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from _common import load, write_rows
from torch import nn

from rssearch import models, pruning
from rssearch.cost import latency_table
from rssearch.cost.counting import profile
from rssearch.cost.latency import Latency, NotMeasured, measure, torch_threads
from rssearch.cost.latency_table import errors, fit, layers, time_layers
from rssearch.cost.rounding import learned
from rssearch.pruning import prune

SIZE = 64
NETWORKS: dict[str, dict[str, Any]] = {"resnet20": {}, "resnet18": {"stem": "small"}, "vgg16_cifar": {}}
RUNTIMES, BATCHES = ("eager", "onnxruntime", "compile"), (1, 32)
RATES = (0.0, 0.25, 0.5, 0.75)  # of the networks for the line, as a study takes them
SHAPE = (3, SIZE, SIZE)


def build(name: str) -> tuple[nn.Module, pruning.ChannelGraph]:
    """An untrained network and its graph."""
    torch.manual_seed(0)
    model = models.create(name, 10, input_size=SIZE, **NETWORKS[name]).eval()
    return model, pruning.trace(model, torch.zeros(1, *SHAPE))


def cut(model: nn.Module, graph: pruning.ChannelGraph, widths: dict[str, int]) -> nn.Module:
    """A copy with the first so many channels of each group."""
    kept = {name: tuple(range(width)) for name, width in widths.items()}
    return pruning.apply_spec(copy.deepcopy(model), pruning.make_spec(graph, kept))


def calmest(args: argparse.Namespace, model: nn.Module, **how: Any) -> Latency:
    """The measurement with the smallest interquartile range for its median, see above."""
    found = []
    for _ in range(args.tries):
        found.append(measure(model, SHAPE, threads=args.threads, **how))
        if found[-1].iqr_ms < 0.1 * found[-1].median_ms:
            break
    return min(found, key=lambda latency: latency.iqr_ms / latency.median_ms)


def runtimes(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """A row for each network, runtime and batch."""
    rows = []
    for name in args.families:
        whole, _ = build(name)
        half = pruning.prune(whole, torch.zeros(1, *SHAPE), "l1", macs_ratio=0.5).model
        times: dict[tuple[str, str, int], float] = {}
        for state, model in (("whole", whole), ("half", half)):
            for batch in BATCHES:
                for runtime in RUNTIMES:
                    try:
                        found = calmest(args, model, runtime=runtime, batch=batch, device=device)
                    except NotMeasured as error:
                        print(f"{name} {state} {runtime} {batch}: {error}")
                        continue
                    times[state, runtime, batch] = found.fastest_ms
                    whole_ms, eager_ms = times.get(("whole", runtime, batch)), times[state, "eager", batch]
                    rows.append(
                        {
                            "network": name,
                            "state": state,
                            "macs": profile(model, SHAPE).macs,
                            "runtime": runtime,
                            "batch": batch,
                            "threads": found.threads,
                            "median_ms": round(found.median_ms, 3),
                            "iqr_ms": round(found.iqr_ms, 3),
                            "p95_ms": round(found.p95_ms, 3),
                            "fastest_ms": round(found.fastest_ms, 3),
                            "passes": found.passes,
                            "ratio_to_eager": round(found.fastest_ms / eager_ms, 3),
                            "ratio_to_whole": round(found.fastest_ms / whole_ms, 3) if whole_ms else "",
                            "machine": found.device,
                            "load_average": load(),
                        }
                    )
                    print({name: rows[-1][name] for name in list(rows[-1])[:12]}, flush=True)
    return rows


def table(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """A row for each network that is predicted, and each that the line is fitted on."""
    rows: list[dict[str, Any]] = []
    known: latency_table.Table = {}
    for name in args.families:
        whole, graph = build(name)
        generator = torch.Generator().manual_seed(1)
        drawn = [
            {
                group: max(1, round(node.width * (1 - 0.8 * float(torch.rand((), generator=generator)))))
                for group, node in graph.groups.items()
            }
            for _ in range(args.networks)
        ]
        uniform = [{group: int(node.width * (1 - rate)) for group, node in graph.groups.items()} for rate in RATES]
        found = []
        for widths in uniform + drawn:
            model = cut(whole, graph, widths)
            with torch_threads(args.threads):
                before = len(known)
                known |= time_layers(model, SHAPE, known, device)
            timed = calmest(args, model, device=device)
            total, macs = latency_table.layer_sum(layers(model, SHAPE), known), profile(model, SHAPE).macs
            assert total is not None  # all of its layers have been timed
            found.append((total, macs, timed, len(known) - before))
        few = found[: len(RATES)]
        fastest = [timed.fastest_ms for _, _, timed, _ in few]
        by_sum, by_macs = fit([total for total, *_ in few], fastest), fit([macs for _, macs, *_ in few], fastest)
        for index, (total, macs, timed, new) in enumerate(found):
            rows.append(
                {
                    "network": name,
                    "used_for": "line" if index < len(RATES) else "test",
                    "index": index,
                    "macs": macs,
                    "new_layers": new,
                    "sum_ms": round(total, 4),
                    "predicted_ms": round(by_sum(total), 4),
                    "predicted_by_macs_ms": round(by_macs(macs), 4),
                    "measured_ms": round(timed.fastest_ms, 4),
                    "median_ms": round(timed.median_ms, 4),
                    "iqr_ms": round(timed.iqr_ms, 4),
                    "threads": timed.threads,
                    "machine": timed.device,
                    "load_average": load(),
                }
            )
        tell(name, [row for row in rows if row["network"] == name])
    tell("all", rows)
    return rows


def tell(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the errors over the networks that no line was fitted on."""
    test = [row for row in rows if row["used_for"] == "test"]
    truth = [row["measured_ms"] for row in test]
    for column in ("predicted_ms", "predicted_by_macs_ms"):
        found = errors([row[column] for row in test], truth)
        shown = ", ".join(f"{what} {value:.3f}" for what, value in found.items())
        print(f"{name:12s} {column:21s} {len(test)} networks: {shown}", flush=True)


def rounding(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each network whole, and with half of its MACs in any widths or in multiples that are fast here."""
    multiple, rows = learned(args.threads), []
    for name in args.families:
        whole, _ = build(name)
        states = {"whole": (1, whole)} | {
            f"round_to {to}": (to, prune(whole, torch.zeros(1, *SHAPE), "l1", macs_ratio=0.5, round_to=to).model)
            for to in (1, multiple)
        }
        for runtime in ("onnxruntime", "openvino"):
            first, full = 0.0, profile(whole, SHAPE).macs
            for state, (to, model) in states.items():
                timed = [measure(model, SHAPE, threads=args.threads, runtime=runtime) for _ in range(args.tries)]
                fastest, macs = min(found.fastest_ms for found in timed), profile(model, SHAPE).macs
                first = first or fastest
                left = {"macs_ratio": macs / full, "time_ratio": fastest / first}
                saved = (1 - left["time_ratio"]) / (1 - left["macs_ratio"]) if macs < full else None
                rows.append(
                    {
                        **{"network": name, "state": state, "round_to": to, "runtime": runtime, "macs": macs},
                        "fastest_ms": round(fastest, 3),
                        **{ratio: round(value, 3) for ratio, value in left.items()},
                        "saved": "" if saved is None else round(saved, 3),
                        "machine": timed[0].device,
                        "load_average": load(),
                    }
                )
                print({name: rows[-1][name] for name in list(rows[-1])[:9]}, flush=True)
    return rows


def main() -> None:
    """The parts that are asked for, each into a file of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("runtimes", "table", "rounding")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--families", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--networks", type=int, default=10, help="of each family, for the table")
    parser.add_argument("--tries", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    packages = ("torch", "onnxruntime")
    if "runtimes" in args.parts:
        print(write_rows("latency", runtimes(args, device), packages, args.out))
    if "table" in args.parts:
        print(write_rows("latency_table", table(args, device), packages, args.out))
    if "rounding" in args.parts:
        print(write_rows("rounding", rounding(args), (*packages, "openvino"), args.out))


if __name__ == "__main__":
    main()
