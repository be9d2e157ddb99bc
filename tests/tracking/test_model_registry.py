"""rssearch.tracking.model_registry: what is loaded from MLflow's registry computes what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save as save_tensors

from rssearch import models, pruning
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.tracking.client import Tracker, check_recorded, default_uri
from tests.support.commands import refused, run
from tests.tracking.test_client import record

KEY = "0123456789abcdef"
CLASSES = ["forest", "lake", "road"]


@pytest.fixture
def network() -> pruning.PrunedModel:
    torch.manual_seed(0)
    model = models.create("resnet20", len(CLASSES))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))  # BN statistics of its own
    return pruning.prune(model.eval(), torch.zeros(1, 3, 32, 32), "l1", rate=0.7)


@pytest.fixture
def storage(tmp_path: Path, network: pruning.PrunedModel) -> Path:
    """A study of one trial, as a search leaves it."""
    about = {"model": "resnet20", "options": {}, "classes": CLASSES, "input_shape": [3, 32, 32]}
    Store(tmp_path).put(
        "models",
        KEY,
        {
            "model.safetensors": save_tensors({n: t.contiguous() for n, t in network.model.state_dict().items()}),
            "spec.json": json.dumps(network.spec).encode(),
            "about.json": json.dumps(about | {"mean": [0.3, 0.4, 0.5], "std": [0.1, 0.2, 0.25]}).encode(),
        },
    )
    folder = tmp_path / "scenes"
    folder.mkdir()
    space = {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["l1"], "rate": [0.7]}
    settings = {"input_size": 32}
    document = {"study": "scenes", "trial": "trials.prune:run", "space": space, "settings": settings}
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    (folder / "trials.csv").write_text(f"key\n{KEY}\n")
    point = {"dataset": "synthetic_scenes", "model": "resnet20", "method": "l1", "rate": 0.7}
    metrics = {"val_accuracy": 0.9125, "macs": 10_600_000, "params": 68_100}
    done = record(KEY, point=point, metrics=metrics, measured={"test_accuracy": 0.9}, reason=None)
    Journal(folder / "trials.jsonl").add(done)
    tracker = Tracker(default_uri(tmp_path), "scenes", tmp_path / "mlartifacts" / "scenes")
    tracker.open()
    assert tracker.close([done], status="FINISHED", pareto=[KEY]) == 0
    return tmp_path


def client(storage: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=default_uri(storage), registry_uri=default_uri(storage))


@pytest.mark.slow
def test_a_network_is_loaded_by_its_name(
    storage: Path, network: pruning.PrunedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    (before,) = client(storage).search_runs(["1"], f"tags.`rssearch.key` = '{KEY}'")
    done = run("register", "scenes", "--storage", str(storage), "--name", "lakes")
    assert (done.status, done.out) == (0, f"models:/lakes/1: trial {KEY}\n"), done
    version = client(storage).get_model_version("lakes", "1")
    expected = {"rssearch.study": "scenes", "rssearch.key": KEY, "val_accuracy": "0.9125", "test_accuracy": "0.9"}
    expected |= {"macs": "10600000", "params": "68100", "method": "l1", "rate": "0.7", "model": "resnet20"}
    assert version.tags == expected | {"dataset": "synthetic_scenes"}
    assert version.description.startswith("# resnet20")
    assert version.run_id == before.info.run_id
    (after,) = client(storage).search_runs(["1"], f"tags.`rssearch.key` = '{KEY}'")
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)
    (logged,) = [client(storage).get_logged_model(output.model_id) for output in after.outputs.model_outputs]
    assert (logged.artifact_location, logged.status, logged.source_run_id) == (version.source, "READY", version.run_id)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(storage))
    loaded = mlflow.pyfunc.load_model("models:/lakes/1")
    images = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        truth = network.model(images).numpy()
    assert np.abs(loaded.predict(images.numpy())["logits"] - truth).max() < 1e-4
    assert loaded.metadata.signature.inputs.inputs[0].shape == (-1, 3, 32, 32)
    assert loaded.metadata.signature.outputs.inputs[0].shape == (-1, len(CLASSES))
    assert loaded.input_example.shape == (1, 3, 32, 32)

    again = run("register", "scenes", "--storage", str(storage), "--name", "lakes", "--trial", KEY[:6])
    assert again.out == f"models:/lakes/1: trial {KEY} (registered before)\n"
    assert len(client(storage).search_model_versions("name = 'lakes'")) == 1

    moved = storage.rename(storage.with_name(f"{storage.name}-moved"))
    check_recorded(default_uri(moved), moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_uri(moved))
    loaded = mlflow.pyfunc.load_model("models:/lakes/1")
    assert np.abs(loaded.predict(images.numpy())["logits"] - truth).max() < 1e-4
    assert client(moved).get_model_version("lakes", "1").source.startswith(moved.as_uri())
    assert not storage.exists()


def test_what_no_registry_takes_is_told(storage: Path, tmp_path: Path) -> None:
    command = ("register", "scenes", "--storage", str(storage))
    refused(run(*command, "--name", "a/b"), "--name a/b", "must not be empty, nor contain /")
    refused(run(*command, "--tracking-uri", "./mlruns"), "./mlruns", "a database (sqlite:///...) or an MLflow server")
    refused(run(*command, "--tracking-uri", f"sqlite:///{tmp_path}/none.db"), "there is no MLflow record")
    refused(run(*command, "--trial", "ffff"), "none of the finished trials of scenes begin so")
    client(storage).delete_run(client(storage).search_runs(["1"], f"tags.`rssearch.key` = '{KEY}'")[0].info.run_id)
    refused(run(*command), f"has no run of trial {KEY} of scenes")
    assert client(storage).search_registered_models() == []
