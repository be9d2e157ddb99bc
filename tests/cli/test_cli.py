"""rssearch.cli: what each command prints and returns. Mistakes are in test_errors.py."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from rssearch.data import list_datasets
from rssearch.data.registry import FOLDERS
from rssearch.models import list_models
from rssearch.models.listing import FORMS
from rssearch.pruning import list_methods
from rssearch.sampling.sampler import CAPABILITIES
from rssearch.tracking import client
from tests.support.commands import Result, refused, run, study_with

ROOT = Path(__file__).parents[2]
RSSEARCH = str(Path(sys.executable).with_name("rssearch"))  # as it is installed
COMMANDS = ["init", "plan", "search", "front", "export", "ui", "models", "methods", "samplers", "papers", "data"]
TOY: dict[str, Any] = {"study": "toy", "trial": "tests.support.toy:plain", "space": {"rate": [0.25, 0.5]}}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def _process(*command: str, cwd: Path, timeout: float = 120) -> Result:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


def _assert_whole_words(text: str) -> None:
    """Lines fit 80 columns, and nothing was cut off."""
    assert text.strip()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.status == 0
    _assert_whole_words(result.out)
    for command in COMMANDS:
        assert f" {command} " in result.out


@pytest.mark.parametrize("command", [*COMMANDS, "data list", "data fetch", "data verify"])
def test_every_command_has_help(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.status == 0
    _assert_whole_words(result.out)


def test_version() -> None:
    import rssearch

    assert run("--version") == Result(0, f"rssearch {rssearch.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models", [*list_models(), *FORMS]),
        ("methods", [*list_methods(), "channel_nas", "slimmable", "none", "MODULE:NAME"]),
        ("samplers", list(CAPABILITIES)),
        ("data list", [*list_datasets(), *(f"{prefix}PATH" for prefix in FOLDERS)]),
    ],
)
def test_lists_name_every_entry_and_fit_a_terminal(command: str, names: list[str]) -> None:
    result = run(*command.split())
    assert result.status == 0
    _assert_whole_words(result.out)
    first = [line.split()[0] for line in result.out.splitlines()[1:] if not line.startswith(" ")]
    assert sorted(first) == sorted(names)


def test_samplers_say_what_they_cannot_do() -> None:
    lines = {line.split()[0]: line for line in run("samplers").out.splitlines() if line[:1].strip()}
    assert "continuous ranges" in lines["grid"]
    assert "several objectives, choices" in lines["cmaes"]


# plan


def test_plan_prints_the_summary_and_then_the_resolved_yaml(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY))
    result = run("plan", "my.yaml", "--set", "settings.train.epochs=3", "--storage", "elsewhere", "--verbose")
    assert (result.status, result.err) == (0, "")
    summary, document = result.out.split("\n\n")
    resolved = yaml.safe_load(document)
    assert list(resolved)[:3] == ["study", "trial", "space"]
    assert resolved["settings"]["train"]["epochs"] == 3
    assert resolved["settings"]["train"]["momentum"] == 0.9  # a default that the file does not name
    assert resolved["storage"] == "elsewhere"
    assert summary.startswith("study      toy (grid)\ntrials     2, 0 finished\n")
    assert not (tmp_path / "elsewhere").exists()


def test_the_yaml_of_a_plan_is_a_study_itself(tmp_path: Path) -> None:
    document = study_with({"space/dataset": ["synthetic_scenes"], "space/note": None}) | {"data_root": "d" * 150}
    del document["space"]["note"]
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(document))
    first = run("plan", "my.yaml", "--verbose").out
    (tmp_path / "again.yaml").write_text(first.split("\n\n")[1])
    assert run("plan", "again.yaml", "--verbose").out == first


def test_a_search_says_what_it_does_before_anything_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rssearch.study.run.search", lambda *_, **__: 0)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY))
    result = run("search", "my.yaml", "--storage", "elsewhere")
    assert (result.status, result.out) == (0, "study toy: getting ready; results go to elsewhere/toy\n")


def test_a_plan_is_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY))
    lines = run("plan", "my.yaml").out.splitlines()
    assert lines[0] == "study      toy (grid)"
    assert len(lines) == 6


def test_plan_as_json(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY))
    found = json.loads(run("plan", "my.yaml", "--json").out)
    assert (found["study"], found["trials"], found["finished"]) == ("toy", 2, 0)
    assert found["resolved"]["search"]["objectives"] == {"val_accuracy": "max", "macs": "min"}


# search.py


def test_the_script_is_the_command(tmp_path: Path) -> None:
    """Ray copies search.py alone to a cluster's head, into a folder that holds nothing else."""
    script = tmp_path / "search.py"
    script.write_text((ROOT / "search.py").read_text())
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(study_with({"space/method": ["lpf"]})))
    scripted = _process(sys.executable, "search.py", "bad.yaml", cwd=tmp_path)
    command = _process(RSSEARCH, "search", "bad.yaml", cwd=tmp_path)
    refused(scripted, "unknown method 'lpf'. Did you mean 'lfp'?")
    assert scripted == command
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.yaml", "search.py"]


# ui


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The calls of the server, which does not start."""
    calls: list[tuple[Any, ...]] = []

    def serve(*arguments: Any) -> int:
        calls.append(arguments)
        return 0

    monkeypatch.setattr(client, "serve", serve)
    return calls


def test_ui_serves_the_record_of_the_storage(tmp_path: Path, served: list[tuple[Any, ...]]) -> None:
    assert run("ui", "--storage", "here", "--host", "0.0.0.0", "--port", "5001").status == 0
    assert served == [(f"sqlite:///{tmp_path}/here/mlflow.db", Path("here"), "0.0.0.0", 5001)]


def test_ui_serves_a_database(served: list[tuple[Any, ...]]) -> None:
    assert run("ui", "--tracking-uri", "postgresql://host/db").status == 0
    assert served == [("postgresql://host/db", Path("results"), "127.0.0.1", 5000)]


@pytest.mark.parametrize("uri", ["http://team:5000", "https://team/mlflow"])
def test_ui_names_the_address_of_a_server(uri: str, served: list[tuple[Any, ...]]) -> None:
    assert run("ui", "--tracking-uri", uri) == Result(0, f"a server is its own UI: open {uri}\n", "")
    assert served == []


@pytest.mark.slow
def test_ui_answers_on_loopback_without_its_uri_in_an_argument_and_ends_whole(tmp_path: Path) -> None:
    uri = client.default_uri(tmp_path)
    tracker = client.Tracker(uri, "toy", tmp_path / "artifacts")
    tracker.open()
    assert tracker.close([], status="FINISHED") == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"RSSEARCH_TRACKING_URI": uri}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([RSSEARCH, "ui", "--port", str(port)], stdout=log, stderr=log, env=environment)
    family = [psutil.Process(server.pid)]
    try:
        deadline = time.monotonic() + 90
        while not _healthy(port):
            assert server.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
        family += family[0].children(recursive=True)
        assert len(family) > 2
        assert not [process for process in family if str(tmp_path) in " ".join(process.cmdline())]
        sockets = [found for process in family for found in process.net_connections("inet")]
        assert {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        server.terminate()
        assert server.wait(30) == 0
        assert [process for process in family[1:] if _runs(process)] == []  # they have ended before it
    finally:
        for process in psutil.wait_procs(family, timeout=0)[1]:
            process.kill()
        server.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def _runs(process: psutil.Process) -> bool:
    """Not so a process that has ended, and that nobody has waited for, as in a container without an init."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_ui_alone_ends_what_it_has_started(number: signal.Signals, tmp_path: Path) -> None:
    """Also grandchildren, and those that do not listen to SIGTERM."""
    parts = (
        "import signal, subprocess, sys, time; from pathlib import Path; signal.signal(15, signal.SIG_IGN)",
        "c = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.pause()'])",
        f"Path({str(tmp_path / 'part')!r}).write_text(str(c.pid))",
        f"Path({str(tmp_path / 'part')!r}).rename({str(tmp_path / 'child')!r}); time.sleep(600)",
    )
    program = (
        "import os, sys; from rssearch.tracking import client; client._PATIENCE = 0.5\n"
        f"sys.exit(client._run_until_stopped([sys.executable, '-c', {'; '.join(parts)!r}], os.environ))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "child").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child = psutil.Process(int((tmp_path / "child").read_text()))
        process.send_signal(number)
        assert process.wait(30) == 0
        child.wait(10)
    finally:
        process.kill()
        process.wait()


def test_a_server_that_fails_gives_its_status() -> None:
    assert client._run_until_stopped([sys.executable, "-c", "raise SystemExit(3)"], os.environ) == 3


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# Ray


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_no_machine_can_hold(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY | {"resources": {"gpus": 64}}))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    result = _process(RSSEARCH, "search", "my.yaml", "--address", "local", cwd=tmp_path)
    refused(result, "resources: no node can hold a trial of 1 CPUs and 64 GPUs")
    assert not (tmp_path / "results").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_an_address_where_nothing_answers(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TOY))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    result = _process(RSSEARCH, "search", "my.yaml", "--address", "127.0.0.1:9", cwd=tmp_path, timeout=45)
    refused(result, "--address 127.0.0.1:9: nothing answers there")
    assert not (tmp_path / "results").exists()


HEAVY = {"torch", "torchvision", "ray", "mlflow", "optuna", "onnx", "onnxruntime"}
HEAVY |= {"numpy", "scipy", "pandas", "matplotlib", "rasterio"}
IMPORTED = """
import sys
from rssearch.cli import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], set()),
        (["search", "--help"], set()),
        (["shrink", "--help"], set()),
        (["init", "--help"], set()),
        (["front", "nothing-there"], {"numpy"}),
        (["studies"], {"numpy"}),
        (["samplers"], {"numpy"}),
        (["plan", "quickstart"], {"numpy", "torch", "scipy", "torchvision"}),
    ],
)
def test_what_a_command_imports(arguments: list[str], allowed: set[str], tmp_path: Path) -> None:
    """Imports are what a command takes until its first line."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == (2 if "nothing-there" in arguments else 0), done.stderr
    imported = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert imported & HEAVY <= allowed, done.stderr
