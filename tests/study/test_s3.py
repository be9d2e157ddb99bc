"""A whole study in a bucket: a driver that is killed, the same command again, its front and an export."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import save as save_tensors

from rssearch import bundle, models, pruning
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.storage.location import locate, names
from tests.study.test_resume import TRIALS, children_end, epochs, start, wait_for_epochs, write_study
from tests.support import commands
from tests.support.buckets import s3

__all__ = ["s3"]

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def put_network(storage: str, key: str) -> None:
    """The weights of a trial, as a pruning study keeps them."""
    made = pruning.prune(models.create("resnet20", 2), torch.zeros(1, 3, 32, 32), "l1", rate=0.5)
    about = {"model": "resnet20", "options": {}, "classes": ["a", "b"], "input_shape": [3, 32, 32]}
    files = {
        "model.safetensors": save_tensors({n: t.contiguous() for n, t in made.model.state_dict().items()}),
        "spec.json": json.dumps(made.spec).encode(),
        "about.json": json.dumps(about | {"mean": [0.5] * 3, "std": [0.2] * 3}).encode(),
    }
    Store(storage).put("models", key, files)


def test_a_killed_study_in_a_bucket_goes_on_and_can_be_read(s3: str, tmp_path: Path) -> None:
    storage, path = f"{s3}/results", write_study(tmp_path, seconds=0.4)
    document = yaml.safe_load(path.read_text()) | {"storage": storage}
    path.write_text(yaml.safe_dump(document))
    commands.refused(commands.run("search", str(path)), "tracking_uri: ", "--tracking-uri", storage)
    path.write_text(yaml.safe_dump(document | {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}))
    folder = locate(storage) / "s"

    process = start(path)
    wait_for_epochs(tmp_path, 7, process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    children_end(family)
    before, seen = set(Journal(folder / "trials.jsonl").records), len(epochs(tmp_path))
    assert Store(storage).keys("checkpoints"), "the kill was to interrupt a trial"

    process = start(path)
    assert process.wait(timeout=400) == 0, (tmp_path / "console.log").read_text()
    records = Journal(folder / "trials.jsonl").records
    assert len(records) == TRIALS
    assert {record.status for record in records.values()} == {"finished"}
    assert not before & {key for key, _ in epochs(tmp_path)[seen:]}, "a finished trial ran again"
    times = Counter(epochs(tmp_path))
    assert sum(times.values()) - len(times) <= 2, "a kill costs at most the epoch in progress of two trials"
    assert any(record.metrics["resumed_from"] > 0 for record in records.values())
    assert Store(storage).keys("checkpoints") == []
    assert not (folder / ".lock").is_file()

    rows = list(csv.DictReader(io.StringIO((folder / "trials.csv").read_text())))
    assert {row["key"] for row in rows} == set(records)
    wanted = {"environment.json", "front.csv", "front.html", "front.json", "front.png", "study.yaml", "trials.csv"}
    assert wanted <= set(names(folder))
    assert not (tmp_path / "results").exists(), "nothing is written beside the bucket"

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("s").experiment_id])
    runs = {kind: [r for r in found if r.data.tags["rssearch.kind"] == kind] for kind in ("trial", "study")}
    assert sorted(r.data.tags["rssearch.key"] for r in runs["trial"]) == sorted(records)
    attached = {file.path for file in client.list_artifacts(runs["study"][0].info.run_id)}
    assert wanted <= attached

    shown = commands.run("front", "s", "--storage", storage, "--format", "json")
    assert shown.status == 0, shown.err
    knee = json.loads(shown.out)["fronts"][0]["knee"]
    assert knee in records
    missing = commands.run("front", "t", "--storage", storage)
    commands.refused(missing, f"there is no study 't' in {storage}; there are: s")
    put_network(storage, knee)
    exported = commands.run("export", "s", "--storage", storage, "--out", str(tmp_path / "net"))
    assert exported.status == 0, exported.err
    assert bundle.load(tmp_path / "net")(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
