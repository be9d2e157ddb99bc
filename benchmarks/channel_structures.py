"""What are the widths worth that a channel search finds? Structures of equal MACs, trained equally.

A structure is the number of channels of each layer. Those of the search are compared with uniform ones (which L1, LFP
and all other uniform methods share), with those of one global ranking of BN scales, and with random ones, which draw
the share of each group from U(0.05, 1) and scale all shares to the budget. Every structure is trained in two ways:

* ``scratch``: fresh weights, the recipe of the baseline.
* ``inherited``: in each layer the channels of the highest L1 norm of one baseline, the recipe of fine-tuning.

    python benchmarks/channel_structures.py run --data-root DIR --work DIR --seeds 0 1 2
    python benchmarks/channel_structures.py table DIR/channel_structures.csv
    python benchmarks/channel_structures.py picture --data-root DIR --work DIR channel_search.png

`run` shares the baselines, scores and searches in ``<work>/store`` with pruning_methods.py, and goes on where it was
stopped. No Ray is needed.
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
from pruning_methods import settings

from rssearch import pruning
from rssearch.config.settings import Recipe
from rssearch.config.space import content_key
from rssearch.pruning import METHODS, ChannelGraph
from rssearch.pruning.allocate import allocate
from rssearch.pruning.picture import draw
from rssearch.pruning.surgery import cut
from rssearch.train import TrainContext, evaluate, fit
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, searches
from rssearch.trials.point import CHANNEL_NAS
from rssearch.trials.pruning_trial import PruningTrial

COLUMNS = (
    *("dataset", "model", "seed", "structure", "weights", "asked_macs_ratio", "macs_ratio", "params_ratio"),
    *("removed_fraction", "val_accuracy", "test_accuracy", "widths", "seconds", "device"),
)
RANKED = {"uniform": "l1", "global BN scales": "bn_scale"}
STRUCTURES = ("channel search", *RANKED, "random")
WEIGHTS = ("scratch", "inherited")
PAIRS = (("channel search", "random"), ("channel search", "uniform"), ("global BN scales", "uniform"))


def run(args: argparse.Namespace) -> None:
    """Every structure at every ratio in both ways, seed by seed."""
    path, root = args.work / "channel_structures.csv", str(args.data_root)
    context = Context(
        "channel_structures", str(args.work / "store"), root, settings(args), float(torch.cuda.is_available())
    )
    for seed, ratio, name, weights in itertools.product(args.seeds, args.ratios, args.structures, args.weights):
        known = {(r["seed"], float(r["asked_macs_ratio"]), r["structure"], r["weights"]) for r in read(path)}
        if (str(seed), ratio, name, weights) in known:
            continue
        point = {"dataset": args.dataset, "model": args.model, "seed": seed, "macs_ratio": ratio, "method": "l1"}
        session = Session(context, content_key(point), point)
        begin = time.perf_counter()
        row = trained(point, session, name, weights)
        row |= {"dataset": args.dataset, "model": args.model, "seed": seed, "structure": name, "weights": weights}
        row |= {"asked_macs_ratio": ratio, "seconds": round(time.perf_counter() - begin, 1), "device": cost_device()}
        append(path, row, COLUMNS)
        print(f"seed {seed} {ratio} {name}, {weights}: {row['test_accuracy']:.4f} {row['seconds']} s", flush=True)


def trained(point: dict[str, Any], session: Session, name: str, weights: str) -> dict[str, Any]:
    """One structure, trained and measured."""
    local, images = session.settings, PruningTrial.open(point, session).images
    dense, _, _ = baselines.baseline(PruningTrial.open(point, session))
    graph = pruning.trace(dense.eval(), torch.zeros(1, *images.input_shape))
    widths = structure(point, session, graph, name)
    # Fresh weights are slices of a fresh network; batch normalisation makes their scale no matter.
    source = dense if weights == "inherited" else PruningTrial.open(point, session).build_model().eval()
    kept = strongest(baselines.scores(PruningTrial.open(point, session)), widths)
    model, _ = cut(source, graph, kept)
    recipe: Recipe = local.finetune if weights == "inherited" else local.train
    train, *parts = (images.split(split) for split in ("train", "val", "test"))
    fit(model, train, parts[0], recipe, augment=local.augment, context=TrainContext(session.device, point["seed"]))
    val, test = (evaluate(model, part, batch_size=512, device=session.device)["accuracy"] for part in parts)
    report = pruning.cost_report(graph, kept)
    return report | {"val_accuracy": val, "test_accuracy": test, "widths": " ".join(map(str, widths.values()))}


def structure(point: dict[str, Any], session: Session, graph: ChannelGraph, name: str) -> dict[str, int]:
    """How many channels each group keeps."""
    if name == "channel search":
        kept = searches.derived(PruningTrial.open(point | {"method": CHANNEL_NAS}, session)).kept
    elif name == "random":
        kept = random_structure(graph, point["macs_ratio"], point["seed"])
    else:
        method = RANKED[name]
        scores = baselines.scores(PruningTrial.open(point | {"method": method}, session))
        kept = allocate(graph, scores, allocation=METHODS[method].allocation, macs_ratio=point["macs_ratio"])
    return {group: len(channels) for group, channels in kept.items()}


def random_structure(graph: ChannelGraph, macs_ratio: float, seed: int) -> dict[str, tuple[int, ...]]:
    """Shares of U(0.05, 1) in each group, scaled to the budget.

    A ranking does both: score c of n channels (in any order) with -rank / n / share, so that a threshold t keeps about
    the share * t of each group.
    """
    rng = np.random.default_rng(seed)
    scores = {}
    for name, group in graph.groups.items():
        order = torch.from_numpy(rng.permutation(group.width))
        scores[name] = -(order + 1) / group.width / rng.uniform(0.05, 1)
    return allocate(graph, scores, allocation="global", macs_ratio=macs_ratio)


def strongest(scores: dict[str, torch.Tensor], widths: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """The channels of the highest scores, of equal ones the first."""
    orders = {name: torch.sort(-scores[name], stable=True).indices[:width] for name, width in widths.items()}
    return {name: tuple(sorted(order.tolist())) for name, order in orders.items()}


def picture(args: argparse.Namespace) -> None:
    """The scores of the first seed's search, and what is kept of each layer."""
    context = Context("channel_structures", str(args.work / "store"), str(args.data_root), settings(args))
    point = {"dataset": args.dataset, "model": args.model, "seed": args.seeds[0], "macs_ratio": args.ratios[0]}
    point |= {"method": CHANNEL_NAS}
    session = Session(context, content_key(point), point)
    _, gates, _ = searches.searched(PruningTrial.open(point, session))
    draw(gates.by_group(), searches.derived(PruningTrial.open(point, session)).kept).savefig(args.png, dpi=150)


def table(args: argparse.Namespace) -> None:
    """Mean and standard deviation over the seeds; and differences of pairs of structures, seed by seed."""
    rows = read(args.csv)
    ratios = sorted({float(row["asked_macs_ratio"]) for row in rows}, reverse=True)
    cells = list(itertools.product(ratios, WEIGHTS))
    print(
        "| structure | " + " | ".join(f"{ratio:g} of the MACs, {weights}" for ratio, weights in cells) + " | removed |"
    )
    print("|---" * (len(cells) + 2) + "|")
    for name in STRUCTURES:
        mine = [row for row in rows if row["structure"] == name]
        texts = [
            spread([float(r["test_accuracy"]) for r in mine if (float(r["asked_macs_ratio"]), r["weights"]) == cell])
            for cell in cells
        ]
        removed = [
            statistics.mean(float(row["removed_fraction"]) for row in mine if float(row["asked_macs_ratio"]) == ratio)
            for ratio in ratios
            if mine
        ]
        print(f"| {name} | {' | '.join(texts)} | {', '.join(f'{share:.0%}' for share in removed)} |")

    def of(name: str, ratio: float, weights: str) -> dict[str, float]:
        wanted = (name, ratio, weights)
        fits = [r for r in rows if (r["structure"], float(r["asked_macs_ratio"]), r["weights"]) == wanted]
        return {row["seed"]: float(row["test_accuracy"]) for row in fits}

    print("\n| difference | " + " | ".join(f"{ratio:g} of the MACs, {weights}" for ratio, weights in cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    for one, other in PAIRS:
        print(f"| {one} - {other} | {' | '.join(gain(of(one, *cell), of(other, *cell)) for cell in cells)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data-root", type=Path, required=True)
    common.add_argument("--work", type=Path, required=True)
    common.add_argument("--dataset", default="eurosat")
    common.add_argument("--model", default="resnet20")
    common.add_argument("--input-size", type=int, default=32)
    common.add_argument("--epochs", type=int, default=8)
    common.add_argument("--finetune-epochs", type=int, default=2)
    common.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    common.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.25])
    running = commands.add_parser("run", parents=[common])
    running.add_argument("--structures", nargs="+", choices=STRUCTURES, default=list(STRUCTURES))
    running.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    running.set_defaults(main=run)
    telling = commands.add_parser("table")
    telling.add_argument("csv", type=Path)
    telling.set_defaults(main=table)
    drawing = commands.add_parser("picture", parents=[common])
    drawing.add_argument("png", type=Path)
    drawing.set_defaults(main=picture)
    arguments = parser.parse_args()
    arguments.main(arguments)
