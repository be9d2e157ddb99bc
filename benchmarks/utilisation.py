"""How much of the slots' time is training: a study of 40 real trials on two slots.

    python benchmarks/utilisation.py

Five methods at eight MACs ratios prune a ResNet-20 on drawn scenes of 32 pixels, and fine-tune it, each trial on one
CPU (or, with --gpus 0.5, on half a GPU). Training is what `fit` takes, epochs with their validation: neither images
that are read, nor scores, cuts, final measurements, reports, MLflow, processes that start or slots that wait. Rows:

trials    from the start of the first fine-tuning trial to the end of the last one: the part that grows with a study
search    from the start of the first job, so with the training of the one baseline, beside which the other slot waits
call      until the call returns, so with the start of Ray, the data, the latency of the front, figures and page

`utilisation` is training seconds / (wall seconds x slots). The aim is 0.95 in `trials`. The script takes about ten
minutes on two CPUs; --trials and --epochs make it shorter, and worse. Rows go to benchmarks/utilisation-<device>.csv.
"""

import argparse
import io
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from _common import load, write_rows
from rich.console import Console

# Before Ray: it sets the environment of its processes.
import rssearch.backend  # noqa: F401  # isort: skip
import ray

from rssearch.backend import local_ray
from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.storage.journal import Journal
from rssearch.storage.records import TrialRecord
from rssearch.study import run

SLOTS = 2
METHODS = ["l1", "l2", "fpgm", "lamp", "random"]
RATIOS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def config(trials: int, epochs: int, gpus: float, folder: Path) -> StudyConfig:
    """The study; fewer trials than the whole grid are drawn from it."""
    search = {"sampler": "grid"} if trials == len(METHODS) * len(RATIOS) else {"sampler": "random", "trials": trials}
    return parse_study(
        {
            "study": "utilisation",
            "trial": "trials.prune:run",
            "space": {
                "dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": METHODS, "macs_ratio": RATIOS,
            },
            "settings": {"input_size": 32, "train": {"epochs": 2}, "finetune": {"epochs": epochs}},
            "search": search,
            "resources": {"gpus": gpus, "max_concurrent": SLOTS},
            "storage": str(folder),
        }
    )  # fmt: skip


def row(part: str, records: list[TrialRecord], wall: float, busy: str) -> dict[str, Any]:
    """One line of the CSV."""
    training = sum(r.metrics["train_seconds"] for r in records)
    return {
        "part": part, "trials": sum(r.kind == "trial" for r in records), "slots": SLOTS, "wall_seconds": wall,
        "training_seconds": training, "utilisation": training / (wall * SLOTS), "load_average": busy,
    }  # fmt: skip


@local_ray.closed()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=len(METHODS) * len(RATIOS))
    parser.add_argument("--epochs", type=int, default=5, help="of each fine-tuning")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each trial")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        busy, begin = load(), time.time()
        ray.init(
            address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
        )
        asked = config(options.trials, options.epochs, options.gpus, Path(folder))
        status = run.search(asked, console=Console(file=io.StringIO(), width=100))
        returned = time.time()
        ray.shutdown()
        records = list(Journal(Path(folder) / "utilisation" / "trials.jsonl").records.values())
    failed = [r for r in records if r.status != "finished"]
    if status or failed:
        raise RuntimeError(f"status {status}; {len(failed)} of {len(records)} jobs did not finish")
    trials = [r for r in records if r.kind == "trial"]
    ends = max(r.ended for r in trials)
    rows = [
        row("trials", trials, ends - min(r.started for r in trials), busy),
        row("search", records, ends - min(r.started for r in records), busy),
        row("call", records, returned - begin, busy),
    ]
    for line in rows:
        shares = f"{line['training_seconds']:7.1f} s of training in {line['wall_seconds']:6.1f} s x {SLOTS} slots"
        print(f"{line['part']:7} {shares}: {line['utilisation']:.3f}")
    shown = [{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()} for line in rows]
    print(write_rows("utilisation", shown, ("torch", "ray", "mlflow"), options.out))


if __name__ == "__main__":
    main()
