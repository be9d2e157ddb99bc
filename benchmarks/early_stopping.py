"""What early stopping saves: the hypervolume of the front over the compute spent, with and without it.

    python benchmarks/early_stopping.py simulated
    python benchmarks/early_stopping.py real --data-root data --work /tmp/early
    python benchmarks/early_stopping.py orders

simulated  studies in virtual time on drawn learning curves (`trials.curves`), for several seeds and samplers:
           without a rule, with each rule for as many trials, and with each rule for as many epochs
real       a pruning study of ResNet-20 on EuroSAT on this machine: without a rule, with `moasha` for as many trials,
           and with `moasha` for about as many epochs; it goes on where it was interrupted
orders     the recorded epochs of a real study (early_stopping-epochs.csv), its trials in ten random orders and two at
           a time, with the rule `front`; only prints

A row is a study at a share of the compute that the one without a rule takes. Compute is epochs times MACs, in epochs of
the unpruned network (`compute`): seconds would depend on what else the machine does. `epochs` are those of all trials
that had ended by then. The hypervolume is relative: accuracy above chance, MACs in units of the unpruned network's.
Rows go to benchmarks/early_stopping-<command>-<device>.csv.
"""

import argparse
import math
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from _common import load, read, write_rows
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.front.pareto import Direction, hypervolume
from rssearch.sampling.prospects import Prospects
from rssearch.storage.journal import Journal
from rssearch.storage.records import TrialRecord
from rssearch.study import run
from rssearch.study.simulation import Simulator, simulate
from rssearch.trials import curves

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
OBJECTIVES: dict[str, Direction] = {"val_accuracy": "max", "macs": "min"}
CLASSES = curves.CLASSES  # EuroSAT has as many
RULES = ("none", "asha", "moasha", "front")


def compute(record: TrialRecord, macs: float) -> float:
    """What a trial took, in epochs of the unpruned network."""
    return float(len(record.history) * record.metrics.get("macs", macs) / macs)


def relative(records: list[TrialRecord], macs: float) -> float:
    """Hypervolume of the finished trials above chance, with MACs in units of the unpruned network's."""
    finished = [r.metrics for r in records if r.status == "finished"]
    points = [[metrics[name] for name in OBJECTIVES] for metrics in finished]
    return hypervolume(points, [curves.CHANCE, macs], list(OBJECTIVES.values())) / macs


def curve(records: list[TrialRecord], macs: float, whole: float) -> list[dict[str, Any]]:
    """The state of a study, with its records in the order of their end, at shares of a compute of `whole`."""
    rows = []
    for share in SHARES:
        spent, ended = 0.0, []
        for record in records:
            if spent + compute(record, macs) > share * whole * (1 + 1e-9):
                break
            spent += compute(record, macs)
            ended.append(record)
        finished = sum(record.status == "finished" for record in ended)
        epochs = sum(len(record.history) for record in ended)
        rows.append({"share": share, "trials": len(ended), "finished": finished, "epochs": epochs,
                     "compute": round(spent, 1), "hypervolume": relative(ended, macs)})  # fmt: skip
    return rows


def simulated_study(folder: Path, rule: str, sampler: str, seed: int, trials: int, epochs: int) -> StudyConfig:
    return parse_study(
        {
            "study": "s",
            "trial": "trials.curves:synthetic",
            "space": {
                "rate": {"low": 0.0, "high": 0.9},
                "method": ["a", "b", "c", "d"],
                "lr": {"low": 1e-3, "high": 1.0, "log": True},
            },
            "settings": {"train": {"epochs": epochs}},
            "search": {"sampler": sampler, "trials": trials, "seed": seed, "early_stopping": rule},
            "storage": str(folder),
        }
    )


def simulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for sampler in options.samplers:
        for seed in range(options.seeds):
            whole = math.inf
            for rule, more in [(rule, 1) for rule in RULES] + [(rule, options.more) for rule in RULES[1:]]:
                with tempfile.TemporaryDirectory() as folder:
                    trials = more * options.trials
                    config = simulated_study(Path(folder), rule, sampler, seed, trials, options.epochs)
                    records = list(simulate(config, Simulator(options.slots)).records.values())
                if rule == "none":
                    whole = sum(compute(record, curves.MACS) for record in records)
                about = {"sampler": sampler, "seed": seed, "rule": rule, "budget": trials}
                rows += [about | row for row in curve(records, curves.MACS, whole)]
            print(f"{sampler} {seed}", flush=True)
    return rows


def real_study(options: argparse.Namespace, rule: str, trials: int) -> StudyConfig:
    return parse_study(
        {
            "study": f"early-{rule}",
            "trial": "trials.prune:run",
            "space": {
                "dataset": [options.dataset],
                "model": ["resnet20"],
                "method": ["l1", "bn_scale", "lfp", "random"],
                "macs_ratio": {"low": 0.1, "high": 0.9},
                "finetune.lr": {"low": 1e-3, "high": 1e-1, "log": True},
            },
            "settings": {
                "input_size": 32,
                "split": {"train": 0.2, "val": 0.1, "test": 0.7},
                "train": {"epochs": options.epochs, "warmup_epochs": 1 if options.epochs > 1 else 0},
                "finetune": {"epochs": options.epochs, "recalibrate_batches": 10},
            },
            "search": {"sampler": "random", "trials": trials, "early_stopping": rule},
            "data_root": str(options.data_root),
            "storage": str(options.work),
        }
    )


def real(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows, whole = [], math.inf
    # The third study is the second, gone on with.
    for rule, budget in (
        ("none", options.trials),
        ("moasha", options.trials),
        ("moasha", options.more * options.trials),
    ):
        status = run.search(real_study(options, rule, budget), console=Console())
        if status != 0:
            raise SystemExit(status)
        trials = Journal(options.work / f"early-{rule}" / "trials.jsonl").records.values()
        records = [record for record in trials if record.kind == "trial"][:budget]
        macs = max(r.metrics["baseline_macs"] for r in records if "baseline_macs" in r.metrics)
        if rule == "none":
            whole = sum(compute(record, macs) for record in records)
        about = {"sampler": "random", "seed": 0, "rule": rule, "budget": budget}
        rows += [about | row for row in curve(records, macs, whole)]
    return rows


def orders(path: Path, count: int = 10, slots: int = 2) -> None:
    """What `front` leaves of recorded trials, whose epochs take time by their MACs."""
    trials: dict[str, list[dict[str, float]]] = {}
    for row in read(path):
        values = {"val_accuracy": float(row["val_accuracy"]), "macs": float(row["macs_ratio"])}
        trials.setdefault(row["trial"], []).append(values)
    reference = {"val_accuracy": curves.CHANCE, "macs": 1.0}

    def volume(names: Iterable[str]) -> float:
        points = [[*trials[name][-1].values()] for name in names]
        return hypervolume(points, [*reference.values()], [*OBJECTIVES.values()])

    found = []
    for order in range(count):
        rule, finished, spent = Prospects(OBJECTIVES, ["val_accuracy"]), [], 0
        queue = [*np.random.default_rng(order).permutation([*trials])]
        running = [(0.0, str(queue.pop()), 0) for _ in range(slots)]
        while running:
            running.sort()
            now, name, epoch = running.pop(0)
            epochs = trials[name]
            if epoch == len(epochs):
                finished.append(name)
                rule.finished(None, epochs, epochs[-1], feasible=True)
            elif epoch == 0 or rule.should_continue(None, epoch, len(epochs), epochs[epoch - 1], reference):
                spent += 1
                running.append((now + 0.1 + epochs[0]["macs"], name, epoch + 1))
                continue
            if queue:
                running.append((now, str(queue.pop()), 0))
        found.append((spent / sum(map(len, trials.values())), volume(finished) / volume(trials)))
        print(f"order {order}: {len(finished)} of {len(trials)} trials finish, {found[-1][0]:.1%} of the epochs, "
              f"{found[-1][1]:.4f} of the hypervolume")  # fmt: skip
    epochs_left, volumes = zip(*found, strict=True)
    print(f"mean {statistics.mean(epochs_left):.1%} and {statistics.mean(volumes):.4f}; least {min(volumes):.4f}")


def show(rows: list[dict[str, Any]]) -> None:
    """Medians over the seeds: what each study took, and its hypervolume beside that of the study without a rule."""
    kinds = Counter((row["sampler"], row["rule"], row["budget"]) for row in rows)
    last = {(row["sampler"], row["seed"]): row for row in rows if row["rule"] == "none" and row["share"] == 1}
    print(f"{'sampler':8} {'rule':7} {'trials':>6}  {'epochs':>6}  " + "  ".join(f"{s:>6.0%}" for s in SHARES))
    for kind in kinds:
        own = [row for row in rows if (row["sampler"], row["rule"], row["budget"]) == kind]

        def ratio(row: dict[str, Any], name: str) -> float:
            return float(row[name] / last[row["sampler"], row["seed"]][name])

        epochs = statistics.median(ratio(row, "epochs") for row in own if row["share"] == 1)
        shares = (statistics.median(ratio(r, "hypervolume") for r in own if r["share"] == share) for share in SHARES)
        print(f"{kind[0]:8} {kind[1]:7} {kind[2]:6}  {epochs:6.1%}  " + "  ".join(f"{s:6.3f}" for s in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawn = commands.add_parser("simulated")
    drawn.add_argument("--trials", type=int, default=150)
    drawn.add_argument("--epochs", type=int, default=27)
    drawn.add_argument("--seeds", type=int, default=10)
    drawn.add_argument("--slots", type=int, default=8)
    drawn.add_argument("--samplers", nargs="+", default=["random", "nsga2"])
    trained = commands.add_parser("real")
    trained.add_argument("--data-root", type=Path, default=Path("data"))
    trained.add_argument("--dataset", default="eurosat")
    trained.add_argument("--work", type=Path, required=True, help="storage; what has finished is reused")
    trained.add_argument("--trials", type=int, default=24)
    trained.add_argument("--epochs", type=int, default=9, help="of the fine-tuning, and of the baseline")
    for command in (drawn, trained):
        command.add_argument("--more", type=int, default=4, help="times as many trials for the same compute")
        command.add_argument("--out", type=Path, default=Path(__file__).parent)
    recorded = commands.add_parser("orders")
    recorded.add_argument("--recorded", type=Path, default=Path(__file__).parent / "early_stopping-epochs.csv")
    options = parser.parse_args()
    if options.command == "orders":
        orders(options.recorded)
        return
    rows = simulated(options) if options.command == "simulated" else real(options)
    show(rows)
    lines = [row | {"hypervolume": f"{row['hypervolume']:.5f}", "load_average": load()} for row in rows]
    print(write_rows(f"early_stopping-{options.command}", lines, ("numpy", "optuna"), options.out))


if __name__ == "__main__":
    main()
