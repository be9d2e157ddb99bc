"""A trial's network in MLflow's model registry: an ONNX model that anybody loads by its name, without this package."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rssearch import bundle
from rssearch.bundle.files import CARD, ONNX, PREPROCESSING
from rssearch.errors import InputError
from rssearch.report.recorded import Recorded
from rssearch.storage import scratch, uris
from rssearch.tracking.client import check_recorded, opening

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

_TAGS = ("dataset", "model", "method", "val_accuracy", "test_accuracy", "val_miou", "test_miou", "macs", "params")
_STORES = ("sqlite://", "postgresql", "mysql", "mssql", "http://", "https://")


def register(found: Recorded, row: Mapping[str, Any], name: str, uri: str) -> tuple[int, bool]:
    """Register the network of a trial as a version of a model.

    The ONNX model has a signature (float32 [-1, C, H, W], normalised as its ``preprocessing.json`` says, to logits),
    an example of its input, and belongs to the run of the trial. The version has the bundle's model card as its
    description, and tags: ``rssearch.study``, ``rssearch.key``, what was asked for, qualities, MACs and parameters.

    Args:
        found: the study.
        row: the trial, see `rssearch.report.recorded.choose`.
        name: the model's; made if it is new.
        uri: the tracking store that has the study's record; its registry is used.

    Returns:
        The version, and whether it is new. A trial is registered once for each name.

    Raises:
        InputError: the name or the store is not one for a registry, the store has no run of the trial, or
            `rssearch.bundle.export` refuses it.
    """
    if not name or any(sign in name for sign in "/:'"):
        raise InputError(f"--name {name}: the name of a model must not be empty, nor contain /, : or '")
    if not uri.startswith(_STORES):
        raise InputError(
            f"--tracking-uri {uris.masked(uri)}: a model registry needs a database (sqlite:///...) or an MLflow server"
        )
    check_recorded(uri, found.storage)
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with opening(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        run = _run(client, found, row["key"], uri)
        versions = client.search_model_versions(f"name = '{name}'")
    for version in versions:
        if version.tags.get("rssearch.key") == row["key"]:
            return int(version.version), False
    with scratch.folder("rssearch-register-") as folder:
        exported = bundle.export(found, row, folder / "bundle")
        identity = _log(client, run, exported, folder / "model", row)
        card = (exported / CARD).read_text()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name,
        client.get_logged_model(identity).artifact_location,
        run_id=run.info.run_id,
        tags=_tags(found, row),
        description=card[:5000],  # MLflow's limit
        model_id=identity,
    )
    return int(version.version), True


def _run(client: MlflowClient, found: Recorded, key: str, uri: str) -> Run:
    experiment = client.get_experiment_by_name(found.study)
    runs = (
        [] if experiment is None else client.search_runs([experiment.experiment_id], f"tags.`rssearch.key` = '{key}'")
    )
    current = [run for run in runs if run.data.tags.get("rssearch.superseded") != "true"]
    if not current:
        raise InputError(
            f"MLflow at {uris.masked(uri)} has no run of trial {key} of {found.study}; `rssearch search` sends what it "
            "lacks"
        )
    return current[0]


def _log(client: MlflowClient, run: Run, exported: Path, draft: Path, row: Mapping[str, Any]) -> str:
    """Store the model beside the trial's run, and return its id. The run keeps its end: it is not opened again."""
    import mlflow.onnx
    import onnx
    from mlflow.entities import LoggedModelOutput

    size = json.loads((exported / PREPROCESSING).read_text())["input_shape"]
    example = np.random.default_rng(0).standard_normal((1, *size)).astype(np.float32)
    needed = [f"{package}=={metadata.version(package)}" for package in ("mlflow", "numpy", "onnx", "onnxruntime")]
    mlflow.onnx.save_model(
        onnx.load(exported / ONNX),
        draft,
        signature=_signature(exported / ONNX, example),
        input_example=example,
        pip_requirements=needed,
        save_as_external_data=False,
        extra_files=[str(exported / PREPROCESSING), str(exported / CARD)],
    )
    made = client.create_logged_model(
        run.info.experiment_id, "network", source_run_id=run.info.run_id, tags={"rssearch.key": row["key"]}
    )
    client.log_model_artifacts(made.model_id, str(draft))
    client.finalize_logged_model(made.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id)


def _signature(path: Path, example: np.ndarray[Any, Any]) -> ModelSignature:
    """Any number of images of the example's size, and what the network gives for them."""
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    from rssearch.cost.onnx import OnnxNetwork

    logits = OnnxNetwork(path.read_bytes())(torch.from_numpy(example))
    image, output = (
        Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))]) for shape in (example.shape[1:], logits.shape[1:])
    )
    return ModelSignature(inputs=image, outputs=output)


def _tags(found: Recorded, row: Mapping[str, Any]) -> dict[str, str]:
    asked = dict.fromkeys([*found.dimensions, *_TAGS])
    known = {name: uris.hidden(str(row[name])) for name in asked if row.get(name) is not None}
    return {"rssearch.study": found.study, "rssearch.key": row["key"], **known}
