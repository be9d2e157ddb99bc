"""Which recipe fine-tunes a pruned network best: a grid, judged on the validation split.

A converged baseline is pruned by ``l1`` to a quarter of its MACs, and fine-tuned for the same epochs by each recipe of
the grid: learning rate, schedule, share of the distillation from the baseline, batches of recalibration. Two datasets,
two networks and several seeds; what wins on validation is the default of ``settings.finetune``.

    python benchmarks/finetune_recipe.py run --data-root DIR --work WORK
    python benchmarks/finetune_recipe.py table WORK/finetune_recipe.csv

`run` appends a row to ``<work>/finetune_recipe.csv`` for each cell, and goes on where it was stopped. No Ray is needed.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from _common import append, device_label, gain, read, spread

from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.device import pick_device
from rssearch.trial.session import Context, Session
from rssearch.trials import prune

EUROSAT = {
    "input_size": 16,
    "split": {"train": 0.35, "val": 0.15, "test": 0.5},
    "train": {"epochs": 12, "lr": 0.1, "warmup_epochs": 1, "batch_size": 64},
}
UCMERCED = {
    "input_size": 32,
    "split": {"train": 0.6, "val": 0.2, "test": 0.2},
    "train": {"epochs": 60, "lr": 0.1, "warmup_epochs": 1, "batch_size": 64},
}
CELLS: dict[tuple[str, str], dict[str, Any]] = {  # dataset and network -> how the baseline converges
    ("eurosat", "resnet20"): EUROSAT,
    ("eurosat", "mobilenet_v2"): EUROSAT,
    ("ucmerced", "resnet20"): UCMERCED,
    ("ucmerced", "mobilenet_v2"): UCMERCED,
}
GRID: dict[str, tuple[Any, ...]] = {
    "lr": (0.01, 0.03, 0.1),
    "schedule": ("cosine",),
    "distill": (0.0, 0.5, 0.9),
    "recalibrate_batches": (10,),
}
DEFAULT = {"lr": 0.01, "schedule": "cosine", "distill": 0.0, "recalibrate_batches": 10}  # before this grid was run
RATIO = 0.25
COLUMNS = (
    *("dataset", "model", "seed", "epochs", *GRID, "macs_ratio", "baseline_val_accuracy", "val_accuracy"),
    *("test_accuracy", "seconds", "device"),
)


def run(args: argparse.Namespace) -> None:
    """Every recipe on every network, seed by seed."""
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "finetune_recipe.csv"
    done = {identity(row) for row in read(path)}
    values = (getattr(args, name) for name in GRID)
    recipes = [dict(zip(GRID, cell, strict=True)) for cell in itertools.product(*values)]
    for seed, (dataset, model), recipe in itertools.product(args.seeds, CELLS, recipes):
        if dataset not in args.datasets or model not in args.models:
            continue
        about = {"dataset": dataset, "model": model, "seed": seed, "epochs": args.epochs, **recipe}
        if identity(about) in done:
            continue
        begin = time.perf_counter()
        settings = Settings.model_validate(
            {
                **CELLS[dataset, model],
                "finetune": {"epochs": args.epochs, "batch_size": CELLS[dataset, model]["train"]["batch_size"]}
                | recipe,
            }
        )
        point = {"dataset": dataset, "model": model, "seed": seed, "method": "l1", "macs_ratio": RATIO}
        context = Context(
            "finetune_recipe",
            str(args.work / "store"),
            str(args.data_root),
            settings,
            gpus=float(pick_device().type == "cuda"),
        )
        session = Session(context, content_key(about), point)
        found = prune.run(point, session) | prune.measure(point, session)
        session.drop_checkpoint()
        row = found | about | {"seconds": round(time.perf_counter() - begin, 1), "device": device_label()}
        append(path, row, COLUMNS)
        print(f"{about}: {row['val_accuracy']:.4f} {row['seconds']} s", flush=True)


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells the cells of the grid apart."""
    return tuple(str(row[name]) for name in ("dataset", "model", "seed", "epochs", *GRID))


def table(args: argparse.Namespace) -> None:
    """Each recipe's validation accuracy on each network, and its gain over the former default, seed by seed."""
    rows = read(args.csv)
    nets = sorted({(row["dataset"], row["model"]) for row in rows})
    recipes = sorted({tuple(row[name] for name in GRID) for row in rows})

    def values(recipe: tuple[str, ...], net: tuple[str, str], column: str = "val_accuracy") -> dict[str, float]:
        found = (row for row in rows if (row["dataset"], row["model"]) == net)
        return {row["seed"]: float(row[column]) for row in found if tuple(row[name] for name in GRID) == recipe}

    default = tuple(str(DEFAULT[name]) for name in GRID)

    def mean_of(recipe: tuple[str, ...]) -> float:
        return statistics.mean(value for net in nets for value in values(recipe, net).values())

    titles = [title for net in nets for title in (f"{' '.join(net)}, val", "gain on val", "gain on test")]
    print(f"| {' | '.join((*GRID, 'mean', *titles))} |")
    print("|---" * (len(GRID) + 1 + len(titles)) + "|")
    for recipe in sorted(recipes, key=lambda one: -mean_of(one)):
        cells = [f"{100 * mean_of(recipe):.2f}"]
        for net in nets:
            cells.append(spread(list(values(recipe, net).values())))
            for column in ("val_accuracy", "test_accuracy"):
                cells.append(gain(values(recipe, net, column), values(default, net, column)))
        print(f"| {' | '.join((*recipe, *cells))} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data-root", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--epochs", type=int, default=5)
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--datasets", nargs="+", default=["eurosat", "ucmerced"])
    running.add_argument("--models", nargs="+", default=["resnet20", "mobilenet_v2"])
    for name, choices in GRID.items():
        running.add_argument(f"--{name.replace('_', '-')}", type=type(choices[0]), nargs="+", default=list(choices))
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("csv", type=Path)
    telling.set_defaults(main=table)
    arguments = parser.parse_args()
    arguments.main(arguments)
