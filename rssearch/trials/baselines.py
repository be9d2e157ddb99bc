"""The baselines and scores that trials share: found by their content, trained or computed once.

What a trial needs is named by a plain point: ``dataset``, ``model``, ``seed``, and ``method`` for scores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from rssearch import data, models, pruning
from rssearch.config.schema import Recipe, Settings
from rssearch.config.space import content_key
from rssearch.cost import counting as costs
from rssearch.data import AnySet, loader
from rssearch.errors import InputError
from rssearch.pruning import ChannelGraph, Elasticity, Method
from rssearch.storage.artifacts import Files
from rssearch.train.data_parallel import ALONE
from rssearch.train.loop import OnEpoch, evaluate, fit
from rssearch.trial import turns
from rssearch.trial.session import Session

Config = dict[str, Any]
Metrics = dict[str, Any]

BASELINES, SCORES = "baselines", "scores"
NO_METHOD, CHANNEL_NAS = "none", "channel_nas"  # what a study may name beside the registry of methods
# Raise a number when that part computes something else than before: what the old code computed is then not reused.
CODE = {"data": 1, "train": 2, "score": 2, "search": 1, "cut": 1}


def method_of(point: Config) -> Method | None:
    """The pruning method of a point; None where nothing is scored. Raises InputError for an unknown one."""
    name = point["method"]
    return None if name in (NO_METHOD, CHANNEL_NAS) else pruning.get_method(name)


# Keys


def own_code(model: str | None = None, method: str | None = None) -> Config:
    """What a key holds of code of one's own: nothing where networks and methods are those of the registries."""
    found = {"model": model and models.code_of(model), "method": method and pruning.code_of(method)}
    own = {name: code for name, code in found.items() if code}
    return {"own_code": own} if own else {}


def data_inputs(point: Config, local: Settings, root: Path) -> Config:
    """What determines an image set."""
    cut = data.task(point["dataset"]) == "segmentation"
    return {
        "dataset": point["dataset"],
        "fingerprint": fingerprint(point["dataset"], str(root), local.download),
        "input_size": local.input_size,
        "split": local.split.model_dump(mode="json"),
        "on_error": local.on_error,
        **({"patches": local.patches.model_dump(mode="json")} if cut else {}),
        "code": CODE["data"],
    }


def data_key(point: Config, local: Settings, root: Path) -> str:
    """The name of an image set among a study's shared objects."""
    return content_key(data_inputs(point, local, root))


def train_recipe(point: Config, local: Settings) -> Recipe:
    """How the baseline of a point is trained: by the study's recipe, with what the method changes in it."""
    method = method_of(point)
    return _changed(local.train, method.train) if method else local.train


def finetune_recipe(point: Config, local: Settings) -> Recipe:
    """How the pruned network of a point is fine-tuned."""
    method = method_of(point)
    return _changed(local.finetune, method.finetune) if method else local.finetune


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """A recipe with a method's changes, where the study leaves the default."""
    defaults = {name: field.default for name, field in Recipe.model_fields.items()}
    changes = {name: value for name, value in changes.items() if getattr(recipe, name) == defaults[name]}
    try:
        return Recipe.model_validate(recipe.model_dump() | changes)
    except ValidationError as error:
        reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        wanted = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise InputError(f"the method needs {wanted}, which the study's recipe does not allow: {reasons}") from None


def baseline_inputs(point: Config, local: Settings, root: Path) -> Config:
    """What determines a baseline."""
    return {
        "data": data_inputs(point, local, root),
        "model": point["model"],
        "options": local.model.given(point["model"]),
        "recipe": train_recipe(point, local).model_dump(mode="json"),
        "augment": local.augment.model_dump(mode="json"),
        "seed": point.get("seed", 0),
        "code": CODE["train"],
        **own_code(point["model"]),
    }


def options_text(point: Config, local: Settings) -> str:
    """The options of a point's network as JSON, for what is kept by its arguments."""
    return json.dumps(local.model.given(point["model"]), sort_keys=True)


def score_key(baseline_key: str, method: str, local: Settings) -> str:
    """The key of a baseline's scores by a method."""
    needs = pruning.get_method(method).needs_data
    batches = [local.pruning.score_batches, local.pruning.score_batch_size] if needs else None
    options = local.pruning.options.get(method, {})
    inputs = {"baseline": baseline_key, "method": method, "options": options, "batches": batches}
    return content_key({**inputs, "code": CODE["score"], **own_code(method=method)})


@lru_cache(maxsize=64)
def fingerprint(name: str, root: str, download: bool) -> str:
    """The content listing of a dataset, read once; fetched first where the study says so."""
    if download:
        data.fetch(name, root)
    return data.fingerprint(name, root)


# Images


def build_model(config: Config, session: Session, images: AnySet) -> nn.Module:
    """The network of a point with its seeded initial parameters."""
    channels, size, _ = images.input_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.get("seed", 0))
        return models.create(
            config["model"],
            images.num_classes,
            in_channels=channels,
            input_size=size,
            **session.settings.model.given(config["model"]),
        )


def images_of(config: Config, session: Session) -> AnySet:
    """The image set of a point: mapped from the object store, or loaded where the study did not share it."""
    shared: AnySet | None = session.shared(data_key(config, session.settings, session.data_root))
    if shared is not None:
        return shared
    share = max(1, int(session.context.cpus))
    return load_images(config["dataset"], session.settings, session.data_root, None, workers=share)


def load_images(
    name: str, local: Settings, root: Path, progress: Callable[[int, int], None] | None, workers: int | None = None
) -> AnySet:
    """Decode an image set as the settings say, in so many threads; None takes all CPUs of the process."""
    return data.load(
        name,
        root,
        input_size=local.input_size,
        split=local.split,
        patches=local.patches,
        on_error=local.on_error,
        download=local.download,
        memory_share=local.memory_share,
        workers=workers,
        progress=progress,
    )


# Baselines and scores


def baseline(config: Config, session: Session, *, reported: bool = False) -> tuple[nn.Module, Metrics]:
    """The trained, unpruned network of a point, from the store or trained now; and its metrics.

    If it is `reported`, the epochs of a training are reported as the session's own.
    """
    files = _baseline_files(config, session, reported=reported)
    model = build_model(config, session, images_of(config, session))
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    return model, json.loads(files["metrics.json"])


def _baseline_files(config: Config, session: Session, *, reported: bool = False) -> Files:
    inputs = baseline_inputs(config, session.settings, session.data_root)
    key = content_key(inputs)
    return session.store.get_or_build(BASELINES, key, lambda: _train_baseline(config, session, key, inputs, reported))


def _train_baseline(config: Config, session: Session, key: str, inputs: Config, reported: bool) -> Files:
    images, recipe = images_of(config, session), train_recipe(config, session.settings)
    model = build_model(config, session, images)
    elasticity = Elasticity(model)
    # A baseline has a checkpoint of its own, under its own key: whichever trial trains it, another can go on with it.
    # Its epochs are reported as its own preparation's, not as those of a pruning trial that had to train it.
    own = f"baseline-{key}"
    keeper = Session(session.context, own, {}, session.report if reported or session.key == own else None)
    resume, on_epoch = keeper.load_checkpoint(), reporter(keeper)
    history = train(config, session, model, recipe, resume=resume, on_epoch=on_epoch, elasticity=elasticity)
    measured = evaluate(model, images.split("val"), batch_size=recipe.batch_size, device=session.device)
    keeper.drop_checkpoint()
    profile = costs.profile(model, images.input_shape)
    measured = {f"val_{name}": value for name, value in measured.items()}
    # Folding the attention changes the network: the accuracy to compare with is that of the trained one.
    folded = {f"folded_{name}": value for name, value in measured.items() if recipe.attention}
    metrics = {
        **({name: history[-1][name] for name in measured} if recipe.attention else measured),
        **folded,
        "macs": profile.macs,
        "params": profile.params,
        "train_seconds": sum(epoch["seconds"] for epoch in history),
        "history": history,
    }
    weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    return {
        "model.safetensors": save_tensors(weights),
        "elasticity.safetensors": save_tensors(elasticity.values()),
        "metrics.json": json.dumps(metrics).encode(),
        "inputs.json": json.dumps(inputs, indent=1).encode(),
    }


def train(config: Config, session: Session, model: nn.Module, recipe: Recipe, **more: Any) -> list[dict[str, float]]:
    """Train a network of a point in place; `more` is what `rssearch.train.fit` takes beside data, seed and device.

    The other workers of a trial get what they need to train along.
    """
    images, settings, crew = images_of(config, session), session.settings, session.context.crew or ALONE
    crew.call(train, config, model=model, recipe=recipe, **{n: more[n] for n in ("teacher", "resume") if n in more})
    on_epoch = more.pop("on_epoch", None)
    with in_turns(session, on_epoch) as then:
        return fit(
            model,
            images.split("train"),
            images.split("val"),
            recipe,
            augment=settings.augment,
            seed=config.get("seed", 0),
            device=session.device,
            micro_batches=session.micro_batches,
            crew=crew,
            on_epoch=then,
            **more,
        )


@contextmanager
def in_turns(session: Session, on_epoch: OnEpoch | None) -> Iterator[OnEpoch | None]:
    """Have a share of the machine where the study's trials measure, and give way after each epoch.

    Of the workers of one trial the leader's share alone counts: the others wait for it in their first step.
    """
    if not session.context.requested or not (session.context.crew or ALONE).leads:
        yield on_epoch
        return
    with turns.training() as give_way:

        def then(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
            if on_epoch is not None:
                on_epoch(record, checkpoint)
            give_way()

        yield then


def rehearse(config: Config, session: Session, recipes: Sequence[Recipe]) -> None:
    """Take a few steps by each recipe with the whole network of a point, and keep nothing."""
    images, settings = images_of(config, session).split("train"), session.settings
    for recipe in recipes:
        if recipe.epochs == 0:
            continue
        few = images.part(np.arange(min(len(images), 3 * recipe.batch_size)))
        model, teacher = (build_model(config, session, images_of(config, session)) for _ in range(2))
        fit(
            model,
            few,
            few,
            recipe.model_copy(update={"epochs": 1, "recalibrate_batches": 0}),
            augment=settings.augment,
            seed=0,
            device=session.device,
            teacher=teacher if recipe.distill > 0 else None,
            elasticity=Elasticity(model),
        )


def scores(config: Config, session: Session) -> dict[str, torch.Tensor]:
    """The scores of every channel of a point's baseline by its method, from the store or computed now."""
    key = content_key(baseline_inputs(config, session.settings, session.data_root))

    def build() -> Files:
        model, _ = baseline(config, session)
        elasticity = load_tensors(_baseline_files(config, session)["elasticity.safetensors"])
        _, result = score_now(config, session, model, elasticity)
        return {"scores.safetensors": save_tensors({name: value.contiguous() for name, value in result.items()})}

    files = session.store.get_or_build(SCORES, score_key(key, config["method"], session.settings), build)
    return load_tensors(files["scores.safetensors"])


def score_now(
    config: Config, session: Session, model: nn.Module, elasticity: Mapping[str, torch.Tensor]
) -> tuple[ChannelGraph, dict[str, torch.Tensor]]:
    """The graph and the scores of a network by a point's method, on the first batches of the training split."""
    local, images, seed = session.settings, images_of(config, session), config.get("seed", 0)
    model.to(session.device).eval()
    batches = loader.batches(
        images.split("train"), local.pruning.score_batch_size, device=session.device, train=True, seed=seed
    )
    few = islice(batches, local.pruning.score_batches)
    graph = pruning.trace(model, torch.zeros(1, *images.input_shape, device=session.device))
    method = config["method"]
    options = local.pruning.options.get(method, {})
    return graph, pruning.score(model, graph, method, data=few, seed=seed, elasticity=elasticity or None, **options)


def reporter(session: Session) -> Callable[[dict[str, float], Callable[[], bytes]], None]:
    """What `fit` calls after each epoch: keeps the checkpoint, then tells the study."""

    def on_epoch(record: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        session.save_checkpoint(checkpoint())
        session.report(record)

    return on_epoch
