"""One trial of a pruning study: baseline, scores, cut, fine-tune, measure.

The baseline of a trial (dataset, model, seed, training recipe) and its scores (baseline, method) are kept in the store
and shared by all trials that need the same ones.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from rssearch import data, models, pruning
from rssearch.config.imports import is_import
from rssearch.config.schema import Patches, Settings
from rssearch.config.space import content_key
from rssearch.cost import counting as costs
from rssearch.cost import memory
from rssearch.data import AnySet
from rssearch.data.describe import Description, describe
from rssearch.errors import InputError, TrialFailed, unknown
from rssearch.pruning import METHODS, ChannelGraph
from rssearch.pruning.allocate import ALLOCATIONS
from rssearch.pruning.surgery import kept_by
from rssearch.storage.artifacts import Store
from rssearch.train.loop import evaluate
from rssearch.trial.interface import PREDICTIONS, Preparation
from rssearch.trial.session import Session, point_settings
from rssearch.trials import finetune, latency, searches, tasks
from rssearch.trials.baselines import (
    BASELINES,
    CHANNEL_NAS,
    CODE,
    NO_METHOD,
    SCORES,
    baseline,
    baseline_inputs,
    build_model,
    data_key,
    finetune_recipe,
    fingerprint,
    images_of,
    load_images,
    method_of,
    options_text,
    own_code,
    rehearse,
    reporter,
    score_key,
    scores,
    train_recipe,
)

Config = dict[str, Any]
Metrics = dict[str, Any]

MODELS = "models"
_PROBED = 128  # pixels
_PROBED_BATCH = 256  # images say enough of a larger batch, which may not fit into the memory
AMOUNTS = ("rate", "rates", "macs_ratio")
DIMENSIONS = ("dataset", "model", "method", *AMOUNTS, "seed", "allocation", "round_to")
ON_REQUEST = latency.METRICS
METRICS = (*dict.fromkeys([*tasks.metrics("classification"), *tasks.metrics("segmentation")]), *ON_REQUEST)
EPOCH_METRICS = tuple(dict.fromkeys([*tasks.measured("classification"), *tasks.measured("segmentation")]))

check_search = tasks.check_search


# What the study asks before it starts


def check(point: Config, settings: Settings) -> None:
    """Refuse a point that cannot be run. Raises InputError."""
    for name in point:
        if "." not in name and name not in DIMENSIONS:
            raise _at("space", unknown("dimension", name, DIMENSIONS))
    for name in ("dataset", "model", "method"):
        if not isinstance(point.get(name), str):
            raise InputError(f"space.{name}: is required, as a list of names")
    local = point_settings(settings, point)
    tasks.check(point, local)
    _check_method(point["method"])
    amounts = [name for name in AMOUNTS if point.get(name) is not None]
    if len(amounts) != 1:
        raise InputError(
            f"space: give one of {', '.join(AMOUNTS)}" + (f", not {' and '.join(amounts)}" if amounts else "")
        )
    _check_number(point, "rate", "in [0, 1)", lambda v: 0 <= v < 1)
    _check_number(point, "macs_ratio", "in (0, 1]", lambda v: 0 < v <= 1)
    for name, low in (("seed", 0), ("round_to", 1)):
        value = point.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"space.{name}: {value!r} is not a whole number of at least {low}")
    if point.get("allocation", "uniform") not in ALLOCATIONS:
        raise _at("space.allocation", unknown("allocation", point["allocation"], ALLOCATIONS))
    finetune.check(point, local)


def _check_method(name: str) -> None:
    known = (NO_METHOD, CHANNEL_NAS, *METHODS)
    if name not in known and not is_import(name):
        raise _at("space.method", unknown("method", name, [*known, "MODULE:NAME"]))
    with tasks.named("space.method"):
        method_of({"method": name})


def _at(place: str, error: InputError) -> InputError:
    return InputError(f"{place}: {error}")


def _check_number(point: Config, name: str, allowed: str, fits: Callable[[float], bool]) -> None:
    value = point.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
        raise InputError(f"space.{name}: {value!r} is not allowed; it must be a number {allowed}")


def identity(point: Config, settings: Settings, data_root: Path) -> Config:
    """What determines a trial besides its point and settings."""
    images = fingerprint(point["dataset"], str(data_root), settings.download)
    return {"data": images, "code": CODE, **own_code(point.get("model"), point.get("method"))}


def epochs(point: Config, settings: Settings) -> int:
    """How many epochs a trial reports: those of the fine-tuning."""
    return finetune_recipe(point, point_settings(settings, point)).epochs


def share(
    points: Iterable[Config], settings: Settings, data_root: Path, progress: Callable[[str, int, int], None]
) -> dict[str, AnySet]:
    """Every image set of the study, decoded once."""
    sets: dict[str, AnySet] = {}
    for point in points:
        local = point_settings(settings, point)
        name = data_key(point, local, data_root)
        if name not in sets:
            dataset = point["dataset"]
            sets[name] = load_images(dataset, local, data_root, partial(progress, dataset))
    return sets


def preparations(points: Iterable[Config], settings: Settings, data_root: Path, store: Store) -> list[Preparation]:
    """The baselines that the points need, each with the scores that they ask of it; and the channel searches.

    Methods that score anew in each epoch of the fine-tuning ask for no scores.
    """
    wanted: dict[str, set[str]] = defaultdict(set)
    origin: dict[str, Config] = {}
    found: dict[str, Preparation] = {}
    for point in points:
        if point["method"] == CHANNEL_NAS:
            search = searches.search_preparation(point, settings, data_root, store)
            found.setdefault(search.key, search)
        key = content_key(baseline_inputs(point, point_settings(settings, point), data_root))
        origin.setdefault(key, point)
        method = method_of(point)
        wanted[key] |= {point["method"]} if method is not None and not method.soft else set()
    result = []
    for key, methods in wanted.items():
        point = origin[key]
        local = point_settings(settings, point)
        method = method_of(point)
        changes = method.train if method else {}
        own = f", {' and '.join(changes)}" if changes else ""
        missing = [m for m in sorted(methods) if not store.has(SCORES, score_key(key, m, local))]
        have = store.has(BASELINES, key)
        seed = f", seed {point['seed']}" if "seed" in point else ""
        result.append(
            Preparation(
                key=f"baseline-{key}",
                title=f"baseline {point['model']} on {point['dataset']}{seed}{own}",
                point={**point, "methods": missing},
                done=have and not missing,
                parts={"baselines": int(not have), "scores": len(missing)},
            )
        )
    return [*result, *found.values()]


# What runs on a worker


def prepare(config: Config, session: Session) -> Metrics:
    """Train a baseline and score it with every method that the study asks for; or search channels."""
    if config.get("search"):
        _, _, history = searches.searched(config, session)
        return history[-1]
    _, metrics = baseline(config, session)
    for method in config["methods"]:
        scores(config | {"method": method}, session)
    return metrics


def run(config: Config, session: Session) -> Metrics:
    """Prune a baseline, fine-tune what is left, and measure it."""
    begin = time.perf_counter()
    local, device = session.settings, session.device
    images = images_of(config, session)
    dense, base = baseline(config, session)

    def look(pruned: nn.Module) -> None:
        latency.predicted(pruned, dense, images.input_shape, _network(config, local, images), session)
        latency.measured(pruned, images.input_shape, session)

    model, spec, history = finetune.shrink(config, session, dense, reporter(session), look)
    report = _report(config, session, model, spec)
    measured = evaluate(model, images.split("val"), batch_size=local.finetune.batch_size, device=device)
    keep(config, session, model, spec)
    return {
        **({} if "seed" in config else {"seed": 0}),
        **{f"val_{name}": value for name, value in measured.items()},
        **report,
        **session.known,
        **{f"baseline_val_{name}": base[f"val_{name}"] for name in tasks.QUALITIES[images.task]},
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "trial_seconds": time.perf_counter() - begin,
        "split_hash": images.split_hash,
        "images_skipped": len(images.skipped),
        "history": history,
    }


def keep(config: Config, session: Session, model: nn.Module, spec: Config) -> None:
    """Put a trained network into the store, with what `measure` and an export need."""
    name = config["model"]
    about = {"model": name, "options": session.settings.model.given(name), **tasks.about(images_of(config, session))}
    files = {
        "model.safetensors": save_tensors({n: t.contiguous().cpu() for n, t in model.state_dict().items()}),
        "spec.json": json.dumps(spec).encode(),
        "about.json": json.dumps(about).encode(),
    }
    session.store.put(MODELS, session.key, files)


def cost(point: Config, session: Session) -> Metrics:
    """MACs and parameters of the pruned network, from the channels that it would keep: no surgery, no training.

    Empty where they depend on scores that are not there yet: in the store, or at all before the first step's training.
    """
    local = session.settings
    key = content_key(baseline_inputs(point, local, session.data_root))
    about = about_data(point, local, session.data_root)
    network = (point["model"], options_text(point, local), about.input_shape, about.num_classes)
    graph, kept = _graph(*network), None
    if point["method"] == CHANNEL_NAS or local.pruning.steps > 1:
        return {}
    if point["method"] != NO_METHOD:
        how = finetune.allocation(point, local)
        name = score_key(key, point["method"], local)
        found = session.store.get(SCORES, name) if session.store.has(SCORES, name) else None
        joint = pruning.get_method(point["method"]).allocation == "joint"
        if found is None and (how != "uniform" or joint):
            return {}
        # How many channels a uniform allocation keeps does not depend on the weights.
        ranks = load_tensors(found["scores.safetensors"]) if found else _untrained_scores(point["method"], *network)
        kept = finetune.allocate(graph, ranks, point, local, point.get("macs_ratio"))
    report = pruning.cost_report(graph, kept)
    if latency.PREDICTED not in session.context.requested:
        return report
    spec = pruning.make_spec(graph, kept or {})
    return report | latency.looked_up(
        lambda: pruning.apply_spec(_untrained(*network), spec),
        about.input_shape,
        _network(point, local, about),
        session,
    )


def _network(point: Config, local: Settings, about: Description | AnySet) -> Config:
    """What determines the shapes of a point's unpruned network."""
    options = local.model.given(point["model"])
    return {"model": point["model"], "options": options, "shape": about.input_shape, "classes": about.num_classes}


def unpruned(point: Config, session: Session) -> Metrics:
    """What hypervolumes are measured from: the costs of the network before pruning, and how many classes there are."""
    about = about_data(point, session.settings, session.data_root)
    graph = _graph(point["model"], options_text(point, session.settings), about.input_shape, about.num_classes)
    whole = pruning.cost_report(graph, None)
    costly = ("macs", "params", "conv_linear_macs")
    return {"classes": about.num_classes, **{f"baseline_{name}": whole[name] for name in costly}}


def measure(config: Config, session: Session) -> Metrics:
    """Quality on the test split, and the latencies of `settings.latency` alone on the machine.

    A network for segmentation leaves a picture of its predictions in the store.
    """
    images, device = images_of(config, session), session.device
    files = session.store.get(MODELS, session.key)
    if files is None:
        raise TrialFailed(f"the weights of {session.key} are gone from the store")
    model = build_model(config, session, images)
    model = pruning.apply_spec(model, json.loads(files["spec.json"]))
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    model.to(device).eval()
    batch_size = session.settings.finetune.batch_size
    result = tasks.tested(model, images, batch_size, device)
    if picture := tasks.picture(model, images, batch_size, device):
        session.store.put(PREDICTIONS, session.key, {"predictions.png": picture})
    return result | latency.of_front(model, images.input_shape, session)


def footprint(config: Config, session: Session) -> Metrics:
    """What training the whole network of a point takes of a GPU's memory: a bound for a pruned one."""
    recipes = train_recipe(config, session.settings), finetune_recipe(config, session.settings)
    return asdict(memory.measure(lambda: rehearse(config, session, recipes)))


def estimate(point: Config, session: Session, epochs: int) -> float:
    """Seconds of training on this machine, from a few steps of the unpruned network: a bound for a pruned one."""
    return epochs * epoch_seconds(point, session, session.settings.finetune.batch_size)


def epoch_seconds(point: Config, session: Session, batch_size: int) -> float:
    """Seconds of an epoch of a point's whole network on this machine, from a few steps."""
    local = session.settings
    about = about_data(point, local, session.data_root)
    network = (point["model"], options_text(point, local), about.input_shape, about.num_classes)
    per_image = _seconds_per_image(*network, min(batch_size, _PROBED_BATCH), session.device.type)
    return per_image * about.num_images * local.split.train


def _report(config: Config, session: Session, model: nn.Module, spec: Config) -> Metrics:
    """What the network costs, counted on it and from its kept channels."""
    images = images_of(config, session)
    graph = _graph(config["model"], options_text(config, session.settings), images.input_shape, images.num_classes)
    expected, profile = pruning.cost_report(graph, kept_by(graph, spec)), costs.profile(model, images.input_shape)
    if profile.macs != expected["macs"] or profile.params != expected["params"]:
        raise TrialFailed(
            f"the pruned {config['model']} has {profile.macs} MACs and {profile.params} parameters, but its kept "
            f"channels promised {expected['macs']} and {expected['params']}"
        )
    uncounted = {"macs_uncounted": ", ".join(profile.uncounted)} if profile.uncounted else {}
    return expected | {"macs_counter": profile.counter} | uncounted


# What the driver computes again and again


def _untrained(model: str, options: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    given = {name: value for name, value in json.loads(options).items() if name != "weights"}
    return models.create(model, classes, in_channels=shape[0], input_size=shape[1], **given).eval()


@lru_cache(maxsize=32)
def _graph(model: str, options: str, shape: tuple[int, int, int], classes: int) -> ChannelGraph:
    """The coupled channels of a network; they do not depend on its weights."""
    return pruning.trace(_untrained(model, options, shape, classes), torch.zeros(1, *shape))


@lru_cache(maxsize=32)
def _untrained_scores(
    method: str, model: str, options: str, shape: tuple[int, int, int], classes: int
) -> dict[str, torch.Tensor]:
    """Scores that name the groups which the method can judge; their values mean nothing."""
    graph = _graph(model, options, shape, classes)
    if pruning.get_method(method).needs_data:
        return {name: torch.ones(group.width) for name, group in graph.groups.items()}
    return pruning.score(_untrained(model, options, shape, classes), graph, method)


def about_data(point: Config, local: Settings, root: Path) -> Description:
    """Shape, classes and number of a point's images, without decoding them."""
    if local.download:
        data.fetch(point["dataset"], root)
    return _about(point["dataset"], str(root), local.input_size, local.patches)


@lru_cache(maxsize=32)
def _about(dataset: str, root: str, input_size: int | None, patches: Patches) -> Description:
    return describe(dataset, root, input_size=input_size, patches=patches)


@lru_cache(maxsize=32)
def _seconds_per_image(
    model: str, options: str, shape: tuple[int, int, int], classes: int, batch_size: int, device: str
) -> float:
    channels, height, width = shape
    if models.task_of(model) == "segmentation":  # a part of a large scene says enough, and does not take minutes
        height, width = min(height, _PROBED), min(width, _PROBED)
    network = _untrained(model, options, shape, classes).to(device).train()
    x = torch.randn(batch_size, channels, height, width, device=device)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        logits = network(x)
        targets = torch.randint(classes, (batch_size, *logits.shape[2:]), device=device)
        nn.functional.cross_entropy(logits, targets).backward()  # type: ignore[no-untyped-call]
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:])) / batch_size * (shape[1] * shape[2]) / (height * width)
