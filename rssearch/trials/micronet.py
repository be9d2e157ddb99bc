"""One trial of an architecture search for segmentation: build an encoder-decoder, train it, measure it.

The dimensions are the options of the network: for ``micronet``, the default, the atrous rates, the levels, the base
width, the shares of the fire modules and the kind of skip. A trained network is kept as a baseline: trials of a pruning
study that ask for the same one find it, and the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from rssearch import models
from rssearch.config.schema import Search
from rssearch.config.settings import Settings
from rssearch.cost import counting as costs
from rssearch.cost import memory, precision
from rssearch.cost.activations import traced
from rssearch.cost.compute import compute
from rssearch.cost.device_latencies import predicted
from rssearch.cost.device_layers import layers
from rssearch.data import AnySet
from rssearch.errors import InputError, unknown
from rssearch.models.micronet import parse_rates
from rssearch.models.unet import Design, EncoderDecoder
from rssearch.nas import atrous
from rssearch.pruning.surgery import SPEC_FORMAT
from rssearch.scores import derived
from rssearch.trial.session import Session, point_settings
from rssearch.trials import baselines, checks, images, latency, planned, results, spending, tasks
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.planned import PlannedTrial
from rssearch.trials.point import NO_METHOD, PruningPoint

Config = dict[str, Any]
Metrics = dict[str, Any]

PLAIN = ("dataset", "model", "seed")
CASCADES = ("rates", "decoder_rates")
COST_METRICS = ("macs", "params", "conv_linear_macs", "receptive_field", "coverage", *results.FOLLOWING)
EPOCH_METRICS = tasks.measured("segmentation")
ON_REQUEST = tuple(latency.MEASURED)
PER_CLASS = tasks.PER_CLASS
METRICS = (*EPOCH_METRICS, *COST_METRICS, "train_seconds", *ON_REQUEST)


# What the driver asks


def check(point: Config, settings: Settings) -> None:
    """Refuse a point that cannot be run. Raises InputError."""
    if not isinstance(point.get("dataset"), str):
        raise InputError("space.dataset: is required, as a list of names")
    name, local = point.get("model", "micronet"), point_settings(settings, point)
    with checks.named("space.model"):
        known = [*PLAIN, *models.options_of(name)]
    for dimension in point:
        if "." not in dimension and dimension not in known:
            raise InputError(f"space: {unknown(f'dimension of {name}', dimension, known)}")
    criterion = local.options.get("cascades", "dense")
    if criterion not in get_args(atrous.Criterion):
        raise InputError(f"settings.options.cascades: {unknown('criterion', criterion, get_args(atrous.Criterion))}")
    with checks.named("space"):
        resolved = _resolved(point, settings)
    checks.check_task(resolved)
    for cascade in _cascades(_design(resolved)):
        if not atrous.fulfils(cascade, criterion):
            raise InputError(
                f"space.rates: the cascade {','.join(map(str, cascade))} reaches {atrous.coverage(cascade):.0%} of its "
                f"receptive field, and so is not {criterion!r} as settings.options.cascades asks; "
                f"it may be {', '.join(get_args(atrous.Criterion))}"
            )


def check_search(point: Config, search: Search) -> None:
    """Refuse objectives and constraints that no trial reports. Raises InputError."""
    tasks.check_search(_resolved(point, Settings()), search, METRICS)


def classes(point: Config, settings: Settings, data_root: Path) -> tuple[str, ...]:
    """The names of the classes of a point's dataset."""
    return images.classes(point["dataset"], str(data_root), settings.download)


def identity(point: Config, settings: Settings, data_root: Path) -> Config:
    """What determines a trial besides its point and settings."""
    trial = PlannedTrial(_resolved(point, settings), data_root)
    trial.check_weights()
    trial.check_training()
    return trial.keys.identity()


def epochs(point: Config, settings: Settings) -> int:
    """How many epochs a trial reports: those of its training."""
    return point_settings(settings, point).train.epochs


def share(
    points: Iterable[Config], settings: Settings, data_root: Path, progress: Callable[[str, int, int], None]
) -> dict[str, AnySet]:
    """Every set of scenes of the study, decoded once."""
    return planned.share([PlannedTrial(_resolved(point, settings), data_root) for point in points], progress)


def cost(point: Config, session: Session) -> Metrics:
    """MACs, parameters, the receptive field in pixels of the whole network, and the lowest coverage of its cascades."""
    trial = _planned(point, session)
    design, described = _design(trial.point), trial.description
    with torch.device("meta"):  # shapes alone
        network = EncoderDecoder(described.num_classes, described.input_shape[0], design)
    profile = costs.profile(network, described.input_shape)
    return {
        "macs": profile.macs,
        "params": profile.params,
        "conv_linear_macs": profile.conv_linear_macs,
        **precision.costs(profile.macs, profile.params, precision.FP32),
        results.PEAK: traced(network, described.input_shape).peak() * 4,  # bytes of float32
        "receptive_field": atrous.encoder_decoder_field(design.encoder, design.decoder),
        "coverage": min(map(atrous.coverage, _cascades(design))),
        **predicted(
            session.store, session.context.named, lambda: layers(network, described.input_shape, precision.FP32)
        ),
    }


def describe(point: Config, session: Session) -> str:
    """What a point's images are made of, and what becomes of their values."""
    return _planned(point, session).pixels


def unpruned(point: Config, session: Session) -> Metrics:
    """What hypervolumes are measured from: how many classes there are. No network is there before the search."""
    return {"classes": _planned(point, session).description.num_classes}


def estimate(point: Config, session: Session, _epochs: int) -> float:
    """Seconds of training on this machine: by the recipe of the training, as nothing is fine-tuned."""
    trial = _planned(point, session)
    recipe = trial.point.train_recipe
    return recipe.epochs * trial.epoch_seconds(recipe.batch_size, session)


# What runs on a worker


def run(config: Config, session: Session) -> Metrics:
    """Train the network of a point, and measure it."""
    began = time.perf_counter()
    trial = _opened(config, session)
    latency.measured(trial.build_model(), trial.images.input_shape, session)
    trained = baselines.baseline(trial, reported=True)
    results.keep(trial, trained.model, {"format": SPEC_FORMAT, "layers": {}})
    return {
        **{name: value for name, value in {"model": trial.point.model, "seed": 0}.items() if name not in config},
        **trained.metrics,
        **derived(trained.metrics, session.context.named),
        **cost(config, session),
        **session.static_metrics,
        spending.COMPUTE: compute(spending.baseline(trial)),
        "trial_seconds": time.perf_counter() - began,
        "split_hash": trial.images.split_hash,
        "images_skipped": len(trial.images.skipped),
    }


def measure(config: Config, session: Session) -> Metrics:
    """Quality on the whole scenes of the test split, and latencies alone on the machine."""
    return results.of_front_member(_opened(config, session))


def deploy(config: Config, session: Session) -> Metrics:
    """Put the trained network as an ONNX file into the store."""
    return results.deploy(_opened(config, session))


def footprint(config: Config, session: Session) -> Metrics:
    """What training the network of a point takes of a GPU's memory."""
    trial = _opened(config, session)
    return asdict(memory.measure(lambda: trial.rehearse([trial.point.train_recipe])))


# A point of this study as one of a pruning study


def _resolved(point: Mapping[str, Any], settings: Settings) -> PruningPoint:
    """The same network as a point of a pruning study: what it is made of stands in the options of its model.

    Raises:
        InputError: rates that cannot be read.
    """
    name = point.get("model", "micronet")
    fixed = (*PLAIN, "settings")  # what a running trial gets beside its point
    own = {option: value for option, value in point.items() if "." not in option and option not in fixed}
    own |= {option: parse_rates(str(own[option])) for option in CASCADES if own.get(option) is not None}
    networks = point_settings(settings, point).model.networks
    values = {
        **{key: value for key, value in point.items() if "." in key or key in PLAIN},
        "model": name,
        "method": NO_METHOD,
        "model.networks": {**networks, name: {**networks.get(name, {}), **own}},
    }
    return PruningPoint(values, settings)


def _planned(point: Config, session: Session) -> PlannedTrial:
    return PlannedTrial(_resolved(point, session.context.settings), session.data_root)


def _opened(config: Config, session: Session) -> NetworkTrial:
    return NetworkTrial(_resolved(config, session.context.settings), session)


def _design(point: PruningPoint) -> Design:
    return models.design_of(point.model, point.options)


def _cascades(design: Design) -> list[tuple[int, ...]]:
    return [cascade for cascade in (*design.encoder, *design.decoder) if cascade]
