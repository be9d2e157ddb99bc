"""What thousands of trials cost the driver: memory, time for each trial, the journal, MLflow's rows.

    python benchmarks/scale.py simulated     # 5,000 trials on 50 nodes with 4 slots each, in virtual time
    python benchmarks/scale.py samplers      # what a proposal costs, by sampler and history
    python benchmarks/scale.py mlflow        # how many trials a second MLflow's writer takes
    python benchmarks/scale.py journal       # what coming back to 10,000 records takes: journal, resume, front
    python benchmarks/scale.py cluster       # 400 trials that do nothing on a Ray cluster of 8 nodes
    python benchmarks/scale.py plot

`simulated` is the real path of a study but for Ray and MLflow, which have their own commands: proposals, early
stopping, journal, trials.csv, front. Every 100 trials it writes down what the process holds and what they took. There
and in `samplers` times are those of the process's CPU, which other work on the machine does not change much. Rows go to
docs/scaling/<command>.csv; `plot` makes docs/scaling.png of them.
"""

import argparse
import csv
import io
import logging
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from _common import device_label, load
from rich.console import Console

from rssearch.backend import local_ray
from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig

PLACE = Path(__file__).parent.parent / "docs" / "scaling"
SPACE = {
    "rate": {"low": 0.0, "high": 0.9},
    "method": ["a", "b", "c", "d"],
    "lr": {"low": 1e-3, "high": 1.0, "log": True},
}
MIB = 1 << 20


def resident() -> float:
    """MiB that this process holds."""
    return psutil.Process().memory_info().rss / MIB


def make(folder: str, trials: int, sampler: str, rule: str, epochs: int) -> StudyConfig:
    return parse_study(
        {
            "study": "scale",
            "trial": "trials.curves:synthetic",
            "space": SPACE,
            "settings": {"train": {"epochs": epochs}},
            "search": {"sampler": sampler, "trials": trials, "early_stopping": rule},
            "storage": folder,
        }
    )


def simulated(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Memory, time and journal over the number of trials, with and without early stopping."""
    from rssearch.study.simulation import Simulator, simulate

    class Watched(Simulator):
        """Looks at the process after every `options.every` trials."""

        def run_jobs(self, *arguments: Any, **more: Any) -> None:
            *before, listener = arguments
            ended, since = 0, time.process_time()

            def end(*about: Any) -> None:
                nonlocal ended, since
                listener.ended(*about)
                ended += 1
                if ended % options.every == 0:
                    now = time.process_time()
                    rows.append(
                        {
                            **kind,
                            "trials": ended,
                            "milliseconds_per_trial": round(1000 * (now - since) / options.every, 3),
                            "memory_mib": round(resident(), 1),
                            "journal_mib": round((Path(folder) / "scale" / "trials.jsonl").stat().st_size / MIB, 2),
                            "virtual_hours": round(self.now / 3600, 2),
                        }
                    )
                    since = time.process_time()

            ask, target, context, resources = before
            super().run_jobs(ask, target, context, resources, replace(listener, ended=end), **more)

    rows: list[dict[str, Any]] = []
    for sampler, rule in (("random", "none"), ("random", "moasha"), ("nsga2", "moasha")):
        kind = {"sampler": sampler, "rule": rule}
        with tempfile.TemporaryDirectory() as folder:
            config = make(folder, options.trials, sampler, rule, options.epochs)
            recorder = simulate(config, Watched(options.nodes * options.slots))
            begin = time.process_time()
            recorder.close("FINISHED")
            print(f"{sampler} {rule}: {rows[-1]}, report {time.process_time() - begin:.1f} s", flush=True)
            del recorder
    return rows


def drawn(rng: random.Random) -> dict[str, float]:
    """The metrics of a trial."""
    return {"val_accuracy": rng.random(), "macs": 4e7 * rng.random()}


def samplers(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a proposal after so many trials."""
    from rssearch.config.space import content_key, draw
    from rssearch.sampling.sampler import Proposer
    from rssearch.storage.records import Status, TrialRecord

    rows = []
    for sampler in ("random", "qmc", "nsga2", "nsga3", "tpe"):
        for history in options.histories:
            config = make("unused", history + options.asks, sampler, "none", 1)
            rng = random.Random(0)
            points = [{name: draw(d, rng) for name, d in config.space.items()} for _ in range(history)]
            known = [TrialRecord(content_key(point), point, Status.FINISHED, metrics=drawn(rng)) for point in points]
            begin = time.process_time()
            proposer = Proposer(config.space, config.search, key_of=content_key, known=known)
            replayed = time.process_time() - begin
            times = []
            for _ in range(options.asks):
                begin = time.process_time()
                job = proposer.ask()
                times.append(time.process_time() - begin)
                assert job is not None
                proposer.tell(job[0], Status.FINISHED, drawn(rng))
            rows.append(
                {
                    "sampler": sampler,
                    "history": history,
                    "milliseconds_per_proposal": round(1000 * sorted(times)[len(times) // 2], 3),
                    "milliseconds_replayed": round(1000 * replayed / history, 3),
                }
            )
            print(rows[-1], flush=True)
    return rows


def mlflow(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds that MLflow's writer needs for trials and their epochs: in SQLite, or in what ``--uri`` names."""
    from rssearch.storage.records import Status, TrialRecord
    from rssearch.tracking.client import Tracker

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for part in range(options.parts):
            uri = options.uri or f"sqlite:///{folder}/mlflow.db"
            tracker = Tracker(uri, "scale", Path(folder) / "artifacts")
            tracker.open()
            records: list[TrialRecord] = []
            begin = time.perf_counter()
            for number in range(part * options.each, (part + 1) * options.each):
                key, now = f"key{number}", time.time()
                history = [{"epoch": e, "val_accuracy": 0.5, "seconds": 1.0} for e in range(1, options.epochs + 1)]
                for epoch in history:
                    tracker.epoch(key, key, {"rate": number}, epoch, int(epoch["epoch"]))
                records.append(
                    TrialRecord(
                        key, {"rate": number}, Status.FINISHED, title=key, params={"rate": number}, history=history,
                        metrics={"val_accuracy": 0.5, "macs": 1e6}, started=now, ended=now,
                    )
                )  # fmt: skip
                tracker.ended(records[-1])
            assert tracker.close(records, status="FINISHED") == 0
            seconds = time.perf_counter() - begin
            size = 0.0 if options.uri else (Path(folder) / "mlflow.db").stat().st_size / MIB
            record = uri.partition(":")[0].partition("+")[0]
            rows.append({"record": record, "trials": (part + 1) * options.each, "epochs": options.epochs,
                         "milliseconds_per_trial": round(1000 * seconds / options.each, 2),
                         "database_mib": round(size, 1)})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def journal(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of CPU that it takes to come back to a study: its journal, the session, the front on the console."""
    from rssearch.config import plain_yaml
    from rssearch.report import recorded
    from rssearch.report.files import format_front
    from rssearch.storage.journal import Journal
    from rssearch.study.simulation import Simulator, simulate

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = make(folder, options.records, "random", "none", options.epochs)
        recorder = simulate(config, Simulator(200))
        recorder.close("FINISHED")
        path = recorder.definition.folder / "trials.jsonl"
        (path.parent / "study.yaml").write_text(plain_yaml.dump(config.masked()))  # type: ignore[union-attr]
        del recorder

        def front() -> None:
            found = recorded.read(config.study, folder)
            shown = format_front(found.rows, found.objectives, "table", study=found.study, dimensions=found.dimensions)
            Console(file=io.StringIO()).print(shown)

        for what, work in {
            "journal": lambda: Journal(path),
            "resume": lambda: simulate(config, Simulator(200)),
            "front": front,
        }.items():
            begin = time.process_time()
            work()
            seconds = time.process_time() - begin
            rows.append({"what": what, "records": options.records, "epochs": options.epochs,
                         "seconds": round(seconds, 2),
                         "milliseconds_per_record": round(1000 * seconds / options.records, 3)})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


@local_ray.closed()
def cluster(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Whole studies of trials that do nothing, on a cluster of several nodes on this machine."""
    import rssearch.backend  # noqa: F401  # sets Ray's environment before Ray is imported  # isort: skip
    import ray
    from ray.cluster_utils import Cluster

    from rssearch.study import run

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(options.nodes - 1):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    rows: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = 0
            for trials in (10, *range(options.every, options.trials + 1, options.every)):
                config = make(folder, trials, "random", "none", 1)
                begin = time.perf_counter()
                status = run.search(config, console=Console(file=io.StringIO()))
                seconds = time.perf_counter() - begin
                assert status == 0
                each = round(1000 * seconds / (trials - done), 1)
                rows.append({"nodes": options.nodes, "trials": trials, "milliseconds_per_trial": each,
                             "memory_mib": round(resident(), 1)})  # fmt: skip
                done = trials
                print(rows[-1], flush=True)
    finally:
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]  # Ray's own
    return rows


def plot(options: argparse.Namespace) -> None:
    """Four panels: memory, time for a trial, time for a proposal, time in MLflow."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    def read(name: str) -> list[dict[str, Any]]:
        path = options.out / f"{name}.csv"
        return list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []

    def draw(panel: Any, rows: list[dict[str, Any]], x: str, y: str, label: str) -> None:
        for name in dict.fromkeys(row.get(label, "") for row in rows):
            own = [row for row in rows if row.get(label, "") == name]
            panel.plot([float(r[x]) for r in own], [float(r[y]) for r in own], marker=".", label=name)

    figure, panels = plt.subplots(2, 2, figsize=(10, 6.5), layout="constrained")
    runs = [row | {"study": f"{row['sampler']}, {row['rule']}"} for row in read("simulated")]
    draw(panels[0][0], runs, "trials", "memory_mib", "study")
    panels[0][0].set(title="memory of the driver", ylabel="MiB")
    draw(panels[0][1], runs, "trials", "milliseconds_per_trial", "study")
    panels[0][1].set(title="driver's time for a trial, without Ray and MLflow", ylabel="ms")
    draw(panels[1][0], read("samplers"), "history", "milliseconds_per_proposal", "sampler")
    panels[1][0].set(title="time for a proposal", ylabel="ms", yscale="log")
    draw(panels[1][1], [row | {"what": "MLflow's writer"} for row in read("mlflow")], "trials",
         "milliseconds_per_trial", "what")  # fmt: skip
    draw(panels[1][1], [row | {"what": "whole study on Ray"} for row in read("cluster")[1:]], "trials",
         "milliseconds_per_trial", "what")  # fmt: skip
    panels[1][1].set(title="time for a trial", ylabel="ms")
    for panel in panels.flat:
        panel.set(xlabel="trials that have ended", ylim=(None if panel.get_yscale() == "log" else 0, None))
        panel.spines[["top", "right"]].set_visible(False)
        if panel.get_yscale() == "log":
            panel.set_ylim(top=8 * panel.get_ylim()[1])  # room for the legend
        panel.legend(frameon=False, ncols=3 if panel.get_yscale() == "log" else 1)
    figure.savefig(options.out.with_suffix(".png"), dpi=110)
    print(options.out.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    found = {
        f.__name__: (f, commands.add_parser(f.__name__)) for f in (simulated, samplers, mlflow, journal, cluster, plot)
    }
    for name, number in {"--trials": 5000, "--nodes": 50, "--slots": 4, "--epochs": 27, "--every": 100}.items():
        found["simulated"][1].add_argument(name, type=int, default=number)
    found["samplers"][1].add_argument("--histories", type=int, nargs="+", default=[100, 300, 1000, 2000, 5000])
    found["samplers"][1].add_argument("--asks", type=int, default=10)
    for name, number in {"--parts": 5, "--each": 200, "--epochs": 9}.items():
        found["mlflow"][1].add_argument(name, type=int, default=number)
    found["mlflow"][1].add_argument("--uri", help="an MLflow server or a database; default: SQLite in a folder")
    for name, number in {"--records": 10_000, "--epochs": 9}.items():
        found["journal"][1].add_argument(name, type=int, default=number)
    for name, number in {"--nodes": 8, "--trials": 400, "--every": 100}.items():
        found["cluster"][1].add_argument(name, type=int, default=number)
    for _, command in found.values():
        command.add_argument("--out", type=Path, default=PLACE, help="folder of the CSVs")
    options = parser.parse_args()
    rows = found[options.command][0](options)
    if rows:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / f"{options.command}.csv"
        about = {"load_average": load(), "device": device_label()}
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], *about])
            writer.writeheader()
            writer.writerows(row | about for row in rows)
        print(path)


if __name__ == "__main__":
    main()
