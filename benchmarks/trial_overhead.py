"""What the search costs per trial, beside plain Ray Tune: 200 trials that compute nothing.

    python benchmarks/trial_overhead.py

plain      the same function under ray.tune.Tuner: actors reused, random search of the same space, nothing recorded
random     rssearch.study.search: proposals by Optuna; a journal, MLflow (sqlite), trials.csv and the front's report
tpe, nsga2 the same with samplers that learn

All run on one Ray instance, two trials at once. Repeats alternate, and so does who goes first; a ratio is to the plain
run of the same repeat. `seconds` go from the start of the first trial on its actor to the end of the last trial, which
leaves the start of the first actor out for all. `total_seconds` go on until the call returns: with us this adds
the rest of what MLflow has to write, the figures and the page. Rows go to benchmarks/trial_overhead-<device>.csv.
"""

import argparse
import io
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import toy
from _common import load, write_rows
from rich.console import Console

# Before Ray: it sets the environment that both variants run in (no loggers of Tune, no usage statistics).
import rssearch.backend  # noqa: F401  # isort: skip
import ray
from ray import tune

from rssearch.backend import local_ray
from rssearch.config.loading import parse_study
from rssearch.storage.journal import Journal
from rssearch.study import run as study

CONCURRENT = 2
METHODS = ["a", "bb", "ccc", "dddd"]
VARIANTS = ("plain", "random", "tpe", "nsga2")


class Clock(tune.Callback):
    """When the first trial started and the last one ended."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def on_trial_start(self, *_: object, **__: object) -> None:
        """A trial is on its actor."""
        self.first = self.first or time.time()

    def on_trial_complete(self, *_: object, **__: object) -> None:
        """A trial has ended."""
        self.last = time.time()


def plain(trials: int, folder: Path) -> tuple[float, float, float, int]:
    """Times of the first trial's start, the last one's end and the return, and the workers, with Ray Tune alone."""
    clock = Clock()
    results = tune.Tuner(
        tune.with_resources(toy.noop, {"cpu": 1}),
        param_space={
            "rate": tune.uniform(0.05, 0.95),
            "width": tune.randint(1, 65),
            "method": tune.choice(METHODS),
        },
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True, max_concurrent_trials=CONCURRENT),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), verbose=0, callbacks=[clock]),
    ).fit()
    returned = time.time()
    if len(results) != trials or results.num_errors:
        raise RuntimeError(f"{len(results)} trials ran, {results.num_errors} failed")
    found = [results[i].metrics for i in range(trials)]
    workers = {metrics["worker"] for metrics in found if metrics}
    return clock.first, clock.last, returned, len(workers)


def ours(sampler: str, trials: int, folder: Path) -> tuple[float, float, float, int]:
    """The same for a recorded study."""
    config = parse_study(
        {
            "study": "overhead",
            "trial": "toy:noop",
            "space": {"rate": {"low": 0.05, "high": 0.95}, "width": {"low": 1, "high": 64}, "method": METHODS},
            "search": {"sampler": sampler, "trials": trials},
            "resources": {"max_concurrent": CONCURRENT},
            "storage": str(folder),
        }
    )
    status = study.search(config, console=Console(file=io.StringIO(), width=100))
    returned = time.time()
    records = Journal(folder / "overhead" / "trials.jsonl").records.values()
    kept = runs(f"sqlite:///{folder}/mlflow.db", trials + 1)
    if status or len(records) != trials or kept != trials + 1:
        raise RuntimeError(f"status {status}: {len(records)} records and {kept} finished runs, the summary's included")
    workers = {r.metrics["worker"] for r in records}
    return min(r.started for r in records), max(r.ended for r in records), returned, len(workers)


def runs(uri: str, most: int) -> int:
    """How many finished runs MLflow holds."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("overhead")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=most + 1)
    return len(found)


def wait_for_slots() -> None:
    """Until the actors of the run before have ended.

    Even so Tune may use one slot of two: a trial whose actor still starts gets the first actor that is free, and its
    own is ended. Trials that take less than the start of an actor then run one after the other (column `workers`).
    """
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < CONCURRENT:  # type: ignore[no-untyped-call]
        if time.monotonic() > deadline:
            raise RuntimeError("the CPUs of the run before have not become free")
        time.sleep(0.1)


def measure(variant: str, trials: int, repeat: int) -> dict[str, Any]:
    """One run of a variant, as a row without its ratios."""
    wait_for_slots()
    with tempfile.TemporaryDirectory() as folder:
        busy, begin = load(), time.time()
        run = plain(trials, Path(folder)) if variant == "plain" else ours(variant, trials, Path(folder))
    first, last, returned, workers = run
    return {
        "variant": variant, "repeat": repeat, "trials": trials, "concurrent": CONCURRENT, "seconds": last - first,
        "seconds_per_trial": (last - first) / trials, "total_seconds": returned - first,
        "wall_seconds": returned - begin, "workers": workers, "load_average": busy,
    }  # fmt: skip


@local_ray.closed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS[1:], default=VARIANTS[1:])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    ray.init(
        address="local", num_cpus=CONCURRENT, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    for variant in ("plain", options.variants[0]):
        measure(variant, 4, 0)  # imports, and the first processes of Ray
    rows = []
    variants = ("plain", *options.variants)
    for repeat in range(options.repeats):
        lines = {v: measure(v, options.trials, repeat) for v in variants[:: 1 if repeat % 2 == 0 else -1]}
        for variant in variants:
            line, base = lines[variant], lines["plain"]
            line |= {name: line[f"{part}seconds"] / base[f"{part}seconds"]
                     for name, part in (("ratio", ""), ("total_ratio", "total_"))}  # fmt: skip
            print(
                f"{repeat}  {variant:8} {1000 * line['seconds_per_trial']:7.1f} ms a trial, "
                f"{line['ratio']:5.2f} of plain, {line['workers']} workers; "
                f"until it returns {line['total_seconds']:6.1f} s, {line['total_ratio']:5.2f} of plain",
                flush=True,
            )
            rows.append({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()})
    ray.shutdown()
    for variant in options.variants:
        ratios = [float(line["ratio"]) for line in rows if line["variant"] == variant]
        print(f"{variant}: median ratio {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    print(write_rows("trial_overhead", rows, ("ray", "optuna", "mlflow"), options.out))


if __name__ == "__main__":
    main()
