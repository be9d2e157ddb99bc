"""All pruning methods side by side: one baseline, one budget of MACs, one budget of fine-tuning.

Every method of the registry, and two pruners of torch_pruning as an outside peer, prune the same trained network to the
same MACs and are fine-tuned by the same recipe, with the same images in the same order. Methods that train the baseline
in their own way (an L1 penalty, attention) do so with the same recipe otherwise. Nothing is tuned for anybody.

    python benchmarks/pruning_methods.py run --data-root DIR --work DIR --seeds 0 1 2
    python benchmarks/pruning_methods.py table DIR/pruning_methods.csv

`run` appends a row to ``<work>/pruning_methods.csv`` for each trial, and goes on where it was stopped; processes with
different seeds may share the folder. No Ray is needed. `table` prints means and standard deviations over the seeds, and
differences seed by seed with their 95 % intervals: trials of one seed share their baseline and the order of the images.
"""

import argparse
import copy
import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from _common import append, cost_device, gain, read, spread
from torch import nn

from rssearch import pruning
from rssearch.config.settings import Settings
from rssearch.config.space import content_key
from rssearch.cost import counting
from rssearch.data import loader
from rssearch.models.resnet_cifar import IndexShortcut
from rssearch.train import TrainContext, evaluate, fit
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, prune
from rssearch.trials.keys import Keys
from rssearch.trials.point import NO_METHOD, PruningPoint
from rssearch.trials.pruning_trial import PruningTrial

COLUMNS = (
    *("dataset", "model", "seed", "method", "asked_macs_ratio", "macs_ratio", "params_ratio", "removed_fraction"),
    *("baseline_test_accuracy", "baseline_val_accuracy", "val_accuracy", "test_accuracy", "seconds", "device"),
)
PEERS = {
    "torch_pruning GroupNorm": (
        torch_pruning.pruner.GroupNormPruner,
        lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    ),
    "torch_pruning GroupTaylor": (
        torch_pruning.pruner.MetaPruner,
        torch_pruning.importance.GroupTaylorImportance,
    ),
}


PAIRS = (  # of which the second table tells the difference
    ("channel_nas", "compound"),
    ("compound", "torch_pruning GroupNorm"),
    ("compound", "l1"),
    ("torch_pruning GroupNorm", "l1"),
    ("torch_pruning GroupNorm", "l2"),
    ("l1", "l2"),
    ("l1", "fpgm"),
    ("l1", "chip"),
    ("l1", "lfp"),
    ("l1", "hrank"),
    ("aml", "cap"),
    ("aml", "remotetrimmer"),
    ("taylor", "lamp"),
    ("taylor", "slimming"),
    ("taylor", "bn_scale"),
)


def settings(args: argparse.Namespace) -> Settings:
    """The same for everybody."""
    return Settings.model_validate(
        {
            "input_size": args.input_size,
            "split": {"train": 0.4, "val": 0.1, "test": 0.5},
            # Shortcut B has convolutions, which torch_pruning can follow.
            "model": {"shortcut": "B"} if args.model.startswith("resnet20") else {},
            "train": {"epochs": args.epochs, "lr": 0.1},
            "finetune": {"epochs": args.finetune_epochs, "lr": 0.01, "recalibrate_batches": 10},
        }
    )


def run(args: argparse.Namespace) -> None:
    """Every method at every ratio, seed by seed."""
    args.work.mkdir(parents=True, exist_ok=True)
    path = args.work / "pruning_methods.csv"
    context = Context(
        "pruning_methods",
        str(args.work / "store"),
        str(args.data_root),
        settings(args),
        gpus=float(torch.cuda.is_available()),
    )
    names = args.methods or [*pruning.list_methods(), *PEERS]
    for seed, name, ratio in itertools.product(args.seeds, names, args.ratios):
        point = {"dataset": args.dataset, "model": args.model, "seed": seed, "macs_ratio": ratio}
        if any(
            row["method"] == name and row["seed"] == str(seed) and float(row["asked_macs_ratio"]) == ratio
            for row in read(path)
        ):
            continue
        begin = time.perf_counter()
        if name in PEERS:
            row = peer(name, point, context)
        else:
            point |= {"method": name}
            session = Session(context, content_key(point), point)
            row = prune.run(point, session) | prune.measure(point, session)
            row["baseline_test_accuracy"] = tested_baseline(point, session)
            session.drop_checkpoint()
        row |= point | {"method": name, "asked_macs_ratio": ratio, "macs_ratio": row["macs_ratio"]}
        row |= {"seconds": round(time.perf_counter() - begin, 1), "device": cost_device()}
        append(path, row, COLUMNS)
        print(
            f"seed {seed} {name} {ratio}: {row['macs_ratio']:.4f} {row['test_accuracy']:.4f} {row['seconds']} s",
            flush=True,
        )


_tested: dict[str, float] = {}


def tested_baseline(point: dict[str, Any], session: Session) -> float:
    """The accuracy of a point's baseline on the test split."""
    key = content_key(Keys(PruningPoint(point, session.settings), session.data_root).baseline_inputs)
    if key not in _tested:
        model, _, _ = baselines.baseline(PruningTrial.open(point, session))
        test = PruningTrial.open(point, session).images.split("test")
        _tested[key] = evaluate(model.to(session.device), test, batch_size=512, device=session.device)["accuracy"]
    return _tested[key]


def peer(name: str, point: dict[str, Any], context: Context) -> dict[str, Any]:
    """A pruner of torch_pruning on the plain baseline: its rate by bisection, then the same fine-tuning."""
    session = Session(context, content_key(point | {"peer": name}), point)
    point = point | {"method": NO_METHOD}
    images, local = PruningTrial.open(point, session).images, session.settings
    dense, base, _ = baselines.baseline(PruningTrial.open(point, session))
    dense.to(session.device).eval()
    whole = counting.profile(dense, images.input_shape)
    score_batches = loader.batches(
        images.split("train"), local.pruning.score_batch_size, device=session.device, train=True, seed=point["seed"]
    )
    few = list(itertools.islice(score_batches, local.pruning.score_batches))
    low, high = 0.0, 1.0
    best: tuple[float, nn.Module] | None = None
    for _ in range(12):
        rate = (low + high) / 2
        candidate = cut_by_peer(name, dense, rate, few)
        ratio = counting.profile(candidate, images.input_shape).macs / whole.macs
        if best is None or abs(ratio - point["macs_ratio"]) < abs(best[0] - point["macs_ratio"]):
            best = ratio, candidate
        low, high = (rate, high) if ratio > point["macs_ratio"] else (low, rate)
    assert best is not None
    _, model = best
    profile = counting.profile(model, images.input_shape)
    fit(
        model, images.split("train"), images.split("val"), local.finetune, augment=local.augment,
        context=TrainContext(session.device, point["seed"]),
    )  # fmt: skip
    batch = local.finetune.batch_size
    val, test = (evaluate(model, images.split(s), batch_size=batch, device=session.device) for s in ("val", "test"))
    widths = [sum(m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)) for net in (model, dense)]
    return {
        "macs_ratio": profile.macs / whole.macs,
        "params_ratio": profile.params / whole.params,
        "removed_fraction": 1 - widths[0] / widths[1],
        "baseline_val_accuracy": base["val_accuracy"],
        "baseline_test_accuracy": tested_baseline(point, session),
        "val_accuracy": val["accuracy"],
        "test_accuracy": test["accuracy"],
    }


def cut_by_peer(name: str, dense: nn.Module, rate: float, batches: list[Any]) -> nn.Module:
    """A copy of the network, pruned at a rate by torch_pruning in its documented way."""
    model = copy.deepcopy(dense)
    for block in list(model.modules()):
        shortcut = getattr(block, "shortcut", None)
        if not isinstance(shortcut, IndexShortcut):
            continue
        if shortcut.in_channels != shortcut.out_channels:
            raise ValueError(
                "torch_pruning cannot follow a shortcut that maps channels: build the network with shortcut B"
            )
        block.shortcut = nn.Identity()  # the same function, where the widths agree
    kind, importance = PEERS[name]
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    # Its default dictionaries are shared between pruners, so each gets its own.
    pruner = kind(
        model, batches[0][0][:1], importance=importance(), pruning_ratio=rate, ignored_layers=[last],
        in_channel_groups={}, out_channel_groups={}, num_heads={}, channel_groups={},
    )  # fmt: skip
    if "Taylor" in name:
        model.zero_grad()
        for x, y in batches:
            torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
    pruner.step()
    model.zero_grad(set_to_none=True)
    return model


def table(args: argparse.Namespace) -> None:
    """Mean and standard deviation over the seeds, the best at the smallest budget first; a picture if asked for.

    Below it differences of pairs of methods, seed by seed.
    """
    rows = read(args.csv)
    ratios = sorted({float(row["asked_macs_ratio"]) for row in rows}, reverse=True)
    by_seed: dict[str, dict[float, dict[str, float]]] = {}
    for row in rows:
        at = by_seed.setdefault(row["method"], {ratio: {} for ratio in ratios})
        at[float(row["asked_macs_ratio"])][row["seed"]] = float(row["test_accuracy"])
    accuracies = {name: {ratio: list(values.values()) for ratio, values in at.items()} for name, at in by_seed.items()}
    names = sorted(accuracies, key=lambda name: -statistics.mean(accuracies[name][ratios[-1]]))
    titles = [
        title
        for ratio in ratios
        for title in (f"test accuracy, {ratio:g} of the MACs", "above random", "really left", "removed")
    ]
    print(f"| method | {' | '.join(titles)} | baseline |")
    print("|---" * (len(titles) + 2) + "|")
    for name in names:
        cells = []
        for ratio in ratios:
            found = [row for row in rows if row["method"] == name and float(row["asked_macs_ratio"]) == ratio]
            cells += [spread(accuracies[name][ratio])]
            cells += ["" if name == "random" else gain(by_seed[name][ratio], by_seed["random"][ratio])]
            cells += [f"{statistics.mean(float(row['macs_ratio']) for row in found):.3f}"]
            cells += [f"{statistics.mean(float(row['removed_fraction']) for row in found):.0%}"]
        baselines_ = {row["seed"]: float(row["baseline_test_accuracy"]) for row in rows if row["method"] == name}
        print(f"| {name} | {' | '.join(cells)} | {spread(list(baselines_.values()))} |")
    print(f"\n| difference | {' | '.join(f'{ratio:g} of the MACs' for ratio in ratios)} |")
    print("|---" * (len(ratios) + 1) + "|")
    for one, other in PAIRS:
        cells = [gain(by_seed[one][ratio], by_seed[other][ratio]) for ratio in ratios]
        print(f"| {one} - {other} | {' | '.join(cells)} |")
    if args.png:
        draw(names, ratios, accuracies, args.png)


def draw(names: list[str], ratios: list[float], accuracies: dict[str, dict[float, list[float]]], path: Path) -> None:
    """A dot for each mean, a line for each standard deviation, a small dot for each seed."""
    from matplotlib.figure import Figure  # only here: the runs do not need it

    figure = Figure(figsize=(7, 0.32 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    for ratio, colour in zip(ratios, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        for place, name in enumerate(reversed(names)):
            values = [100 * value for value in accuracies[name][ratio]]
            mean, deviation = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0
            label = f"{ratio:g} of the MACs" if place == 0 else None
            axes.errorbar(mean, place, xerr=deviation, fmt="o", color=colour, capsize=3, label=label)
            axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.4, markersize=4)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("test accuracy in %, mean and standard deviation over the seeds")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="center left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data-root", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--dataset", default="eurosat")
    running.add_argument("--model", default="resnet20")
    running.add_argument("--input-size", type=int, default=32)
    running.add_argument("--epochs", type=int, default=8)
    running.add_argument("--finetune-epochs", type=int, default=2)
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.25])
    running.add_argument("--methods", nargs="+")
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("csv", type=Path)
    telling.add_argument("--png", type=Path)
    telling.set_defaults(main=table)
    arguments = parser.parse_args()
    arguments.main(arguments)
