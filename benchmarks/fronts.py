"""Ways to a front at equal compute: one training for all budgets, fine-tuning, a channel search, and from scratch.

Two regimes. *given*: the start is a converged network whose training is not counted, as for everybody who brings
weights; each way has the same further compute. *nothing*: all is counted, the network's own training included.

    python benchmarks/fronts.py run --data-root DIR --work WORK --dataset eurosat --regime given --seeds 0 1 2 3 4
    python benchmarks/fronts.py table WORK/fronts.csv --png fronts.png

`run` appends a row to ``<work>/fronts.csv`` for each budget of each way, and goes on where it was stopped. `table` has
the hypervolumes (test accuracy over the share of MACs, from chance and the whole network), their differences seed by
seed with 95 % intervals (Student's t), and the accuracies. No Ray is needed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import append, device_label, gain, read, spread

from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.device import pick_device
from rssearch.front import hypervolume
from rssearch.front.seeds import paired
from rssearch.models.weights import to_bytes
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, prune
from rssearch.trials.pruning_trial import PruningTrial

BUDGETS = (0.7, 0.5, 0.35, 0.25, 0.15, 0.1)
MODELS = {"eurosat": "resnet20", "ucmerced": "resnet20", "dubai": "unet"}
SETS: dict[str, dict[str, Any]] = {  # how a network converges on them
    "eurosat": {
        "split": {"train": 0.35, "val": 0.1, "test": 0.55},
        "model": {"shortcut": "B"},
        "train": {"epochs": 12, "lr": 0.1, "warmup_epochs": 1, "batch_size": 64},
    },
    "ucmerced": {
        "split": {"train": 0.6, "val": 0.1, "test": 0.3},
        "model": {"shortcut": "B"},
        "train": {"epochs": 60, "lr": 0.1, "warmup_epochs": 2, "batch_size": 64},
    },
    "dubai": {
        "split": {"train": 0.6, "val": 0.15, "test": 0.25},
        "patches": {"size": 64},
        "model": {"networks": {"unet": {"base": 8, "levels": 3, "batch_norm": True}}},
        "train": {"epochs": 40, "lr": 0.05, "warmup_epochs": 1, "batch_size": 32},
    },
}
GIVEN = 2.5  # the network of the first regime has trained as many times longer: to its end
WAYS = ("slimmable", "sandwich", "l1", "channel_nas", "scratch")
COLUMNS = (
    *("regime", "dataset", "model", "input_size", "seed", "way", "asked_macs_ratio", "macs_ratio", "epochs"),
    *("baseline_quality", "val_quality", "test_quality", "compute", "shared_compute", "baselines", "seconds", "device"),
)


class Plan:
    """One way in one regime on one dataset: its settings, so that the compute of all budgets is the same.

    Compute is in epochs of the whole network on the training images, forward and backward.
    """

    def __init__(self, way: str, regime: str, dataset: str, input_size: int | None) -> None:
        self.way, self.regime, self.dataset = way, regime, dataset
        base = SETS[dataset] | {"input_size": input_size}
        self.whole = base["train"]["epochs"]
        self.total = {"given": 0.5, "nothing": 2.5}[regime] * self.whole
        own = 0.0 if regime == "given" or way in ("scratch", "channel_nas") else float(self.whole)
        left = self.total - own
        self.epochs = max(1, round(left / sum(BUDGETS)))
        self.settings = base | {"finetune": base["train"] | {"epochs": self.epochs, "lr": 0.05, "warmup_epochs": 0}}
        if way in ("slimmable", "sandwich"):
            epochs = self.epochs
            if way == "sandwich":  # a third is for the fine-tuning of the members
                epochs = max(1, round(left * 2 / 3 / (1 / 3 + BUDGETS[-1] + 2 * 0.55)))
            form = {"slimmable": "cascade", "sandwich": "sandwich"}[way]
            self.settings |= {"slimmable": {"form": form, "epochs": epochs, "budgets": BUDGETS}}
            tuned = 0 if way == "slimmable" else max(1, round(left / 3 / sum(BUDGETS)))
            self.settings["finetune"] = self.settings["finetune"] | {"epochs": tuned, "recalibrate_batches": 10}
        elif way.startswith("l1"):
            self.settings["finetune"] |= {"recalibrate_batches": 10}
        elif way == "scratch":
            self.settings["train"] = base["train"] | {"epochs": self.epochs}
        elif way == "channel_nas":  # half of it is the search, in which weights and scores take a step each
            searching = max(1, round(left / 2 / 1.6))
            self.settings["train"] = base["train"] | {"epochs": searching, "lr": 0.05 if regime == "given" else 0.1}
            self.settings["nas"] = {"target": 0.3}
            self.settings["finetune"] |= {"epochs": max(1, round(left / 2 / sum(BUDGETS))), "recalibrate_batches": 10}

    @property
    def method(self) -> str:
        """Of the trials."""
        return "slimmable" if self.way == "sandwich" else self.way


def run(args: argparse.Namespace) -> None:
    """Every way, seed by seed."""
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "fronts.csv"
    done = {identity(row) for row in read(path)}
    for seed in args.seeds:
        for way in args.ways:
            for row in front(args, way, seed, done):
                append(path, row, COLUMNS)
                print({name: row[name] for name in ("seed", "way", "asked_macs_ratio", "test_quality", "seconds")})


def front(args: argparse.Namespace, way: str, seed: int, done: set[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    """The rows of one way and seed that are missing."""
    plan = Plan(way, args.regime, args.dataset, args.input_size)
    model = MODELS[args.dataset]
    about = {"regime": args.regime, "dataset": args.dataset, "model": model, "input_size": args.input_size or 0}
    about |= {"seed": seed, "way": way, "device": device_label()}
    wanted = [ratio for ratio in BUDGETS if identity(about | {"asked_macs_ratio": ratio}) not in done]
    if not wanted:
        return
    settings = dict(plan.settings)
    if args.regime == "given" and way != "scratch":
        settings["model"] = settings["model"] | {"weights": str(given(args, seed))}
        if way != "channel_nas":
            settings["train"] = settings["train"] | {"epochs": 0}
    context = opened(args, settings)
    for ratio in wanted:
        begin = time.perf_counter()
        point = {"dataset": args.dataset, "model": model, "seed": seed, "method": plan.method, "macs_ratio": ratio}
        session = Session(context, content_key({**point, **about}), point)
        found = prune.run(point, session) | prune.measure(point, session)
        session.drop_checkpoint()
        quality = "miou" if "test_miou" in found else "accuracy"
        yield about | {
            "asked_macs_ratio": ratio,
            "macs_ratio": found["macs_ratio"],
            "epochs": found["history"][-1]["epoch"] if found["history"] else 0,
            "baseline_quality": found.get(f"baseline_test_{quality}", ""),
            "val_quality": found[f"val_{quality}"],
            "test_quality": found[f"test_{quality}"],
            "compute": found["compute"],
            "shared_compute": json.dumps(found["shared_compute"]),
            "baselines": plan.total / plan.whole,
            "seconds": round(time.perf_counter() - begin, 1),
        }


def given(args: argparse.Namespace, seed: int) -> Path:
    """The weights of the converged network, trained once."""
    path: Path = args.work / f"{args.dataset}-{args.input_size or 0}-{seed}.safetensors"
    if not path.exists():
        point = {"dataset": args.dataset, "model": MODELS[args.dataset], "seed": seed, "method": "none"}
        point |= {"macs_ratio": 1.0}
        train = SETS[args.dataset]["train"]
        train = train | {"epochs": round(GIVEN * train["epochs"])}
        settings = SETS[args.dataset] | {"input_size": args.input_size, "train": train}
        session = Session(opened(args, settings), content_key(point), point)
        path.write_bytes(to_bytes(baselines.baseline(PruningTrial.open(point, session)).model))
    return path


def opened(args: argparse.Namespace, settings: dict[str, Any]) -> Context:
    """Where trials with some settings run."""
    checked = Settings.model_validate(settings)
    gpus = float(pick_device().type == "cuda")
    return Context("fronts", str(args.work / "store"), str(args.data_root), checked, gpus=gpus)


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells rows apart."""
    names = ("regime", "dataset", "model", "input_size", "seed", "way", "asked_macs_ratio")
    return tuple(str(row[name]) for name in names)


def table(args: argparse.Namespace) -> None:
    """Hypervolumes and accuracies of each regime and dataset."""
    rows = read(args.csv)
    for regime, dataset, size in sorted({(row["regime"], row["dataset"], row["input_size"]) for row in rows}):
        of = [row for row in rows if (row["regime"], row["dataset"], row["input_size"]) == (regime, dataset, size)]
        print(f"\n{regime}, {of[0]['model']} on {dataset}, {size} px\n")
        volumes = {way: volume(of, way) for way in dict.fromkeys(row["way"] for row in of)}
        ratios = sorted({float(row["asked_macs_ratio"]) for row in of}, reverse=True)
        print(
            f"| way | seeds | compute | hypervolume | slimmable - it | {' | '.join(f'{ratio:g}' for ratio in ratios)} |"
        )
        print("|---" * (5 + len(ratios)) + "|")
        for way in sorted(volumes, key=lambda name: -statistics.mean(volumes[name].values() or [0])):
            values = list(volumes[way].values())
            cells = [spread([float(r["test_quality"]) for r in of if is_at(r, way, ratio)]) for ratio in ratios]
            ahead = gain(volumes.get("slimmable", {}), volumes[way]) if way != "slimmable" else ""
            mean = spread(values)
            print(f"| {way} | {len(values)} | {spent(of, way):.1f} | {mean} | {ahead} | {' | '.join(cells)} |")
        if args.png:
            draw(of, ratios, args.png.with_name(f"{args.png.stem}-{regime}-{dataset}{args.png.suffix}"))


def spent(rows: list[dict[str, str]], way: str) -> float:
    """The mean compute of a front, in 10^12 MACs: its trials, and what they share, once."""
    fronts: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["way"] == way:
            parts = fronts.setdefault(row["seed"], {})
            parts |= json.loads(row["shared_compute"]) | {row["asked_macs_ratio"]: int(row["compute"])}
    return statistics.mean(sum(parts.values()) for parts in fronts.values()) / 1e12


def is_at(row: dict[str, str], way: str, ratio: float) -> bool:
    """Whether a row is of this way and budget."""
    return row["way"] == way and float(row["asked_macs_ratio"]) == ratio


def volume(rows: list[dict[str, str]], way: str) -> dict[str, float]:
    """The hypervolume of each seed that has all budgets, as a share of the whole square (MACs ratio, quality)."""
    found = {}
    for seed in dict.fromkeys(row["seed"] for row in rows):
        points = [
            (float(row["test_quality"]), float(row["macs_ratio"]))
            for row in rows
            if row["way"] == way and row["seed"] == seed
        ]
        if len(points) == len(BUDGETS):
            found[seed] = hypervolume(points, (0.0, 1.0), ["max", "min"])
    return found


def draw(rows: list[dict[str, str]], ratios: list[float], path: Path) -> None:
    """Quality over the share of MACs: a line for each way, a bar for the 95 % interval of its mean."""
    from matplotlib.figure import Figure  # only here: the runs do not need it

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for way in dict.fromkeys(row["way"] for row in rows):
        at: list[float] = []
        means: list[float] = []
        halves: list[float] = []
        for ratio in ratios:
            values = [100 * float(row["test_quality"]) for row in rows if is_at(row, way, ratio)]
            mean, half = paired(values)
            if mean is not None:
                at, means, halves = [*at, ratio], [*means, mean], [*halves, half or 0.0]
        axes.errorbar(at, means, yerr=halves, marker="o", markersize=4, capsize=3, label=way)
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.minorticks_off()
    axes.set_xlabel("share of the MACs that is left")
    several = len({row["seed"] for row in rows}) > 1
    axes.set_ylabel("test quality in %" + (", mean and 95 % interval" if several else ", one seed"))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data-root", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--dataset", choices=list(SETS), default="eurosat")
    running.add_argument("--input-size", type=int, help="pixels; leave it out for scenes")
    running.add_argument("--regime", choices=["given", "nothing"], default="given")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    running.add_argument("--ways", nargs="+", choices=WAYS, default=["slimmable", "l1", "channel_nas", "scratch"])
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("csv", type=Path)
    telling.add_argument("--png", type=Path)
    telling.set_defaults(main=table)
    arguments = parser.parse_args()
    arguments.main(arguments)
