"""What a trial reports at its end and keeps of its network, and what only members of the front are measured for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import nn

from rssearch import pruning
from rssearch.config.space import content_key
from rssearch.cost import counting
from rssearch.cost.activations import traced
from rssearch.cost.compute import Work
from rssearch.cost.device_latencies import LAYERS, layers_file, predicted
from rssearch.cost.device_layers import layers
from rssearch.cost.onnx import OnnxNetwork, to_onnx
from rssearch.cost.precision import BITS, costs
from rssearch.errors import TrialFailed
from rssearch.models.weights import to_bytes
from rssearch.pruning.picture import sensitivities_png
from rssearch.pruning.surgery import kept_by
from rssearch.report.members import SENSITIVITY
from rssearch.scores import PER_CLASS, derived
from rssearch.storage.artifacts import Files
from rssearch.trial.interface import CONVERTED, DEPLOYED, MEMBERS, PREDICTIONS
from rssearch.trials import latency, normalisation, spending, tasks
from rssearch.trials.baselines import SPARSITY
from rssearch.trials.finetune import FineTuned, Spec
from rssearch.trials.network_trial import NetworkTrial
from rssearch.trials.pruning_trial import PruningTrial

Metrics = dict[str, Any]

# Where they lie in the store: trained networks, each by its trial's key, and what baselines measured.
MODELS, MEASURED_BASELINES = "models", "measured_baselines"
BYTES = "bytes"  # of the weights as they lie on disk, or of the ONNX model that is deployed in fewer bits
PEAK = "peak_activation_bytes"
FOLLOWING = ("weight_bytes", PEAK, "bops")  # costs that follow from the widths and the bits of a precision
COUNTED = f"test_{PER_CLASS}"
SURE = (BYTES, f"baseline_{BYTES}", COUNTED)  # what a member of a pruning study's front is measured for in any case


def of_pruning(trial: PruningTrial, tuned: FineTuned) -> Metrics:
    """The metrics of a pruned and fine-tuned network."""
    images, graph = trial.images, trial.graph
    macs = graph.macs(kept_by(graph, tuned.spec))
    validated = Work(macs, len(images.split("val")))
    return {
        **({} if "seed" in trial.point.values else {"seed": 0}),
        **trial.validate(tuned.model, trial.settings.finetune.batch_size),
        **_cost(trial, tuned),
        **trial.session.static_metrics,
        **({} if trial.point.is_untrained else _of_baseline(trial, trial.baseline.metrics)),
        **spending.reported(None if tuned.work is None else [*tuned.work, validated], trial),
        **spending.from_scratch(trial, macs),
        "train_seconds": sum(epoch["seconds"] for epoch in tuned.history),
        "trial_seconds": time.perf_counter() - trial.began,
        "split_hash": images.split_hash,
        "images_skipped": len(images.skipped),
        "history": tuned.history,
    }


def _of_baseline(trial: PruningTrial, metrics: Metrics) -> Metrics:
    """What the baseline reaches on the validation split, as far as it is known of it; and how sparse it was made."""
    names = (*tasks.QUALITIES[trial.images.task], *trial.per_class, PER_CLASS)
    known = metrics | derived(metrics, [f"val_{name}" for name in trial.per_class])
    found = {f"baseline_val_{name}": known[f"val_{name}"] for name in names if f"val_{name}" in known}
    sparse = {f"baseline_{SPARSITY}": metrics[SPARSITY]} if SPARSITY in metrics else {}
    return found | sparse | {"baseline_id": trial.keys.baseline_id}


def _cost(trial: NetworkTrial, tuned: FineTuned) -> Metrics:
    """What the network costs, counted on it and from its kept channels."""
    graph = trial.graph
    promised = pruning.cost_report(graph, kept_by(graph, tuned.spec))
    profile = counting.profile(tuned.model, trial.images.input_shape)
    if profile.macs != promised["macs"] or profile.params != promised["params"]:
        raise TrialFailed(
            f"the pruned {trial.point.model} has {profile.macs} MACs and {profile.params} parameters, but its kept "
            f"channels promised {promised['macs']} and {promised['params']}"
        )
    uncounted = {"macs_uncounted": ", ".join(profile.uncounted)} if profile.uncounted else {}
    precision, session, shape = trial.point.precision, trial.session, trial.images.input_shape
    return {
        **promised,
        "macs_counter": profile.counter,
        **uncounted,
        **costs(profile.macs, profile.params, precision),
        BYTES: len(to_bytes(tuned.model)),
        PEAK: traced(tuned.model, shape).peak() * BITS[precision].activation // 8,
        **predicted(session.store, session.context.named, lambda: layers(tuned.model, shape, precision)),
    }


def keep(trial: NetworkTrial, model: nn.Module, spec: Spec, more: Mapping[str, bytes] | None = None) -> None:
    """Put a trained network into the store, with what a member of the front and an export need, and `more` files."""
    about = {
        "model": trial.point.model,
        "options": trial.point.options,
        "normalize": normalisation.name_of(trial.point),
    }
    about |= tasks.deployment(trial.images)
    files = {
        "model.safetensors": to_bytes(model),
        "spec.json": json.dumps(spec).encode(),
        "about.json": json.dumps(about).encode(),
        **(more or {}),
    }
    trial.session.store.put(MODELS, trial.session.key, files)


def of_front_member(trial: NetworkTrial, more: Mapping[str, bytes] | None = None) -> Metrics:
    """Quality on the test split, size, and the latencies of `settings.latency` alone on the machine.

    In the store it leaves the files of `rssearch.report.members` and `more` of them, and of a network for segmentation
    a picture of its predictions.
    """
    images, session = trial.images, trial.session
    model, size, device = _kept(trial)
    model = model.to(device).eval()
    batch_size = trial.settings.finetune.batch_size
    result, files = tasks.tested(model, images, batch_size, device)
    if files := {**files, **(more or {})}:
        session.store.put(MEMBERS, session.key, files)
    if picture := tasks.picture(model, images, batch_size, device):
        session.store.put(PREDICTIONS, session.key, {"predictions.png": picture})
    return result | {BYTES: size} | latency.of_front(model, images.input_shape, session, device)


def deploy(trial: NetworkTrial) -> Metrics:
    """Put a trained network as an ONNX file into the store, for devices to measure, and what layers it has."""
    files, shape = _files(trial), trial.images.input_shape
    model = _rebuilt(trial, files)
    content = files.get(CONVERTED) or to_onnx(model, shape)
    described = layers_file(layers(model, shape, trial.point.precision))
    trial.session.store.put(DEPLOYED, trial.session.key, {"model.onnx": content, LAYERS: described})
    return {"onnx_bytes": len(content)}


def of_its_baseline(trial: PruningTrial) -> Metrics:
    """The same of the baseline of a front's member, as ``baseline_<metric>``.

    Measured once for each study, kind of machine and list of latencies, and kept in the store for the other members.
    Of a trial without a baseline it is the size alone.
    """
    session, point = trial.session, trial.point
    if point.is_untrained:
        return {f"baseline_{BYTES}": len(to_bytes(trial.dense))}
    key = content_key(
        {
            "baseline": trial.keys.baseline,
            "study": session.context.study,
            "machine": latency.machine(session),
            "latencies": latency.of_baseline_names(session),
            "counts": 1,
        }
    )

    def build() -> Files:
        model = trial.baseline.model.to(trial.device).eval()
        found, details = tasks.tested(model, trial.images, trial.settings.finetune.batch_size, trial.device)
        if details:
            session.store.put(MEMBERS, trial.keys.baseline_member, details)
        if point.train_recipe.attention:  # what was trained is not kept: the network is there with its attention folded
            found = {f"folded_{name}": value for name, value in found.items()}
        found |= {BYTES: len(to_bytes(model))} | latency.of_baseline(model, trial.images.input_shape, session)
        return {"metrics.json": json.dumps(found).encode()}

    files = session.store.get_or_build(MEASURED_BASELINES, key, build)
    found = {f"baseline_{name}": value for name, value in json.loads(files["metrics.json"]).items()}
    known = {"baseline_id": trial.keys.baseline_id}
    tested = session.store.has(MEMBERS, trial.keys.baseline_member)
    return found | known | ({"baseline_key": trial.keys.baseline_member} if tested else {})


def sensitivity_picture(trial: PruningTrial) -> dict[str, bytes]:
    """What the widths of a kept network follow from, as a file of a member; none where it is not by sensitivities."""
    files = trial.session.store.get(MODELS, trial.session.key)
    if trial.sensitivities is None or files is None:
        return {}
    kept = kept_by(trial.graph, json.loads(files["spec.json"]))
    return {SENSITIVITY: sensitivities_png(trial.sensitivities, kept)}


def _kept(trial: NetworkTrial) -> tuple[nn.Module, int, torch.device]:
    """The network that `keep` has put into the store, how many bytes it has, and where it runs.

    Raises TrialFailed if it is gone.
    """
    files = _files(trial)
    if (content := files.get(CONVERTED)) is not None:
        return OnnxNetwork(content), len(content), torch.device("cpu")
    return _rebuilt(trial, files), len(files["model.safetensors"]), trial.device


def _files(trial: NetworkTrial) -> Files:
    files = trial.session.store.get(MODELS, trial.session.key)
    if files is None:
        raise TrialFailed(f"the weights of {trial.session.key} are gone from the store")
    return files


def _rebuilt(trial: NetworkTrial, files: Files) -> nn.Module:
    """The network in float32."""
    model = pruning.apply_spec(trial.build_model(), json.loads(files["spec.json"]))
    model.load_state_dict(load_tensors(files["model.safetensors"]))
    return model
