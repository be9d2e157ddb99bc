"""rssearch.trial, runner.Stop, environment: what surrounds a trial."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from rssearch.backend.stop import Stop
from rssearch.backend.trainable import supervised
from rssearch.config.settings import Settings
from rssearch.errors import InputError, TrialFailed
from rssearch.study.environment import environment
from rssearch.trial import worker
from rssearch.trial.hooks import resolve
from rssearch.trial.session import Context, Session, point_settings
from rssearch.trial.worker import call


def context(tmp_path: Path, **more: Any) -> Context:
    return Context("s", str(tmp_path), str(tmp_path), Settings(), **more)


def supervise(
    function: str, point: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The reports that Ray Tune would get."""
    from ray import tune

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    worker.loaded.cache_clear()  # a worker imports its trial once; here each test has its own
    supervised({"key": "k", "point": point}, target=f"tests.support.toy:{function}", context=context(tmp_path))
    return reports


def test_a_trial_ends_with_its_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (end,) = supervise("plain", {"rate": 0.5}, tmp_path, monkeypatch)
    assert end == {"event": "end", "status": "finished", "metrics": {"val_accuracy": 0.75, "macs": 50.0}, "notes": []}


@pytest.mark.parametrize(
    ("mode", "reason"), [("raises", "ValueError: a bug in the trial"), ("diverges", "the loss is nan in epoch 2")]
)
def test_an_error_becomes_a_reason(mode: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (end,) = supervise("failing", {"mode": mode}, tmp_path, monkeypatch)
    assert (end["event"], end["status"], end["reason"]) == ("end", "failed", reason)
    assert ("traceback" in end) == (mode == "raises")


def test_a_training_that_runs_out_of_memory_goes_on_with_half_the_images_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *epochs, end = supervise("cramped", {"limit": 5}, tmp_path, monkeypatch)
    assert [(e["metrics"]["epoch"], e["metrics"]["micro_batches"]) for e in epochs] == [(1, 4), (2, 4)]
    assert (end["status"], end["metrics"]["micro_batches"]) == ("finished", 4)
    assert end["notes"] == [
        "out of memory with 16 images at a time; it resumes with 2 micro-batches for each batch",
        "out of memory with 8 images at a time; it resumes with 4 micro-batches for each batch",
    ]


def test_a_trial_that_died_too_often_ends_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune

    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tune, "report", reports.append)
    config = {"key": "k", "point": {"rate": 0.5}, "given_up": True}
    supervised(config, target="tests.support.toy:plain", context=context(tmp_path))
    assert reports == [{"event": "given up"}]


def test_a_batch_that_cannot_be_halved_further_fails_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (end,) = supervise("cramped", {"limit": 1}, tmp_path, monkeypatch)
    assert (end["status"], len(end["notes"])) == ("failed", 3)
    assert end["reason"] == "out of memory with 2 images at a time of the batch of 16, which cannot be halved further"


def test_memory_that_suffices_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *epochs, end = supervise("cramped", {"limit": 16}, tmp_path, monkeypatch)
    assert "micro_batches" not in end["metrics"]
    assert all("micro_batches" not in epoch["metrics"] for epoch in epochs)
    assert end["notes"] == []


def test_warnings_of_a_trial_travel_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(config: dict[str, Any]) -> dict[str, float]:
        logging.getLogger("rssearch.storage.artifacts").warning("scores %s is corrupt", "k")
        return {"val_accuracy": 1.0}

    monkeypatch.setattr("tests.support.toy.plain", warn)
    (end,) = supervise("plain", {}, tmp_path, monkeypatch)
    assert end["notes"] == ["scores k is corrupt"]
    assert not any(type(h).__name__ == "_Notes" for h in logging.getLogger("rssearch").handlers)


def test_threads_follow_the_share_of_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen = []
    monkeypatch.setattr("tests.support.toy.plain", lambda config: seen.append(torch.get_num_threads()) or {})
    before = torch.get_num_threads()
    try:
        for cpus in (2.0, 0.5, 1.0):
            monkeypatch.setattr(
                sys.modules[__name__], "context", lambda p, c=cpus: Context("s", str(p), str(p), Settings(), c)
            )
            supervise("plain", {}, tmp_path, monkeypatch)
    finally:
        torch.set_num_threads(before)
    assert seen == [2, 1, 1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:run", "there is no module 'no_such_module'"),
        ("tests.support.toy:no_such_function", "has no function 'no_such_function'"),
        ("tests.support.toy:PROJECT", "has no function"),
    ],
)
def test_resolve_names_what_is_missing(target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(target)


def test_a_module_beside_the_yaml_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_trial.py").write_text("def run(config):\n    return {'val_accuracy': config['x']}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    function, module = resolve("my_own_trial:run")
    assert function({"x": 3}) == {"val_accuracy": 3}
    assert module.__name__ == "my_own_trial"


def test_call_gives_the_session_to_those_who_ask(tmp_path: Path) -> None:
    session = Session(context(tmp_path), "k", {})
    assert call(lambda config: config, {"a": 1}, session) == {"a": 1}
    assert call(lambda config, session: session.key, {"a": 1}, session) == "k"


def test_checkpoints_belong_to_their_trial(tmp_path: Path) -> None:
    first, second = Session(context(tmp_path), "a", {}), Session(context(tmp_path), "b", {})
    first.save_checkpoint(b"1")
    first.save_checkpoint(b"2")
    assert first.load_checkpoint() == b"2"
    assert second.load_checkpoint() is None
    first.drop_checkpoint()
    assert first.load_checkpoint() is None


def test_shared_objects_by_name(tmp_path: Path) -> None:
    session = Session(context(tmp_path, shared={"x": [1]}), "k", {})
    assert session.shared("x") == [1]
    assert session.shared("y") is None


def test_point_settings() -> None:
    settings = Settings()
    assert point_settings(settings, {"rate": 0.3}) is settings
    assert point_settings(settings, {"rate": 0.3, "finetune.lr": 0.7}).finetune.lr == 0.7


def test_the_first_signal_asks_and_the_second_insists() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop().listening() as stop:
        stop.careful = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_of_ray_tune_a_signal_interrupts_at_once() -> None:
    with Stop().listening() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert not stop.requested


def test_environment_names_versions_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    found = json.loads(environment())
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["python"] == sys.version.split()[0]
    monkeypatch.chdir(tmp_path)
    assert json.loads(environment())["git_commit"] is None


def test_errors_are_what_they_say() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(TrialFailed, RuntimeError)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc keeps what is freed")
def test_what_a_trial_freed_goes_back_to_the_system() -> None:
    process = psutil.Process()
    blocks = [bytearray(60_000) for _ in range(4000)]  # 240 MB, too small each to be mapped by itself
    survivors = blocks[::100]  # what lies between them cannot be given back as a whole
    del blocks
    before = process.memory_info().rss
    worker.release_memory()
    assert before - process.memory_info().rss > 150e6
    assert len(survivors) == 40
