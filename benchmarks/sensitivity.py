"""Do sensitivities say where a network can be cut, and are the widths that follow from them better than uniform ones?

A network is trained, and the loss increases of its groups are measured (`rssearch.pruning.sensitivity`). Then

* ``order``: random cuts, each group to a share of U(0.1, 1), or from another least share on, with batch normalisation
  recalibrated and no fine-tuning. Kendall's tau says how well the sum of the increases ranks their quality on the
  validation split.
* ``trials``: the same MACs by the allocations uniform, global_mean and sensitivity, fine-tuned equally.
* ``seconds``: of finding the widths for other budgets from curves that are there.

    python benchmarks/sensitivity.py run --data-root DIR --work DIR --seeds 0 1 2
    python benchmarks/sensitivity.py table DIR

`run` appends rows to ``<work>/sensitivity_order.csv``, ``sensitivity_trials.csv`` and ``sensitivity_seconds.csv``, and
goes on where it was stopped. No Ray is needed.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import append, cost_device, gain, read, spread
from scipy.stats import kendalltau

from rssearch import models, pruning
from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.pruning.sensitivity import SHARES
from rssearch.train import recalibrate
from rssearch.trial.session import Context, Session
from rssearch.trials import prune
from rssearch.trials.pruning_trial import PruningTrial

ORDER = ("dataset", "model", "seed", "cut", "macs_ratio", "predicted", "quality", "device")
TRIALS = (
    *("dataset", "model", "seed", "allocation", "asked_macs_ratio", "macs_ratio", "baseline_val", "val", "test"),
    *("seconds", "device"),
)
SECONDS = ("model", "groups", "asked_macs_ratio", "macs_ratio", "seconds", "device")
STUDIES: dict[tuple[str, str], dict[str, Any]] = {  # dataset, network -> settings; small enough for a CPU
    ("eurosat", "resnet18"): {
        "input_size": 32,
        "split": {"train": 0.11, "val": 0.1, "test": 0.79},
        "train": {"epochs": 8, "lr": 0.05, "batch_size": 64},
        "finetune": {"epochs": 2, "lr": 0.01, "batch_size": 64, "recalibrate_batches": 10},
    },
    ("eurosat", "mobilenet_v2"): {  # with less training it stays at 32 %, and its random cuts at chance
        "input_size": 32,
        "split": {"train": 0.35, "val": 0.1, "test": 0.55},
        "train": {"epochs": 24, "lr": 0.02, "warmup_epochs": 1, "batch_size": 64},
        "finetune": {"epochs": 2, "lr": 0.01, "batch_size": 64, "recalibrate_batches": 10},
    },
    ("dubai", "unet"): {
        "input_size": None,
        "patches": {"size": 128},
        "model": {"networks": {"unet": {"base": 8, "levels": 3, "batch_norm": True}}},
        "train": {"epochs": 10, "lr": 0.05, "batch_size": 16},
        "finetune": {"epochs": 2, "lr": 0.01, "batch_size": 16, "recalibrate_batches": 10},
    },
}
QUALITY = {"eurosat": "accuracy", "dubai": "miou"}
ALLOCATIONS = ("uniform", "global_mean", "sensitivity")
PAIRS = (("sensitivity", "uniform"), ("sensitivity", "global_mean"))
CUTS = 30


def opened(args: argparse.Namespace, dataset: str, model: str, seed: int, **more: Any) -> PruningTrial:
    """A trial of one of the studies, outside of any study."""
    settings = Settings.model_validate(
        STUDIES[dataset, model] | {"pruning": {"score_batches": args.batches, "score_batch_size": 64}}
    )
    point = {"dataset": dataset, "model": model, "method": args.method, "seed": seed, "macs_ratio": args.ratio, **more}
    context = Context("sensitivity", str(args.work / "store"), str(args.data_root), settings)
    return PruningTrial.open(point, Session(context, content_key(point), point))


def run(args: argparse.Namespace) -> None:
    """All parts, network by network."""
    args.work.mkdir(parents=True, exist_ok=True)
    studies = [study for study in STUDIES if study[1] in args.models]
    for seed, (dataset, model) in itertools.product(args.seeds, studies):
        if seed == args.seeds[0] and model in args.order:
            _order(args, dataset, model, seed)
        for allocation in ALLOCATIONS:
            _trial(args, dataset, model, seed, allocation)
    _seconds(args)


def _order(args: argparse.Namespace, dataset: str, model: str, seed: int) -> None:
    """Random cuts of one network: what is predicted of them, and what they reach."""
    path = args.work / "sensitivity_order.csv"
    known = {row["cut"] for row in read(path) if (row["model"], row["seed"]) == (model, str(seed))}
    trial = opened(args, dataset, model, seed, allocation="sensitivity")
    curves = trial.sensitivities or {}
    for cut in range(CUTS):
        if str(cut) in known:
            continue
        rng = np.random.default_rng([seed, cut])
        widths = {
            name: max(curve.widths[0], round(curve.widths[-1] * rng.uniform(args.least, 1)))
            for name, curve in curves.items()
        }
        kept = {
            name: sorted(torch.sort(-trial.scores[name], stable=True).indices[:width].tolist())
            for name, width in widths.items()
        }
        network, _ = pruning.cut(trial.baseline.model.to(trial.device).eval(), trial.graph, kept)
        recipe = trial.settings.finetune
        recalibrate(
            network,
            trial.images.split("train"),
            recipe.recalibrate_batches,
            batch_size=recipe.batch_size,
            device=trial.device,
            seed=seed,
        )
        predicted = sum([float(curve.at(np.array([widths[name]]))[0]) for name, curve in curves.items()])
        row = {"dataset": dataset, "model": model, "seed": seed, "cut": cut, "predicted": predicted}
        row |= {"quality": trial.validate(network, recipe.batch_size)[f"val_{QUALITY[dataset]}"]}
        row |= {"macs_ratio": trial.graph.macs(kept) / trial.graph.macs(), "device": cost_device()}
        append(path, row, ORDER)
        print(f"{model} cut {cut}: predicted {predicted:.3f}, {row['quality']:.4f}", flush=True)


def _trial(args: argparse.Namespace, dataset: str, model: str, seed: int, allocation: str) -> None:
    """One allocation, fine-tuned and measured."""
    path = args.work / "sensitivity_trials.csv"
    mine = (model, str(seed), allocation, str(args.ratio))
    if mine in {(r["model"], r["seed"], r["allocation"], r["asked_macs_ratio"]) for r in read(path)}:
        return
    begin = time.perf_counter()
    trial = opened(args, dataset, model, seed, allocation=allocation)
    point, session, name = trial.point.values, trial.session, QUALITY[dataset]
    result = prune.run(point, session) | prune.measure(point, session)
    session.drop_checkpoint()
    row = {"dataset": dataset, "model": model, "seed": seed, "allocation": allocation, "asked_macs_ratio": args.ratio}
    row |= {"macs_ratio": result["macs_ratio"], "baseline_val": result[f"baseline_val_{name}"]}
    row |= {"val": result[f"val_{name}"], "test": result[f"test_{name}"], "device": cost_device()}
    row |= {"seconds": round(time.perf_counter() - begin, 1)}
    append(path, row, TRIALS)
    print(f"{model} seed {seed} {allocation}: {row['val']:.4f} {row['test']:.4f} {row['seconds']} s", flush=True)


def _seconds(args: argparse.Namespace) -> None:
    """Another budget from the same curves; those of the largest network are made up."""
    path = args.work / "sensitivity_seconds.csv"
    for model in ("resnet18", "resnet50"):
        graph = pruning.trace(models.create(model, 10).eval(), torch.zeros(1, 3, 64, 64))
        rng = np.random.default_rng(0)
        scores = {name: torch.from_numpy(rng.uniform(size=group.width)) for name, group in graph.groups.items()}
        curves = {}
        for name, group in graph.groups.items():
            widths = sorted({max(1, round(group.width * share)) for share in (*SHARES, 1.0)})
            increases = rng.uniform(0.2, 3) * np.exp(-rng.uniform(2, 8) * np.array(widths) / group.width)
            increases[-1] = 0
            curves[name] = pruning.Sensitivity(tuple(widths), tuple(increases))
        for ratio in (0.75, 0.5, 0.25, 0.1):
            if (model, str(ratio)) in {(row["model"], row["asked_macs_ratio"]) for row in read(path)}:
                continue
            begin = time.perf_counter()
            kept = pruning.allocate(graph, scores, allocation="sensitivity", macs_ratio=ratio, sensitivities=curves)
            row = {"model": model, "groups": len(curves), "asked_macs_ratio": ratio, "device": cost_device()}
            row |= {"seconds": round(time.perf_counter() - begin, 2), "macs_ratio": graph.macs(kept) / graph.macs()}
            append(path, row, SECONDS)
            print(f"{model} {ratio}: {row['macs_ratio']:.4f} {row['seconds']} s", flush=True)


def table(args: argparse.Namespace) -> None:
    """Kendall's tau of each network; means over the seeds, and differences of pairs, seed by seed."""
    for model, rows in _by_model(read(args.work / "sensitivity_order.csv")):
        tau = kendalltau([-float(row["predicted"]) for row in rows], [float(row["quality"]) for row in rows]).statistic
        print(f"{model}: Kendall's tau {tau:.3f} over {len(rows)} cuts")
    print("\n| network | " + " | ".join(ALLOCATIONS) + " | " + " | ".join(" - ".join(pair) for pair in PAIRS) + " |")
    print("|---" * (1 + len(ALLOCATIONS) + len(PAIRS)) + "|")
    for model, rows in _by_model(read(args.work / "sensitivity_trials.csv")):
        of = {how: {r["seed"]: float(r["test"]) for r in rows if r["allocation"] == how} for how in ALLOCATIONS}
        cells = [spread(list(values.values())) for values in of.values()]
        print(f"| {model} | {' | '.join(cells)} | {' | '.join(gain(of[a], of[b]) for a, b in PAIRS)} |")
    seconds = [float(row["seconds"]) for row in read(args.work / "sensitivity_seconds.csv")]
    print(f"\nanother budget: median {statistics.median(seconds)} s, at most {max(seconds)} s")


def _by_model(rows: list[dict[str, str]]) -> list[tuple[str, list[dict[str, str]]]]:
    names = dict.fromkeys(row["model"] for row in rows)
    return [(name, [row for row in rows if row["model"] == name]) for name in names]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data-root", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--method", default="l1")
    running.add_argument("--models", nargs="+", default=[model for _, model in STUDIES])
    running.add_argument("--least", type=float, default=min(SHARES), help="share of a group that random cuts keep")
    running.add_argument("--order", nargs="+", default=["resnet18", "mobilenet_v2"], help="networks of the random cuts")
    running.add_argument("--seeds", type=int, nargs="+", default=[0])
    running.add_argument("--ratio", type=float, default=0.25)
    running.add_argument("--batches", type=int, default=5, help="of 64 images: for normalisation, and for the loss")
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("work", type=Path)
    telling.set_defaults(main=table)
    arguments = parser.parse_args()
    arguments.main(arguments)
