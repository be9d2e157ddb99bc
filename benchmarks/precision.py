"""What precision costs: networks in float32, in 8 bits, and in 8 bits after quantisation-aware training.

Each network is trained, pruned by ``l1`` to several budgets, fine-tuned once, and measured in each precision: in 8 bits
as onnxruntime runs it. Precisions of one network share everything else.

    python benchmarks/precision.py run --data-root DIR --work WORK
    python benchmarks/precision.py table WORK/precision.csv

`run` appends a row to ``<work>/precision.csv`` for each trial, and goes on where it was stopped. `table` has the mean
difference to float32 in points, over budgets and seeds, and the largest loss; and how many pairs of networks of one
dataset change places between float32 and 8 bits. No Ray is needed.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from _common import append, device_label, read

from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.device import pick_device
from rssearch.trial.session import Context, Session
from rssearch.trials import prune

EUROSAT = {
    "split": {"train": 0.35, "val": 0.1, "test": 0.55},
    "train": {"epochs": 12, "lr": 0.1, "warmup_epochs": 1, "batch_size": 64},
    "finetune": {"epochs": 3, "lr": 0.05, "batch_size": 64, "recalibrate_batches": 10},
}
CELLS: dict[tuple[str, str], dict[str, Any]] = {  # dataset and network -> settings; small enough for a CPU
    ("eurosat", "resnet20"): EUROSAT | {"input_size": 16},
    ("eurosat", "resnet18"): EUROSAT | {"input_size": 16},
    ("eurosat", "mobilenet_v2"): EUROSAT
    | {
        "input_size": 32,
        "train": EUROSAT["train"] | {"epochs": 24, "lr": 0.02},
        "finetune": EUROSAT["finetune"] | {"lr": 0.01},
    },
    ("dubai", "unet"): {
        "split": {"train": 0.6, "val": 0.15, "test": 0.25},
        "patches": {"size": 64},
        "model": {"networks": {"unet": {"base": 8, "levels": 3, "batch_norm": True}}},
        "train": {"epochs": 12, "lr": 0.05, "warmup_epochs": 1, "batch_size": 32},
        "finetune": {"epochs": 3, "lr": 0.05, "batch_size": 32, "recalibrate_batches": 10},
    },
}
PRECISIONS = ("fp32", "int8", "int8_qat")
COLUMNS = (
    *("dataset", "model", "seed", "asked_macs_ratio", "precision", "macs", "bytes", "val_quality", "test_quality"),
    *("calibration", "seconds", "device"),
)


def run(args: argparse.Namespace) -> None:
    """Every network in every precision."""
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "precision.csv"
    done = {identity(row) for row in read(path)}
    cells = [cell for cell in CELLS if cell[1] in args.models]
    for seed, (dataset, model), ratio in itertools.product(args.seeds, cells, args.ratios):
        for precision in PRECISIONS:
            point = {"dataset": dataset, "model": model, "method": "l1", "macs_ratio": ratio, "seed": seed}
            about = {
                "dataset": dataset,
                "model": model,
                "seed": seed,
                "asked_macs_ratio": ratio,
                "precision": precision,
            }
            if identity(about) in done:
                continue
            begin = time.perf_counter()
            settings = Settings.model_validate(CELLS[dataset, model])
            gpus = float(pick_device().type == "cuda")
            context = Context("precision", str(args.work / "store"), str(args.data_root), settings, gpus=gpus)
            asked = point | {"precision": precision}
            session = Session(context, content_key(about), asked)
            found = prune.run(asked, session) | prune.measure(asked, session)
            session.drop_checkpoint()
            quality = "miou" if "test_miou" in found else "accuracy"
            row = {"calibration": "", **found, **about, "device": device_label()}
            row |= {f"{split}_quality": found[f"{split}_{quality}"] for split in ("val", "test")}
            append(path, row | {"seconds": round(time.perf_counter() - begin, 1)}, COLUMNS)
            print(f"{model} {ratio:g} seed {seed} {precision}: {row['val_quality']:.4f} {row['test_quality']:.4f}")


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells rows apart."""
    return tuple(str(row[name]) for name in ("dataset", "model", "seed", "asked_macs_ratio", "precision"))


def table(args: argparse.Namespace) -> None:
    """Differences to float32 on the test split, and pairs that change places."""
    rows = read(args.csv)
    quality = {identity(row): float(row["test_quality"]) for row in rows}
    sizes = {identity(row): int(row["bytes"]) for row in rows}
    print(
        "| dataset, network | networks | float32 | int8 - float32 | largest loss | int8_qat - float32 | largest loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for cell in dict.fromkeys((row["dataset"], row["model"]) for row in rows):
        whole = [key for key in quality if key[:2] == cell and key[4] == "fp32"]
        cells = [f"{100 * statistics.mean(quality[key] for key in whole):.2f}"]
        for precision in PRECISIONS[1:]:
            lost = [
                100 * (quality[other] - quality[key]) for key in whole if (other := (*key[:4], precision)) in quality
            ]
            cells += [f"{statistics.mean(lost):+.2f}", f"{-min(lost):.2f}"] if lost else ["-", "-"]
        print(f"| {', '.join(cell)} | {len(whole)} | {' | '.join(cells)} |")
    for precision in PRECISIONS[1:]:
        swapped, pairs = 0, 0
        networks = [key for key in quality if key[4] == "fp32" and (*key[:4], precision) in quality]
        for one, other in itertools.combinations(networks, 2):
            if (one[0], one[2]) != (other[0], other[2]) or quality[one] == quality[other]:
                continue
            before = quality[one] - quality[other]
            after = quality[*one[:4], precision] - quality[*other[:4], precision]
            pairs, swapped = pairs + 1, swapped + (before * after < 0)
        if pairs:
            print(
                f"\n{precision}: {swapped} of {pairs} pairs of a dataset and seed change places ({swapped / pairs:.0%})"
            )
    smaller = [
        sizes[*key[:4], "int8"] / sizes[key] for key in sizes if key[4] == "fp32" and (*key[:4], "int8") in sizes
    ]
    if smaller:
        print(f"\nint8 has {statistics.mean(smaller):.0%} of the bytes of float32, in the mean")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data-root", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--models", nargs="+", default=[model for _, model in CELLS])
    running.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.5, 0.25])
    running.add_argument("--seeds", type=int, nargs="+", default=[0])
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("csv", type=Path)
    telling.set_defaults(main=table)
    arguments = parser.parse_args()
    arguments.main(arguments)
