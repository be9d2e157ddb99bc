"""One trial of a pruning study: baseline, scores, cut, fine-tune, measure.

The baseline of a trial (dataset, model, seed, training recipe) and its scores (baseline, method) are kept in the store and
shared by all trials that need the same ones.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from rssearch import cost as costs
from rssearch import data, models, pruning
from rssearch.config import Settings
from rssearch.data import ImageSet, loader
from rssearch.data.describe import Description, describe
from rssearch.errors import InputError, TrialFailed, unknown
from rssearch.pruning import ChannelGraph
from rssearch.pruning.channels import Kept
from rssearch.pruning.methods import METHODS
from rssearch.space import content_key
from rssearch.store import Files, Store
from rssearch.train import evaluate, fit
from rssearch.trial import Preparation, Session, point_settings

Config = dict[str, Any]
Metrics = dict[str, Any]

BASELINES, SCORES, MODELS = "baselines", "scores", "models"
NO_METHOD = "none"
DIMENSIONS = ("dataset", "model", "method", "rate", "macs_ratio", "seed", "allocation", "round_to")
# Raise a number when that part computes something else than before: what was computed with the old code is then not reused.
CODE = {"data": 1, "train": 1, "score": 1, "cut": 1}


# What the study asks before it starts


def check(point: Config, settings: Settings) -> None:
    """Refuse a point that cannot be run. Raises InputError."""
    for name in point:
        if "." not in name and name not in DIMENSIONS:
            raise unknown("dimension", name, DIMENSIONS)
    for name in ("dataset", "model", "method"):
        if not isinstance(point.get(name), str):
            raise InputError(f"space.{name}: is required, as a list of names")
    _check_dataset(point["dataset"])
    local = point_settings(settings, point)
    models.check_options(point["model"], local.model.given())
    if point["method"] != NO_METHOD and point["method"] not in METHODS:
        raise unknown("method", point["method"], [NO_METHOD, *METHODS])
    amounts = [name for name in ("rate", "macs_ratio") if point.get(name) is not None]
    if len(amounts) != 1:
        raise InputError("space: give either rate or macs_ratio" + (", not both" if amounts else ""))
    _check_number(point, "rate", 0, 1, "in [0, 1)", lambda v: 0 <= v < 1)
    _check_number(point, "macs_ratio", 0, 1, "in (0, 1]", lambda v: 0 < v <= 1)
    for name, low in (("seed", 0), ("round_to", 1)):
        value = point.get(name, low)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"space.{name}: {value!r} is not a whole number of at least {low}")
    if point.get("allocation", "uniform") not in ("uniform", "global"):
        raise unknown("allocation", point["allocation"], ("uniform", "global"))


def _check_dataset(name: str) -> None:
    known = [*data.list_datasets(), "eurosat_rgb"]
    if name not in known and not name.startswith("folder:"):
        raise unknown("dataset", name, [*known, "folder:PATH"])


def _check_number(point: Config, name: str, _low: int, _high: int, allowed: str, fits: Callable[[float], bool]) -> None:
    value = point.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
        raise InputError(f"space.{name}: {value!r} is not allowed; it must be a number {allowed}")


def identity(point: Config, settings: Settings, data_root: Path) -> Config:
    """What determines a trial besides its point and settings."""
    return {"data": _fingerprint(point["dataset"], str(data_root), settings.download), "code": CODE}


@lru_cache(maxsize=64)
def _fingerprint(name: str, root: str, download: bool) -> str:
    if download:
        data.fetch(name, root)
    return data.fingerprint(name, root)


def share(
    points: Iterable[Config], settings: Settings, data_root: Path, progress: Callable[[str, int, int], None]
) -> dict[str, ImageSet]:
    """Every image set of the study, decoded once."""
    sets: dict[str, ImageSet] = {}
    for point in points:
        local = point_settings(settings, point)
        name = _data_key(point, local, data_root)
        if name not in sets:
            dataset = point["dataset"]
            sets[name] = _load(dataset, local, data_root, lambda done, total, d=dataset: progress(d, done, total))
    return sets


def preparations(points: Iterable[Config], settings: Settings, data_root: Path, store: Store) -> list[Preparation]:
    """The baselines that the points need, each with the scores that they ask of it."""
    wanted: dict[str, set[str]] = defaultdict(set)
    origin: dict[str, Config] = {}
    for point in points:
        key = content_key(_baseline_inputs(point, point_settings(settings, point), data_root))
        origin.setdefault(key, point)
        if point["method"] != NO_METHOD:
            wanted[key].add(point["method"])
        else:
            wanted[key] |= set()
    result = []
    for key, methods in wanted.items():
        point = origin[key]
        local = point_settings(settings, point)
        missing = [m for m in sorted(methods) if not store.has(SCORES, _score_key(key, m, local))]
        have = store.has(BASELINES, key)
        seed = f", seed {point['seed']}" if "seed" in point else ""
        result.append(
            Preparation(
                key=f"baseline-{key}",
                title=f"baseline {point['model']} on {point['dataset']}{seed}",
                point={**point, "methods": missing},
                done=have and not missing,
                parts={"baselines": int(not have), "scores": len(missing)},
            )
        )
    return result


# What runs on a worker


def prepare(config: Config, session: Session) -> Metrics:
    """Train a baseline and score it with every method that the study asks for."""
    _, metrics = baseline(config, session)
    for method in config["methods"]:
        scores(config | {"method": method}, session)
    return {name: value for name, value in metrics.items() if name != "history"} | {"history": metrics["history"]}


def run(config: Config, session: Session) -> Metrics:
    """Prune a baseline, fine-tune what is left, and measure it."""
    begin = time.perf_counter()
    local, device = session.settings, session.device
    images = _images(config, session)
    dense, base = baseline(config, session)
    model, spec, report = _cut(config, session, dense, base)
    history = fit(
        model,
        images.split("train"),
        images.split("val"),
        local.finetune,
        augment=local.augment,
        seed=config.get("seed", 0),
        device=device,
        teacher=dense if local.finetune.distill > 0 else None,
        resume=session.load_checkpoint(),
        on_epoch=_reporter(session),
    )
    measured = evaluate(model, images.split("val"), batch_size=local.finetune.batch_size, device=device)
    session.store.put(
        MODELS,
        session.key,
        {
            "model.safetensors": save_tensors({n: t.contiguous().cpu() for n, t in model.state_dict().items()}),
            "spec.json": json.dumps(spec).encode(),
            "about.json": json.dumps(
                {
                    "model": config["model"],
                    "options": local.model.given(),
                    "classes": images.classes,
                    "input_shape": images.input_shape,
                    "mean": images.mean.tolist(),
                    "std": images.std.tolist(),
                }
            ).encode(),
        },
    )
    return {
        "val_accuracy": measured["accuracy"],
        "val_loss": measured["loss"],
        **report,
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "trial_seconds": time.perf_counter() - begin,
        "split_hash": images.split_hash,
        "images_skipped": len(images.skipped),
        "history": history,
    }


def cost(point: Config, session: Session) -> Metrics:
    """MACs and parameters of the pruned network, from the channels that it would keep: no surgery, no training.

    Empty where they depend on scores that are not in the store yet.
    """
    local = session.settings
    key = content_key(_baseline_inputs(point, local, session.data_root))
    about = _about_data(point, local, session.data_root)
    network = (point["model"], _options_text(local), about.input_shape, about.num_classes)
    graph, kept = _graph(*network), None
    if point["method"] != NO_METHOD:
        name = _score_key(key, point["method"], local)
        found = session.store.get(SCORES, name) if session.store.has(SCORES, name) else None
        if found is None and _allocation(point, local) != "uniform":
            return {}
        # How many channels a uniform allocation keeps does not depend on the weights.
        ranks = load_tensors(found["scores.safetensors"]) if found else _untrained_scores(point["method"], *network)
        kept = _allocate(graph, ranks, point, local)
    return _cost_report(graph, kept)


def measure(config: Config, session: Session) -> Metrics:
    """Accuracy on the test split, and latency alone on the machine (batch 1, median of 50 passes after 10)."""
    images, device = _images(config, session), session.device
    files = session.store.get(MODELS, session.key)
    if files is None:
        raise TrialFailed(f"the weights of {session.key} are gone from the store")
    model = _build(config, session, images)
    model = pruning.apply_spec(model, json.loads(files["spec.json"]))
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    model.to(device).eval()
    result: Metrics = {}
    if len(images.split("test")):
        tested = evaluate(model, images.split("test"), batch_size=session.settings.finetune.batch_size, device=device)
        result["test_accuracy"] = tested["accuracy"]
    times = _latency(model, torch.zeros(1, *images.input_shape, device=device))
    quartiles = statistics.quantiles(times, n=4)
    return result | {
        "latency_ms": statistics.median(times),
        "latency_iqr_ms": quartiles[2] - quartiles[0],
        "latency_device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "latency_threads": torch.get_num_threads(),
    }


def estimate(point: Config, session: Session) -> float:
    """Seconds of one trial on this machine, from a few training steps of the unpruned network: an upper bound."""
    local = session.settings
    about = _about_data(point, local, session.data_root)
    network = (point["model"], _options_text(local), about.input_shape, about.num_classes)
    per_image = _seconds_per_image(*network, local.finetune.batch_size, session.device.type)
    return per_image * about.num_images * local.split.train * local.finetune.epochs


# Baselines and scores


def baseline(config: Config, session: Session) -> tuple[nn.Module, Metrics]:
    """The trained, unpruned network of a point, from the store or trained now; and its metrics."""
    inputs = _baseline_inputs(config, session.settings, session.data_root)
    key = content_key(inputs)
    files = session.store.get_or_build(BASELINES, key, lambda: _train_baseline(config, session, key, inputs))
    model = _build(config, session, _images(config, session))
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    return model, json.loads(files["metrics.json"])


def _train_baseline(config: Config, session: Session, key: str, inputs: Config) -> Files:
    images, recipe = _images(config, session), session.settings.train
    model = _build(config, session, images)
    # A baseline has a checkpoint of its own, under its own key: whichever trial trains it, another can go on with it.
    keeper = Session(session.context, f"baseline-{key}", {}, session.report)
    history = fit(
        model,
        images.split("train"),
        images.split("val"),
        recipe,
        augment=session.settings.augment,
        seed=config.get("seed", 0),
        device=session.device,
        resume=keeper.load_checkpoint(),
        on_epoch=_reporter(keeper),
    )
    measured = evaluate(model, images.split("val"), batch_size=recipe.batch_size, device=session.device)
    keeper.drop_checkpoint()
    profile = costs.profile(model, images.input_shape)
    metrics = {
        "val_accuracy": measured["accuracy"],
        "val_loss": measured["loss"],
        "macs": profile.macs,
        "params": profile.params,
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "history": history,
    }
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return {
        "model.safetensors": save_tensors(weights),
        "metrics.json": json.dumps(metrics).encode(),
        "inputs.json": json.dumps(inputs, indent=1).encode(),
    }


def scores(config: Config, session: Session) -> dict[str, torch.Tensor]:
    """The scores of every channel of a point's baseline by its method, from the store or computed now."""
    key = content_key(_baseline_inputs(config, session.settings, session.data_root))

    def build() -> Files:
        local, images = session.settings, _images(config, session)
        model, _ = baseline(config, session)
        model.to(session.device).eval()
        seed = config.get("seed", 0)
        batches = loader.batches(
            images.split("train"), local.pruning.score_batch_size, device=session.device, train=True, seed=seed
        )
        few = [batch for _, batch in zip(range(local.pruning.score_batches), batches, strict=False)]
        graph = pruning.trace(model, torch.zeros(1, *images.input_shape, device=session.device))
        result = pruning.score(model, graph, config["method"], data=few, seed=seed)
        return {"scores.safetensors": save_tensors({name: value.contiguous() for name, value in result.items()})}

    files = session.store.get_or_build(SCORES, _score_key(key, config["method"], session.settings), build)
    return load_tensors(files["scores.safetensors"])


# The parts


def _cut(config: Config, session: Session, dense: nn.Module, base: Metrics) -> tuple[nn.Module, Config, Metrics]:
    """The smaller network, its spec, and what it costs beside the baseline."""
    local, images = session.settings, _images(config, session)
    example = torch.zeros(1, *images.input_shape)
    graph = pruning.trace(dense, example)
    kept = None
    if config["method"] != NO_METHOD:
        kept = _allocate(graph, scores(config, session), config, local)
    model, spec = pruning.cut(dense, graph, kept or {})
    expected, profile = _cost_report(graph, kept), costs.profile(model, images.input_shape)
    if profile.macs != expected["macs"] or profile.params != expected["params"]:
        raise TrialFailed(
            f"the pruned {config['model']} has {profile.macs} MACs and {profile.params} parameters, but its kept channels "
            f"promised {expected['macs']} and {expected['params']}"
        )
    return model, spec, expected | {"macs_counter": profile.counter, "baseline_val_accuracy": base["val_accuracy"]}


def _cost_report(graph: ChannelGraph, kept: Kept | None) -> Metrics:
    macs, params = graph.macs(kept), graph.params(kept)
    return {
        "macs": macs,
        "params": params,
        "conv_linear_macs": graph.conv_linear_macs(kept),
        "macs_ratio": macs / graph.macs(),
        "params_ratio": params / graph.params(),
        "baseline_macs": graph.macs(),
        "baseline_params": graph.params(),
    }


def _allocate(graph: ChannelGraph, ranks: dict[str, torch.Tensor], point: Config, local: Settings) -> Kept:
    return pruning.allocate(
        graph,
        ranks,
        allocation=_allocation(point, local),
        rate=point.get("rate"),
        macs_ratio=point.get("macs_ratio"),
        round_to=point.get("round_to", local.pruning.round_to),
        min_channels=local.pruning.min_channels,
    )


def _allocation(point: Config, local: Settings) -> str:
    return str(point.get("allocation") or local.pruning.allocation or METHODS[point["method"]].allocation)


def _reporter(session: Session) -> Callable[[dict[str, float], Callable[[], bytes]], None]:
    def on_epoch(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        session.save_checkpoint(checkpoint())
        session.report(record)

    return on_epoch


def _build(config: Config, session: Session, images: ImageSet) -> nn.Module:
    channels, size, _ = images.input_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.get("seed", 0))
        return models.create(
            config["model"],
            images.num_classes,
            in_channels=channels,
            input_size=size,
            **session.settings.model.given(),
        )


def _images(config: Config, session: Session) -> ImageSet:
    """The image set of a point: mapped from the object store, or loaded where the study did not share it."""
    shared = session.shared(_data_key(config, session.settings, session.data_root))
    return shared if shared is not None else _load(config["dataset"], session.settings, session.data_root, None)


def _load(name: str, local: Settings, root: Path, progress: Callable[[int, int], None] | None) -> ImageSet:
    return data.load(
        name,
        root,
        input_size=local.input_size,
        split=local.split,
        on_error=local.on_error,
        download=local.download,
        memory_share=local.memory_share,
        progress=progress,
    )


# Keys


def _data_inputs(point: Config, local: Settings, root: Path) -> Config:
    return {
        "dataset": point["dataset"],
        "fingerprint": _fingerprint(point["dataset"], str(root), local.download),
        "input_size": local.input_size,
        "split": local.split.model_dump(mode="json"),
        "on_error": local.on_error,
        "code": CODE["data"],
    }


def _data_key(point: Config, local: Settings, root: Path) -> str:
    return content_key(_data_inputs(point, local, root))


def _baseline_inputs(point: Config, local: Settings, root: Path) -> Config:
    return {
        "data": _data_inputs(point, local, root),
        "model": point["model"],
        "options": local.model.given(),
        "recipe": local.train.model_dump(mode="json"),
        "augment": local.augment.model_dump(mode="json"),
        "seed": point.get("seed", 0),
        "code": CODE["train"],
    }


def _score_key(baseline_key: str, method: str, local: Settings) -> str:
    needs = METHODS[method].needs_data
    batches = [local.pruning.score_batches, local.pruning.score_batch_size] if needs else None
    return content_key({"baseline": baseline_key, "method": method, "batches": batches, "code": CODE["score"]})


# What the driver computes again and again


def _options_text(local: Settings) -> str:
    return json.dumps(local.model.given(), sort_keys=True)


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
    if METHODS[method].needs_data:
        return {name: torch.ones(group.width) for name, group in graph.groups.items()}
    return pruning.score(_untrained(model, options, shape, classes), graph, method)


def _about_data(point: Config, local: Settings, root: Path) -> Description:
    if local.download:
        data.fetch(point["dataset"], root)
    return _about(point["dataset"], str(root), local.input_size)


@lru_cache(maxsize=32)
def _about(dataset: str, root: str, input_size: int | None) -> Description:
    return describe(dataset, root, input_size=input_size)


@lru_cache(maxsize=32)
def _seconds_per_image(
    model: str, options: str, shape: tuple[int, int, int], classes: int, batch_size: int, device: str
) -> float:
    network = _untrained(model, options, shape, classes).to(device).train()
    x = torch.randn(batch_size, *shape, device=device)
    y = torch.randint(classes, (batch_size,), device=device)
    times = []
    for _ in range(4):
        begin = time.perf_counter()
        nn.functional.cross_entropy(network(x), y).backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return float(np.median(times[1:])) / batch_size


def _latency(model: nn.Module, image: torch.Tensor, warmup: int = 10, passes: int = 50) -> list[float]:
    """Milliseconds of each forward pass."""
    times = []
    with torch.inference_mode():
        for index in range(warmup + passes):
            begin = time.perf_counter()
            model(image)
            if image.device.type == "cuda":
                torch.cuda.synchronize(image.device)
            if index >= warmup:
                times.append(1000 * (time.perf_counter() - begin))
    return times
