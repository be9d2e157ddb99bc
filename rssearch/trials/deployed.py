"""Trials whose network is deployed in fewer bits: what they report is what onnxruntime computes in these bits.

Trials that differ in their precision alone share their fine-tuning. ``fp16``, ``bf16`` and ``int8`` convert the
network; ``int8_qat`` first trains it a little further while weights and maps are rounded, see
`rssearch.train.quantisation`, unless its loss on the validation split is lower without. How a network gets into 8 bits
is in `rssearch.cost.int8`. The ranges of the activations come from training images, by the way that has the lowest loss
on the validation split.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from rssearch import pruning
from rssearch.cost.compute import Work
from rssearch.cost.int8 import CALIBRATIONS, to_int8
from rssearch.cost.onnx import OnnxNetwork, to_onnx
from rssearch.cost.precision import FP32
from rssearch.data import loader
from rssearch.models.weights import to_bytes
from rssearch.pruning.surgery import kept_by
from rssearch.scores import PER_CLASS
from rssearch.storage.artifacts import Files
from rssearch.train.evaluation import measured
from rssearch.train.quantisation import QuantisationAware
from rssearch.trial.interface import CONVERTED
from rssearch.trials import results, spending
from rssearch.trials.finetune import FineTuned, OnShape, prune_and_finetune
from rssearch.trials.keys import FINETUNED
from rssearch.trials.network_trial import reporter
from rssearch.trials.pruning_trial import PruningTrial

Metrics = dict[str, Any]

CPU = torch.device("cpu")
_CALIBRATION = 256  # training images that give the ranges
_VALUES = 2**22  # of these images at most: onnxruntime holds all of their maps at once


def run(trial: PruningTrial, on_shape: OnShape) -> Metrics:
    """Prune and fine-tune, or take what another precision has; convert the network, keep it, and measure it.

    Its metrics are those of the converted network; those of the network in float32 are there as ``fp32_<metric>``.
    """
    precision, tuned = trial.point.precision, _tuned(trial)
    if precision == FP32:
        on_shape(tuned.model)
    before = results.of_pruning(trial, tuned)
    before |= spending.with_shared(before, f"finetuned-{trial.keys.finetuned}", tuned.work)
    if precision == FP32:
        results.keep(trial, tuned.model, tuned.spec)
        return before
    model, work = tuned.model, list[Work]()
    content, about, found = _converted(trial, model)
    if precision == "int8_qat":
        trained, work = _trained_in_8_bits(trial, tuned)
        converted = _converted(trial, trained, learned=True)
        if helped := converted[2]["val_loss"] <= found["val_loss"]:
            model, (content, about, found) = trained, converted
        about["qat_epochs"] = trial.settings.qat.epochs if helped else 0
    on_shape(OnnxNetwork(content))
    results.keep(trial, model, tuned.spec, {CONVERTED: content})
    was = {f"fp32_{name}": before[name] for name in found if not name.endswith(PER_CLASS)}
    size = {results.BYTES: len(content)}
    return before | was | found | about | size | trial.session.static_metrics | spending.added(before, work)


def _tuned(trial: PruningTrial) -> FineTuned:
    """The fine-tuned network in float32, from the store or made now; its own epochs are reported by whom makes it."""
    key = trial.keys.finetuned

    def build() -> Files:
        session = trial.shared_session(key, reported=True)
        found = prune_and_finetune(PruningTrial(trial.point, session))
        session.drop_checkpoint()
        about = {"spec": found.spec, "history": found.history, "work": found.work}
        return {"model.safetensors": to_bytes(found.model), "about.json": json.dumps(about).encode()}

    files = trial.session.store.get_or_build(FINETUNED, key, build)
    about = json.loads(files["about.json"])
    model = pruning.apply_spec(trial.build_model(), about["spec"])
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    work = None if about["work"] is None else [Work(*each) for each in about["work"]]
    return FineTuned(model.to(trial.device).eval(), about["spec"], about["history"], work)


def _trained_in_8_bits(trial: PruningTrial, tuned: FineTuned) -> tuple[nn.Module, list[Work]]:
    settings, macs = trial.settings.qat, trial.graph.macs(kept_by(trial.graph, tuned.spec))
    changes = {"epochs": settings.epochs, "lr": settings.lr, "distill": settings.distill}
    plain = {"recalibrate_batches": 0, "bn_l1": 0.0, "attention": False, "warmup_epochs": 0.0}
    recipe = trial.point.finetune_recipe.model_copy(update=changes | plain)
    model = copy.deepcopy(tuned.model)
    trial.train(
        model,
        recipe,
        teacher=tuned.model if settings.distill > 0 else None,
        resume=trial.session.load_checkpoint(),
        on_epoch=reporter(trial.session),
        objective=QuantisationAware(),
    )
    images = recipe.epochs * len(trial.images.split("train"))
    taught = [Work(macs, images)] if settings.distill > 0 else []
    return model.eval(), [*spending.training(trial, macs, recipe), *taught]


def _converted(trial: PruningTrial, model: nn.Module, *, learned: bool = False) -> tuple[bytes, Metrics, Metrics]:
    """The ONNX model that is deployed, how it was quantised, and what it reaches on the validation split."""
    content = to_onnx(model, trial.images.input_shape)
    if trial.point.precision in ("fp16", "bf16"):
        from rssearch.cost.onnx_variants import to_bf16, to_fp16

        content = (to_fp16 if trial.point.precision == "fp16" else to_bf16)(content)
        return content, {}, _validated(trial, content)
    made = to_int8(content, _calibration(trial), CALIBRATIONS, learned=learned)
    found = {how: _validated(trial, each) for how, each in made.items()}
    best = min(found, key=lambda how: found[how]["val_loss"])
    return made[best], {"calibration": best}, found[best]


def _calibration(trial: PruningTrial) -> Iterator[Tensor]:
    most = max(8, min(_CALIBRATION, _VALUES // math.prod(trial.images.input_shape)))
    size = min(32, most, len(trial.images.split("train")))
    batches = loader.batches(trial.images.split("train"), size, device=CPU, train=True, seed=trial.point.seed)
    whole = (images for images, _ in batches if len(images) == size)  # histograms are made of equal batches
    return islice(whole, max(1, most // size))


def _validated(trial: PruningTrial, content: bytes) -> Metrics:
    batch_size = trial.settings.finetune.batch_size
    scores = measured(
        OnnxNetwork(content), trial.images.split("val"), batch_size=batch_size, device=CPU, precision="fp32"
    )
    found = {**scores.metrics(trial.per_class), PER_CLASS: scores.per_class.to_json()}
    return {f"val_{name}": value for name, value in found.items()}
