"""Devices in a study: what is refused, what waits while one is away, and what is filled in when it is back."""

from __future__ import annotations

import io
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rssearch.agent.desk import Ended
from rssearch.config.loading import parse_study
from rssearch.config.schema import StudyConfig
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.storage.records import Status, TrialRecord
from rssearch.study import devices
from rssearch.study import run as study
from rssearch.study.definition import StudyDefinition
from rssearch.trial.interface import DEPLOYED
from tests.support.databases import put_into
from tests.support.devices import TOKEN, agent, network

LATENCY, GUESSED = "latency_ms@pi", "predicted_latency_ms@pi"
OBJECTIVES = {"val_accuracy": "max", LATENCY: "min"}


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSSEARCH_AGENT_TOKEN", TOKEN)


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def document(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "study": "s",
        "trial": "tests.support.deployable:run",
        "space": {"channels": [4, 64]},
        "search": {"objectives": OBJECTIVES},
        "devices": {"pi": {"listen": f"127.0.0.1:{free_port()}", "wait": 0}},
        "resources": {"max_concurrent": 1},
        "storage": str(folder),
        **more,
    }


def make(folder: Path, **more: Any) -> StudyConfig:
    return parse_study(document(folder, **more))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"search": {"objectives": {"val_accuracy": "max", "latency@pi": "min"}}}, "unknown metric of a device"),
        ({"search": {"objectives": {"val_accuracy": "max", "latency_ms@pie": "min"}}}, "Did you mean 'pi'"),
        ({"search": {"objectives": {LATENCY: "min"}}}, "needs one that trials report themselves"),
        ({"search": {"objectives": {"val_accuracy": "max", GUESSED: "min"}}}, "the first trials are not predicted"),
        ({"trial": "tests.support.timed:run", "settings": {"options": {"log": "log"}}}, "has no hook deploy"),
        ({"devices": {"pi": {"listen": "0.0.0.0:8765"}}}, "can be reached from other machines"),
        ({"devices": {"pi": {"listen": "8765"}}}, "must be HOST:PORT"),
        ({"devices": {"pi": {"private_key": "key.pem"}}}, "needs a certificate"),
        ({"devices": {"a pi": {}}}, "devices"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        StudyDefinition(make(tmp_path, **more))


def refused(config: StudyConfig, why: str) -> None:
    with pytest.raises(InputError, match=why), devices.opened(config, Store(Path(config.storage))):
        pass


def test_what_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(tmp_path)
    with devices.opened(config, Store(tmp_path)):
        refused(config, r"devices\.pi\.listen: cannot listen")
    here = {"listen": "127.0.0.1:0"}
    secure = make(tmp_path, devices={"pi": {**here, "certificate": str(tmp_path / "none.pem")}})
    refused(secure, r"devices\.pi\.certificate: .*none\.pem")
    monkeypatch.delenv("RSSEARCH_AGENT_TOKEN")
    refused(config, "no token")
    file = make(tmp_path, devices={"pi": {**here, "token_file": str(tmp_path / "token")}})
    refused(file, r"devices\.pi\.token_file: .*No such file")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with devices.opened(file, Store(tmp_path)):
        pass


def test_a_study_that_names_no_device_opens_nothing_and_keeps_its_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSSEARCH_AGENT_TOKEN")
    plain = make(tmp_path, search={"objectives": {"val_accuracy": "max", "macs": "min"}})
    with devices.opened(plain, Store(tmp_path)) as found:
        assert found.offer({}) == {}
        assert found.measure({}, lambda *_: None, lambda: None) == {}
    without = parse_study({**document(tmp_path), "search": plain.search.model_dump(mode="json"), "devices": {}})
    keys = [[definition.key(p) for p in definition.points] for definition in map(StudyDefinition, (plain, without))]
    with_device = StudyDefinition(make(tmp_path))  # objectives are no part of a key, and so a device is none
    assert keys[0] == keys[1] == [with_device.key(p) for p in with_device.points]


def test_what_waits_is_handed_out_and_recorded(tmp_path: Path) -> None:
    config = make(tmp_path, devices={"pi": {"listen": f"127.0.0.1:{free_port()}", "wait": 30}})
    store = Store(tmp_path)
    records = {key: TrialRecord(key, {"channels": 4}, Status.FINISHED) for key in ("one", "gone")}
    records["failed"] = TrialRecord("failed", {"channels": 4}, Status.FAILED)
    store.put(DEPLOYED, "one", {"model.onnx": network()})
    told: dict[str, Ended] = {}

    def done(device: str, key: str, ended: Ended) -> None:
        assert device == "pi"
        told[key] = ended
        records[key] = TrialRecord(key, {"channels": 4}, Status.FINISHED, measured=ended.metrics)

    with devices.opened(config, store) as found, agent(f"http://{config.devices['pi'].listen}"):
        assert [record.key for record in found.lacking(records.values())] == ["gone"]
        assert found.offer(records) == {"pi": 1}
        assert found.measure(records, done, lambda: None) == {"pi": 1}
    assert told.keys() == {"one"}
    assert told["one"].metrics
    assert told["one"].metrics[LATENCY] > 0


def run(config: StudyConfig) -> tuple[dict[str, TrialRecord], str]:
    put_into(Path(config.storage))
    printed = io.StringIO()
    assert study.search(config, console=Console(file=printed, width=200)) == 0
    return dict(Journal(Path(config.storage) / "s" / "trials.jsonl").records), printed.getvalue()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_trials_train_on_while_the_device_is_away_and_are_measured_when_it_is_back(tmp_path: Path) -> None:
    away, printed = run(make(tmp_path))
    assert {record.status for record in away.values()} == {Status.FINISHED}
    assert not any(record.measured for record in away.values())
    assert "2 trials wait for pi" in printed
    store = Store(tmp_path)
    assert sorted(store.keys(DEPLOYED)) == sorted(away)

    config = make(tmp_path, devices={"pi": {"listen": f"127.0.0.1:{free_port()}", "wait": 60}})
    with agent(f"http://{config.devices['pi'].listen}"):
        back, printed = run(config)
    assert "wait for pi" not in printed
    for key, record in back.items():
        assert record.ended == away[key].ended  # nothing was trained again
        assert record.measured
        assert record.measured[LATENCY] > 0
        assert record.measured["test_accuracy"] == 0.5  # both are on the front
    narrow, wide = sorted(back.values(), key=lambda record: record.point["channels"])
    assert narrow.measured
    assert wide.measured
    assert narrow.measured[LATENCY] < wide.measured[LATENCY]
    assert store.keys(DEPLOYED) == []

    limit = {LATENCY: {"max": (narrow.measured[LATENCY] + wide.measured[LATENCY]) / 2}}
    again, printed = run(make(tmp_path, search={"objectives": {"val_accuracy": "max"}, "constraints": limit}))
    assert {key: record.measured for key, record in again.items()} == {key: r.measured for key, r in back.items()}
    front = (tmp_path / "s" / "front.csv").read_text()
    assert narrow.key in front
    assert wide.key not in front


def test_what_is_predicted_has_to_be_measured_and_limits_trials_before_they_train(tmp_path: Path) -> None:
    limits = {GUESSED: {"max": 5}, "peak_rss_bytes@pi": {"max": 1e9}, "macs": {"max": 9}}
    config = make(tmp_path, search={"objectives": {"val_accuracy": "max"}, "constraints": limits})
    assert devices.asked(config, "pi") == [LATENCY, "peak_rss_bytes@pi"]
    assert [*StudyDefinition(config).search.constraints] == [GUESSED, "macs"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_what_a_device_has_measured_refuses_networks_before_they_train(tmp_path: Path) -> None:
    """The device is away by then."""
    widths = [16, 64, 128, 256]
    config = make(
        tmp_path, space={"channels": widths}, devices={"pi": {"listen": f"127.0.0.1:{free_port()}", "wait": 60}}
    )
    with agent(f"http://{config.devices['pi'].listen}"):
        first, printed = run(config)
    assert "latencies on pi are predicted from 4 networks" in printed
    took = {record.point["channels"]: (record.measured or {})[LATENCY] for record in first.values()}
    limit = (took[128] + took[256]) / 2
    search = {"objectives": {"val_accuracy": "max"}, "constraints": {GUESSED: {"max": limit}}}
    again, printed = run(make(tmp_path, space={"channels": [*widths, 96, 512]}, search=search))
    by_width = {record.point["channels"]: record for record in again.values()}
    assert by_width[512].status is Status.INFEASIBLE
    assert by_width[512].metrics[GUESSED] > limit
    assert by_width[96].status is Status.FINISHED
    assert "1 trials wait for pi" in printed  # it has to be measured to teach the table
