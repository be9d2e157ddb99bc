"""rssearch.storage, lock and journal: the same promises on a folder and in a bucket."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from rssearch.errors import InputError
from rssearch.storage import lock as locks
from rssearch.storage.artifacts import Store
from rssearch.storage.journal import Journal
from rssearch.storage.location import (
    Location,
    Remote,
    check_writable,
    local_copies,
    locate,
    move,
    names,
    remove,
    remove_tree,
    write_atomic,
)
from rssearch.storage.lock import Held, lock
from rssearch.tracking import client
from tests.support import commands
from tests.support.buckets import s3
from tests.support.mounts import private_mounts
from tests.support.records import ended, record

__all__ = ["s3"]


@pytest.fixture(params=["folder", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty storage of each kind."""
    name = uuid.uuid4().hex
    if request.param == "folder":
        return tmp_path / name
    root = request.getfixturevalue("s3") if request.param == "s3" else "memory://bucket"
    return locate(f"{root}/{name}")


def requests_of(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the requests that S3 gets from now on."""
    seen: list[str] = []
    files, _ = remote._at()
    call = files._call_s3

    async def counting(method: str, *arguments: object, **options: object) -> object:
        seen.append(method)
        return await call(method, *arguments, **options)

    monkeypatch.setattr(files, "_call_s3", counting)
    return seen


def test_a_storage_is_a_folder_or_a_url(tmp_path: Path) -> None:
    assert locate(str(tmp_path)) == tmp_path
    assert locate(f"file://{tmp_path}") == tmp_path
    assert locate("~/results") == Path.home() / "results"
    remote = locate("s3://bucket/results/")
    assert remote == Remote("s3://bucket/results") == locate(remote)
    assert str(remote / "study" / "a.b") == "s3://bucket/results/study/a.b"
    assert ((remote / "a.b").name, (remote / "a.b").stem, (remote / "a.b").parent) == ("a.b", "a", remote)


def test_a_storage_that_cannot_be_used_is_refused_in_one_sentence(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"unknown protocol of the storage 's4://'. Did you mean 's3://'"):
        locate("s4://bucket/x")
    with pytest.raises(InputError, match=r"^storage s3://elsewhere/x/\.probe-\w+: cannot be written: .*does not exist"):
        check_writable(locate("s3://elsewhere/x"))
    files, _ = Remote(s3)._at()

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    with monkeypatch.context() as patch:
        patch.setattr(files, "pipe_file", refused)
        with pytest.raises(InputError, match=r"permission denied: PermissionError: \[Errno 13\] Access Denied$"):
            check_writable(Remote(s3))
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "create", lambda remote, content: remote.write(content) is None)
        with pytest.raises(InputError, match="does not support conditional writes"):
            check_writable(Remote(s3))
    with monkeypatch.context() as patch:

        def absent(_: str) -> None:
            raise ImportError("Install s3fs to access S3")

        patch.setattr("fsspec.get_filesystem_class", absent)
        with pytest.raises(InputError, match=r"not installed: pip install 'rssearch\[s3\]'"):
            locate("s3://bucket/x")
    check_writable(Remote(s3) / "fine")
    assert (Remote(s3) / "fine").names() == []


def test_a_database_needs_a_place_outside_an_object_store(tmp_path: Path) -> None:
    remote = Remote("s3://bucket/results")
    assert client.home(tmp_path, None) == (f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "mlartifacts")
    assert client.home(remote, "sqlite:////here/mlflow.db") == (
        "sqlite:////here/mlflow.db",
        Path("/here/mlartifacts"),
    )
    assert client.home(remote, "http://server:5000")[0] == "http://server:5000"
    for uri in (None, "postgresql://server/db"):
        with pytest.raises(InputError, match=r"^tracking_uri: .* set tracking_uri \(--tracking-uri\) to a server"):
            client.home(remote, uri)


def test_files_of_a_place(place: Location) -> None:
    assert names(place / "none") == []
    with pytest.raises(FileNotFoundError) as caught:
        (place / "none").read_bytes()
    assert caught.value.filename == str(place / "none")
    for name in ("s/a.png", "s/b.png", "s/c.txt", "t/a.png", "sa.png"):
        write_atomic(place / name, name)
    write_atomic(place / "s" / "a.png", b"new")
    assert (place / "s" / "a.png").read_text() == "new"
    assert (place / "s" / "a.png").is_file()
    assert not (place / "s").is_file()
    assert {*names(place / "s")} == {"a.png", "b.png", "c.txt"}
    assert [path.parent.name for path in sorted(place.glob("*/a.png"), key=str)] == ["s", "t"]
    remove(place / "s", ["b.png", "never.png"])
    (place / "s" / "never.png").unlink(missing_ok=True)
    move(place / "s", place / "u")
    assert {*names(place / "u")} == {"a.png", "c.txt"}
    assert names(place / "s") == []
    with local_copies([place / "u" / "a.png", place / "sa.png"]) as copies:
        assert [(path.name, path.read_text()) for path in copies] == [("a.png", "new"), ("sa.png", "sa.png")]
    remove_tree(place / "u")
    remove_tree(place / "u")
    assert names(place / "u") == []
    assert (place / "sa.png").is_file()


def test_store_round_trip(place: Location, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(place)
    assert store.get("scores", "k") is None
    store.put("scores", "k", {"a.bin": b"1", "b.json": b"{}"})
    store.put("scores", "k2", {"a.bin": b"3"})
    store.put("scores", "k", {"a.bin": b"2"})
    assert store.get("scores", "k") == {"a.bin": b"2"}
    assert store.keys("scores") == ["k", "k2"]
    assert len(names(store.path("scores", "k"))) == 2
    (store.path("scores", "k") / next(n for n in names(store.path("scores", "k")) if n != "manifest.json")).unlink()
    assert store.get_or_build("scores", "k", lambda: {"a.bin": b"4"}) == {"a.bin": b"4"}
    assert "scores k is corrupt" in caplog.text
    assert len([*(store.root / "corrupt").glob("*/manifest.json")]) == 1
    store.remove("scores", "k")
    store.remove("scores", "k")
    assert not store.has("scores", "k")
    assert store.get("scores", "k2") == {"a.bin": b"3"}


def test_an_artifact_is_built_once(place: Location) -> None:
    built: list[float] = []

    def build() -> dict[str, bytes]:
        built.append(time.monotonic())
        time.sleep(0.3)
        return {"x": b"1"}

    found: list[dict[str, bytes]] = []
    threads = [
        threading.Thread(target=lambda: found.append(Store(place).get_or_build("s", "k", build))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [{"x": b"1"}] * 4
    assert len(built) == 1


def test_a_lock_is_free_again_afterwards(place: Location) -> None:
    for _ in range(2):
        with lock(place / "x.lock", wait=False), pytest.raises(Held), lock(place / "x.lock", wait=False):
            pass


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life ten times a second."""
    monkeypatch.setattr(locks, "BEAT", 0.1)


def wait_for_count(path: Remote, count: int) -> None:
    deadline = time.monotonic() + 60
    while json.loads(path.read_bytes())["count"] < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def elsewhere(remote: Remote, token: str = "t", count: int = 0) -> None:
    """A lock that a process of another machine holds."""
    remote.write(json.dumps({"token": token, "machine": "other", "pid": 1, "began": 0.0, "count": count}).encode())


def test_the_lock_of_a_machine_that_died_is_taken_over_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "DEAD", 1.0)
    path = Remote(f"memory://bucket/{uuid.uuid4().hex}/x.lock")
    elsewhere(path)
    began = time.monotonic()
    with lock(path, wait=False):
        assert time.monotonic() - began > 1.0
    assert not path.is_file()


def test_a_holder_elsewhere_that_gives_signs_of_life_keeps_its_lock() -> None:
    path = Remote(f"memory://bucket/{uuid.uuid4().hex}/x.lock")
    elsewhere(path)
    timer = threading.Timer(0.3, elsewhere, (path, "t", 1))
    timer.start()
    with pytest.raises(Held), lock(path, wait=False):
        pass
    timer.join()
    assert json.loads(path.read_bytes())["count"] == 1


@pytest.mark.usefixtures("fast")
def test_a_holder_that_lives_is_not_robbed_and_one_that_is_robbed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    path, lost = Remote(f"memory://bucket/{uuid.uuid4().hex}/x.lock"), threading.Event()
    with lock(path, lost=lost.set):
        wait_for_count(path, 2)
        assert not lost.is_set()
        elsewhere(path)
        assert lost.wait(60)
    assert "has been taken by another process" in caplog.text
    assert json.loads(path.read_bytes())["token"] == "t"  # it is not ours to remove


def test_a_killed_holder_of_this_machine_is_noticed_at_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "DEAD", 1e9)
    path = Remote(f"{s3}/{uuid.uuid4().hex}/x.lock")
    script = (
        "import sys, time; from rssearch.storage.lock import lock; from rssearch.storage import locate\n"
        f"with lock(locate({path.url!r})): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Held), lock(path, wait=False):
        pass
    holder.kill()  # nobody has waited for it: it is a zombie
    with lock(path, wait=False):
        assert path.is_file()
    holder.wait()


def test_journal_in_a_bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Remote(f"{s3}/{uuid.uuid4().hex}/trials.jsonl")
    first = Journal(folder)
    assert first.archive() is None
    seen = requests_of(folder, monkeypatch)
    for number in range(100):
        first.add(record(f"k{number}", text="x" * 2000))
    assert seen == ["put_object"] * 100
    second = Journal(folder)  # another driver, should there ever be one
    assert second.records == first.records
    second.add(record("k0", "failed"))
    first.add(record("late"))
    third = Journal(folder)
    assert len(third.records) == 101
    assert third.records["k0"] == record("k0", "failed", text="x" * 2000)
    parts = folder.tree()
    assert all(len(content) <= 1 << 16 for content in parts.values())
    assert len(parts) == 5  # four of the first session, one of the second
    kept = third.archive()
    assert isinstance(kept, Remote)
    assert third.records == {}
    third.add(record("new"))
    assert list(Journal(folder).records) == ["new"]
    assert len(Journal(kept).records) == 101


def test_a_journal_that_ends_within_a_line_can_be_archived(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(f'{json.dumps(ended("a"))}\n{{"key": "b')
    journal = Journal(path)
    journal.archive()
    journal.add(record("c"))
    assert list(Journal(path).records) == ["c"]


def test_few_requests_for_a_trial_without_checkpoints(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"{s3}/{uuid.uuid4().hex}")
    assert isinstance(store.root, Remote)
    seen = requests_of(store.root, monkeypatch)
    store.remove("checkpoints", "k")
    assert len(seen) <= 3
    seen.clear()
    store.put("checkpoints", "k", {"checkpoint.pt": b"1"})
    assert seen.count("put_object") == 2
    assert len(seen) <= 5


FULL = """
import logging, sys
from pathlib import Path
from rssearch.config import Settings
from rssearch.storage.journal import Journal
from rssearch.storage.artifacts import Store
from rssearch.trial import Context, Session
from tests.support.records import ended, record
logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
root = Path(sys.argv[1])
session = Session(Context("s", str(root), "data", Settings()), "k", {})
journal, line = Journal(root / "s" / "trials.jsonl"), record("a", text="x" * 3000)
journal.add(line)
session.save_checkpoint(b"1" * 50_000)
before = sorted(str(path) for path in root.rglob("*"))
for content in (b"2" * 500_000, b"3" * 500_000):
    session.save_checkpoint(content)  # full in the middle of the file
assert session.load_checkpoint() == b"1" * 50_000
assert sorted(str(path) for path in root.rglob("*")) == before
filler = root / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(b"0" * 512):
            pass
    except OSError:
        pass
late = record("b", text="y" * 9000)
for call in (lambda: session.store.put("models", "k", {"m": b"1"}), lambda: journal.add(late)):
    try:
        call()
    except OSError as error:
        print("refused", error.errno, error.filename)
assert session.store.get("models", "k") is None
assert list(Journal(journal.path).records) == ["a"]
filler.unlink()
journal.add(record("c"))
assert Journal(journal.path).records == {"a": line, "c": record("c")} == journal.records
session.save_checkpoint(b"4")
assert session.load_checkpoint() == b"4"
"""


@pytest.mark.mounts
def test_nothing_half_written_is_read_from_a_full_disk(tmp_path: Path) -> None:
    command = private_mounts({str(tmp_path): "256k"}, sys.executable, "-c", FULL, str(tmp_path))
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    warning, model, record = ended.stdout.splitlines()
    assert warning.startswith("checkpoints cannot be written, the last one stays: [Errno 28] No space left on device")
    assert model.startswith(f"refused {errno.ENOSPC} {tmp_path}/store/models/k")
    assert record == f"refused {errno.ENOSPC} {tmp_path}/s/trials.jsonl"


@pytest.mark.usefixtures("fast")
def test_a_lost_connection_is_told_once_and_not_fatal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = Remote(f"memory://bucket/{uuid.uuid4().hex}/x.lock")
    write = Remote.write
    failures = iter([InputError("storage x: no answer")])

    def sometimes(remote: Remote, content: bytes) -> None:
        for error in failures:
            raise error
        write(remote, content)

    monkeypatch.setattr(Remote, "write", sometimes)
    with caplog.at_level(logging.WARNING), lock(path):
        wait_for_count(path, 2)
    assert caplog.text.count("the lock cannot be kept at the moment: storage x: no answer") == 1


def test_a_full_disk_ends_a_command_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/results/s/trials.jsonl")

    monkeypatch.setattr("rssearch.report.recorded.read", full)
    commands.refused(commands.run("front", "s"), "/results/s/trials.jsonl: No space left on device")
