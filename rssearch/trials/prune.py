"""Trials of a pruning study: baseline, scores, surgery, fine-tuning, measurement.

The baseline of a trial (dataset, model, seed, training recipe) and its scores (baseline, method) are kept in the store
and shared by all trials that need the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from rssearch.config.schema import Search
from rssearch.config.settings import Settings
from rssearch.cost import memory
from rssearch.cost.compute import compute
from rssearch.cost.device_latencies import predicted
from rssearch.cost.device_layers import layers
from rssearch.cost.onnx import OnnxNetwork
from rssearch.cost.precision import FP32
from rssearch.data import AnySet
from rssearch.errors import InputError
from rssearch.models.weights import to_bytes
from rssearch.storage.artifacts import Store
from rssearch.trial.interface import Preparation
from rssearch.trial.session import Session
from rssearch.trials import (
    baseline_check,
    baselines,
    checks,
    deployed,
    images,
    latency,
    outlays,
    planned,
    results,
    searches,
    slimmables,
    spending,
    tasks,
)
from rssearch.trials.finetune import prune_and_finetune
from rssearch.trials.planned import PlannedTrial
from rssearch.trials.point import PruningPoint
from rssearch.trials.pruning_trial import PruningTrial

Config = dict[str, Any]
Metrics = dict[str, Any]

ON_REQUEST = latency.METRICS
METRICS = (*dict.fromkeys([name for task in tasks.QUALITIES for name in tasks.metrics(task)]), *ON_REQUEST)
PER_CLASS = tasks.PER_CLASS
MEASURED = results.SURE
EPOCH_METRICS = tuple(dict.fromkeys([name for task in tasks.QUALITIES for name in tasks.measured(task)]))


# What the driver asks


def check(point: Config, settings: Settings) -> None:
    """Refuse a point that cannot be run. Raises InputError."""
    checks.check_pruning(point, settings)


def check_search(point: Config, search: Search) -> None:
    """Refuse objectives and constraints that no trial reports. Raises InputError."""
    resolved = PruningPoint(point, Settings())
    tasks.check_search(resolved, search)
    if resolved.precision != FP32 and latency.PREDICTED in {*search.objectives, *search.constraints}:
        raise InputError(
            f"search: {latency.PREDICTED} is of networks in float32, and space.precision has {resolved.precision!r}; "
            "name a measured latency, or that of a device"
        )


def classes(point: Config, settings: Settings, data_root: Path) -> tuple[str, ...]:
    """The names of the classes of a point's dataset."""
    return images.classes(point["dataset"], str(data_root), settings.download)


def identity(point: Config, settings: Settings, data_root: Path) -> Config:
    """What determines a trial besides its point and settings."""
    trial = PlannedTrial(PruningPoint(point, settings), data_root)
    trial.check_weights()
    trial.check_training()
    trial.check_groups()
    return trial.keys.identity()


def epochs(point: Config, settings: Settings) -> int:
    """How many epochs a trial reports: those of the fine-tuning, or of the training that stands for it."""
    return PruningPoint(point, settings).finetune_recipe.epochs


def peers(point: Config, settings: Settings) -> str:
    """Whose epochs can be compared: fine-tuned networks, those that train again, and those from the start."""
    resolved = PruningPoint(point, settings)
    name = f"{'initial' if resolved.is_untrained else 'trained'} {'train' if resolved.retrains else 'finetune'}"
    return name if resolved.precision == FP32 else f"{name} {resolved.precision}"


def share(
    points: Iterable[Config], settings: Settings, data_root: Path, progress: Callable[[str, int, int], None]
) -> dict[str, AnySet]:
    """Every image set of the study, decoded once."""
    return planned.share(planned.resolved(points, settings, data_root), progress)


def preparations(points: Iterable[Config], settings: Settings, data_root: Path, store: Store) -> list[Preparation]:
    """The baselines that the points need, each with the scores that they ask of it; and the channel searches."""
    return planned.preparations(planned.resolved(points, settings, data_root), store)


def cost(point: Config, session: Session) -> Metrics:
    """MACs and parameters of the pruned network, from the channels that it would keep: no surgery, no training.

    Empty where they depend on scores that are not there yet: in the store, or at all before the first step's training.
    """
    trial = _planned(point, session)
    kept = trial.kept(session.store)
    if kept is None:
        return {}
    known = trial.cost(kept)
    if results.PEAK in session.context.named:
        known |= {results.PEAK: trial.peak_activation_bytes(kept)}
    if latency.PREDICTED in session.context.requested:
        known |= latency.looked_up(partial(trial.pruned, kept), trial.architecture, session)
    if results.BYTES in session.context.named and trial.point.precision == FP32:
        known |= {results.BYTES: len(to_bytes(trial.pruned(kept)))}
    return known | predicted(session.store, session.context.named, partial(trial.layers, kept))


def describe(point: Config, session: Session) -> str:
    """What a point's images are made of, and what becomes of their values."""
    return _planned(point, session).pixels


def unpruned(point: Config, session: Session) -> Metrics:
    """What hypervolumes are measured from: the costs of the network before pruning, and how many classes there are."""
    trial = _planned(point, session)
    whole = trial.cost(None)
    costs = {f"baseline_{name}": whole[name] for name in ("macs", "params", "conv_linear_macs")}
    return {"classes": trial.description.num_classes, **costs}


def estimate(point: Config, session: Session, epochs: int) -> float:
    """Seconds of training on this machine, from a few steps of the unpruned network: a bound for a pruned one."""
    return epochs * _planned(point, session).epoch_seconds(session.settings.finetune.batch_size, session)


def outlay(points: Iterable[Config], settings: Settings) -> dict[str, float]:
    """Epochs of the whole network that a front of each method trains in all, and one from scratch: cheapest first."""
    return outlays.outlay(points, settings)


def _planned(point: Config, session: Session) -> PlannedTrial:
    return PlannedTrial(PruningPoint(point, session.context.settings), session.data_root)


# What runs on a worker


def prepare(config: Config, session: Session) -> Metrics:
    """Train a baseline and score it with every method that is asked for; or what trials share otherwise."""
    trial = PruningTrial.open(config, session)
    if config.get("search"):
        return searches.searched(trial).history[-1] | {spending.COMPUTE: compute(spending.search(trial))}
    if config.get("slimmable"):
        work = [part for parts in spending.slimmable(trial).values() for part in parts]
        return slimmables.prepared(trial)[-1] | {spending.COMPUTE: compute(work)}
    for method in config["methods"]:
        baselines.scores(PruningTrial(trial.point.with_method(method), session))
    for method in config.get("sensitivities", ()):
        baselines.sensitivities(PruningTrial(trial.point.with_method(method), session))
    return trial.baseline.metrics | {spending.COMPUTE: compute(spending.baseline(trial))}


def run(config: Config, session: Session) -> Metrics:
    """Prune a baseline, fine-tune what is left, and measure it."""
    trial = PruningTrial.open(config, session)
    if "precision" in trial.point.values:
        return deployed.run(trial, partial(_time, trial))
    tuned = prune_and_finetune(trial, on_shape=partial(_time, trial))
    metrics = results.of_pruning(trial, tuned)
    results.keep(trial, tuned.model, tuned.spec)
    return metrics


def _time(trial: PruningTrial, pruned: nn.Module) -> None:
    """Measure or predict the latency that the study asks for. Raises Infeasible where it breaks a constraint."""
    session, shape, precision = trial.session, trial.images.input_shape, trial.point.precision
    if not isinstance(pruned, OnnxNetwork):  # else its layers were described before it was converted
        found: Metrics = {results.BYTES: len(to_bytes(pruned))} if results.BYTES in session.context.named else {}
        found |= predicted(session.store, session.context.named, lambda: layers(pruned, shape, precision))
        session.report_static_metrics(found)
    latency.predicted(pruned, trial.dense, trial.architecture, session)
    latency.measured(pruned, shape, session)


def measure(config: Config, session: Session) -> Metrics:
    """Quality on the test split, size, and latencies alone on the machine: of the trial, and of its baseline."""
    trial = PruningTrial.open(config, session)
    return results.of_front_member(trial, results.sensitivity_picture(trial)) | results.of_its_baseline(trial)


def deploy(config: Config, session: Session) -> Metrics:
    """Put the trained network as an ONNX file into the store."""
    return results.deploy(PruningTrial.open(config, session))


def check_baseline(config: Config, session: Session) -> list[Metrics]:
    """What the weights that a point begins with reach on the validation images, by each of several normalisations."""
    return baseline_check.rows(PruningTrial.open(config, session))


def footprint(config: Config, session: Session) -> Metrics:
    """What training the whole network of a point takes of a GPU's memory: a bound for a pruned one."""
    trial = PruningTrial.open(config, session)
    return asdict(memory.measure(lambda: trial.rehearse([trial.point.train_recipe, trial.point.finetune_recipe])))
