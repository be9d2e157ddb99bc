"""Compute that the shared baseline and scores save: a grid of 5 methods x 4 rates, with the store and without it.

    python benchmarks/cache.py

With the store a grid trains its baseline once and scores it once a method; without, each of the 20 trials would do both
for itself. The parts are measured once, alone on one CPU (or GPU): the training of the baseline, the scoring by each
method, and the 20 trials themselves, which run as a study on that store. Their sums are the compute with the store and
without it. That such a sum is right is checked: some trials are run for themselves, each with a storage of its own, and
their time is set beside the sum of their parts, their accuracy beside that of the same trial in the study. Reading the
images is left out everywhere. Rows go to benchmarks/cache-<device>.csv.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _common import load, write_rows
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.config.space import grid
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.study import run
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, prune
from rssearch.trials.keys import BASELINES, SCORES
from rssearch.trials.pruning_trial import PruningTrial

METHODS = ["random", "l1", "bn_scale", "taylor", "lfp"]
RATES = [0.2, 0.4, 0.6, 0.8]
SETTINGS = {  # four times as many epochs for the baseline as for the fine-tuning, as in the studies of search_spaces/
    "input_size": 32,
    "split": {"train": 0.4, "val": 0.1, "test": 0.5},
    "train": {"epochs": 4, "lr": 0.1, "warmup_epochs": 1},
    "finetune": {"epochs": 1, "lr": 0.02, "recalibrate_batches": 4},
}


def make(storage: Path) -> StudyConfig:
    return parse_study(
        {
            "study": "cache",
            "trial": "trials.prune:run",
            "space": {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": METHODS, "rate": RATES},
            "settings": SETTINGS,
            "resources": {"cpus": 1, "gpus": int(torch.cuda.is_available()), "max_concurrent": 1},
            "storage": str(storage),
        }
    )


def session(config: StudyConfig, storage: Path, point: dict[str, Any], shared: dict[str, Any]) -> Session:
    """What a worker gets for a trial, with a storage of its choice."""
    context = Context(
        "cache", str(storage), config.data_root, config.settings, gpus=config.resources.share, shared=shared
    )
    return Session(context, f"{point['method']}-{point['rate']}", point)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def row(part: str, seconds: float, point: dict[str, Any] | None = None, **more: object) -> dict[str, Any]:
    where = {name: (point or {}).get(name, "") for name in ("method", "rate")}
    empty = dict.fromkeys(("val_accuracy", "predicted_seconds", "error_percent", "study_val_accuracy"), "")
    return {"part": part, **where, "seconds": round(seconds, 3), **empty, **more, "load_average": load()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checked", type=int, default=3, help="how many trials are also run for themselves")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), options.checked)
    print(write_rows("cache", rows, ("torch", "ray"), options.out))


def measure(folder: Path, checked: int) -> list[dict[str, Any]]:
    """Every part, the sums, and the check."""
    storage = folder / "shared"
    config = make(storage)
    points = list(grid(config.space))
    shared = prune.share(points, config.settings, Path(config.data_root), lambda *_: None)
    warm_up(config, folder / "warm", points[0], shared)

    here = session(config, storage, points[0], shared)
    train = timed(lambda: baselines.baseline(PruningTrial.open(points[0], here)))
    opened = {method: PruningTrial.open(points[0] | {"method": method}, here) for method in METHODS}
    score = {method: timed(partial(baselines.scores, trial)) for method, trial in opened.items()}
    rows = [row("baseline", train), *(row("score", seconds, {"method": m}) for m, seconds in score.items())]
    print(f"baseline {train:.1f} s; scores " + ", ".join(f"{m} {seconds:.2f} s" for m, seconds in score.items()))

    wall = timed(lambda: run_study(config))
    store, records = Store(storage), list(Journal(storage / "cache" / "trials.jsonl").records.values())
    made = {kind: len(store.keys(kind)) for kind in (BASELINES, SCORES)}
    if made != {BASELINES: 1, SCORES: len(METHODS)} or len(records) != len(points):
        raise RuntimeError(f"the study did not use the store as it should: {made}, {len(records)} records")
    trial = {(r.point["method"], r.point["rate"]): r.metrics for r in records}
    for (method, rate), metrics in trial.items():
        point = {"method": method, "rate": rate}
        rows.append(row("trial", metrics["trial_seconds"], point, val_accuracy=metrics["val_accuracy"]))

    for index in range(checked):
        point = points[(2 * index + 1) * len(points) // (2 * checked)]  # spread over the grid
        rows.append(check(config, folder / f"own-{index}", point, shared, train, score, trial))

    trials = sum(metrics["trial_seconds"] for metrics in trial.values())
    cached = train + sum(score.values()) + trials
    alone = len(points) * train + len(RATES) * sum(score.values()) + trials
    print(f"the study with its start and report took {wall:.0f} s, of which its {len(points)} trials {trials:.0f} s")
    print(f"compute with the store {cached:.0f} s, without {alone:.0f} s: {alone / cached:.2f} times as much")
    rows += [row("with_store", cached), row("without_store", alone)]
    return [*rows, row("ratio", alone / cached)]


def warm_up(config: StudyConfig, storage: Path, point: dict[str, Any], shared: dict[str, Any]) -> None:
    """Let torch start its threads and kernels outside of what is measured."""
    quick = {"train": config.settings.train.model_copy(update={"epochs": 1})}
    local = config.model_copy(update={"settings": config.settings.model_copy(update=quick)})
    baselines.baseline(PruningTrial.open(point, session(local, storage, point, shared)))


def run_study(config: StudyConfig) -> None:
    text = io.StringIO()
    if run.search(config, console=Console(file=text, width=100)) != 0:
        raise RuntimeError(text.getvalue())


def check(
    config: StudyConfig,
    storage: Path,
    point: dict[str, Any],
    shared: dict[str, Any],
    train: float,
    score: dict[str, float],
    trial: dict[tuple[str, float], dict[str, Any]],
) -> dict[str, Any]:
    """A trial with nothing in its store, beside the sum of its parts."""
    own = session(config, storage, point, shared)
    found: dict[str, Any] = {}
    seconds = timed(lambda: found.update(prune.run(point, own)))
    inside = trial[point["method"], point["rate"]]
    predicted = train + score[point["method"]] + inside["trial_seconds"]
    error = 100 * (predicted / seconds - 1)
    print(
        f"{point['method']} at {point['rate']} for itself: {seconds:.1f} s, its parts {predicted:.1f} s "
        f"({error:+.1f} %); val_accuracy {found['val_accuracy']:.4f}, in the study {inside['val_accuracy']:.4f}"
    )
    return row(
        "independent", seconds, point, predicted_seconds=round(predicted, 3), error_percent=round(error, 1),
        val_accuracy=found["val_accuracy"], study_val_accuracy=inside["val_accuracy"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
