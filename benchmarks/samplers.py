"""Which sampler has the best front after 60 trials, and what its proposals cost.

    python benchmarks/samplers.py

Studies in virtual time on drawn accuracies (`rssearch.trials.curves`) over accuracy and MACs, two trials at a time: the
real path of proposals, without Ray. *three* has a rate, a method and a learning rate; *five* has two more dimensions
that change nothing but the noise, as a real space has. The hypervolume is relative: accuracy above chance, MACs in
units of the unpruned network's. `tpe together` is `tpe` with a model of all dimensions together, which is no option of
a study; `gp` takes minutes a study.
A row is a study; differences are to `nsga2`, seed by seed, with their 95 % intervals (Student's t). Rows go to
benchmarks/samplers-<device>.csv.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from _common import gain, spread, write_rows
from early_stopping import relative

from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.sampling import optuna_study
from rssearch.study.simulation import Simulator, simulate
from rssearch.trials import curves

THREE = {
    "rate": {"low": 0.0, "high": 0.9},
    "method": ["a", "b", "c", "d"],
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
}
SPACES = {"three": THREE, "five": THREE | {"batch": [32, 64, 128], "decay": {"low": 1e-5, "high": 1e-3, "log": True}}}
TOGETHER = "tpe together"
SAMPLERS = ("nsga2", "random", "qmc", "nsga3", "tpe", TOGETHER, "gp")
SLOTS, EPOCHS = 2, 9


def study(folder: str, space: str, sampler: str, seed: int, trials: int) -> StudyConfig:
    return parse_study(
        {
            "study": "s",
            "trial": "trials.curves:synthetic",
            "space": SPACES[space],
            "settings": {"train": {"epochs": EPOCHS}},
            "search": {"sampler": sampler.split(maxsplit=1)[0], "trials": trials, "seed": seed},
            "storage": folder,
        }
    )


def measure(space: str, sampler: str, seed: int, trials: int) -> dict[str, Any]:
    """One study, as a row."""
    begin = time.process_time()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(optuna_study, "_is_multivariate", return_value=sampler == TOGETHER),
    ):
        journal = simulate(study(folder, space, sampler, seed, trials), Simulator(SLOTS))
        found = relative(list(journal.records.values()), curves.MACS)
    spent = time.process_time() - begin
    return {
        "space": space, "sampler": sampler, "seed": seed, "trials": trials, "hypervolume": round(found, 5),
        "cpu_ms_per_trial": round(1000 * spent / trials, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS[:-1])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    rows = []
    for space in SPACES:
        print(f"| {space} | hypervolume | - nsga2 | CPU ms a trial |\n|---|---|---|---|")
        found: dict[str, dict[str, float]] = {}
        for sampler in options.samplers:
            own = [measure(space, sampler, seed, options.trials) for seed in range(options.seeds)]
            rows += own
            found[sampler] = {str(row["seed"]): row["hypervolume"] for row in own}
            ahead = "" if sampler == "nsga2" else gain(found[sampler], found.get("nsga2", {}))
            cost = sorted(row["cpu_ms_per_trial"] for row in own)[len(own) // 2]
            print(f"| {sampler} | {spread(list(found[sampler].values()))} | {ahead} | {cost:.0f} |", flush=True)
    print(write_rows("samplers", rows, ("optuna",), options.out))


if __name__ == "__main__":
    main()
