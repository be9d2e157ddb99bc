"""rssearch.tracking.database: a record is made once, is sound or refused, and stands on its own wherever it lies."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rssearch.config.loading import parse_study
from rssearch.errors import InputError
from rssearch.study import run
from rssearch.tracking import client
from rssearch.tracking import database as tracking_database
from rssearch.tracking.client import default_uri
from rssearch.tracking.database import check, make, settle, sqlite_path
from rssearch.tracking.runs import Writer
from rssearch.tracking.trouble import trouble
from rssearch.tracking.writer import send
from tests.support.databases import put_into
from tests.support.records import ended, record


def test_the_file_of_a_database() -> None:
    assert sqlite_path("sqlite:////a/b c.db") == Path("/a/b c.db")
    assert sqlite_path("sqlite+pysqlite:///c.db?timeout=5") == Path("c.db")
    for uri in ("http://host:5000", "postgresql+psycopg://u:p@h/d", "sqlite://", "sqlite:///:memory:", "noise", ""):
        assert sqlite_path(uri) is None


def test_of_several_that_make_one_database_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, touched = default_uri(tmp_path), []

    def touch(place: str) -> None:
        """As slow as MLflow, and as intolerant."""
        path = sqlite_path(place)
        assert path is not None
        touched.append(place)
        with path.open("ab") as file:
            file.write(b"tables")
        assert path.read_bytes() == b"tables"

    monkeypatch.setattr(tracking_database, "_touch", lambda place: touch(place) if place != uri else None)
    threads = [threading.Thread(target=make, args=(uri,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(touched) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    assert (tmp_path / "mlflow.db").read_bytes() == b"tables"


def test_one_that_is_killed_while_it_makes_a_database_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".mlflow.db.a1b2c3d4"
    left.mkdir()
    (left / "mlflow.db").write_bytes(b"half")
    (tmp_path / "mlflow.db").touch()  # as SQLite leaves one that nothing was written into
    monkeypatch.setattr(
        tracking_database, "_touch", lambda place: Path(place.removeprefix("sqlite:///")).write_bytes(b"tables")
    )
    check(default_uri(tmp_path))
    make(default_uri(tmp_path))
    assert (tmp_path / "mlflow.db").read_bytes() == b"tables"
    assert not left.exists()


def test_sessions_that_begin_together_all_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writers = [client.Tracker(default_uri(tmp_path), name, tmp_path / "mlartifacts" / name) for name in ("s", "t")]
    for writer in writers:
        writer.open()
    assert [writer.close([record("a")], status="FINISHED") for writer in writers] == [0, 0]
    assert [writer.left(0, tmp_path) for writer in writers] == [None, None]
    assert "does not take results" not in caplog.text
    assert check(default_uri(tmp_path)) is None  # type: ignore[func-returns-value]


# databases that cannot be used


def _execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def _noise(path: Path) -> None:
    path.write_bytes(b"\x93NUMPY" * 3000)


def _cut(path: Path) -> None:
    content = put_into(path.parent).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _holes(path: Path) -> None:
    content = bytearray(put_into(path.parent).read_bytes())
    content[4 * 4096 + 3 : 4 * 4096 + 5] = b"\x00\x7f"  # the number of entries of a page
    path.write_bytes(content)


def _begun(path: Path) -> None:
    _execute(path, "CREATE TABLE experiments (name TEXT)", "CREATE TABLE runs (name TEXT)")


def _two_at_once(path: Path) -> None:
    _execute(put_into(path.parent), "CREATE TABLE _alembic_tmp_tags (name TEXT)")


def _another(path: Path) -> None:
    _execute(path, "CREATE TABLE songs (name TEXT)")


HALF = "is half made, by a process that was ended meanwhile or by two at once"
UNUSABLE = [
    (_noise, "cannot be used: file is not a database"),
    (_cut, "cannot be used: database disk image is malformed"),
    (_holes, "is damaged: On tree page 5 cell 126: Offset 0 out of range"),
    (_begun, HALF),
    (_two_at_once, HALF),
    (_another, "is not MLflow's"),
    (lambda path: path.mkdir(), "is a folder"),
    (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
]


@pytest.mark.parametrize(("spoil", "problem"), UNUSABLE)
def test_a_database_that_cannot_be_used_ends_a_search_before_it_begins(
    spoil: Callable[[Path], None], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking_database, "_LOOKS", 1)
    path = tmp_path / "mlflow.db"
    spoil(path)
    before = sorted(tmp_path.rglob("*"))
    config = parse_study(
        {"study": "s", "trial": "tests.support.toy:plain", "space": {"rate": [0.5]}, "storage": str(tmp_path)}
    )
    with pytest.raises(InputError) as caught:
        run.search(config, console=Console(quiet=True))
    message = str(caught.value)
    assert message.startswith(f"MLflow's database {path} {problem}")
    assert (
        "Move it away (with mlflow.db-journal, if there is one): the next `rssearch search` makes a new one" in message
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x/mlflow.db cannot be made in .*file"):
        check(f"sqlite:///{tmp_path}/file/x/mlflow.db")


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql+psycopg://u@127.0.0.1:9/d", "sqlite://"])
def test_what_is_no_file_is_left_to_the_writer(uri: str) -> None:
    check(uri)


def test_a_database_in_use_is_sound(tmp_path: Path) -> None:
    path = put_into(tmp_path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        check(default_uri(tmp_path))


def test_what_lasts_is_told_from_what_passes(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    server, uri = "http://127.0.0.1:9", default_uri(tmp_path)
    put_into(tmp_path)
    passing = [
        (ConnectionError("refused"), server),
        (MlflowException("no answer", 6), server),
        (OSError("database is locked"), uri),
    ]
    for error, where in passing:
        assert trouble(error, where) == {"why": str(error), "lasts": False}
    lasting = [
        (ModuleNotFoundError("No module named 'psycopg'"), "postgresql://h/d"),
        (OSError('connection failed: FATAL: password authentication failed for user "x"'), "postgresql+psycopg://h/d"),
        (MlflowException("Detected out-of-date database schema (found version 1, but expected 2)"), server),
        (MlflowException("Invalid metric name", 1000), server),
    ]
    for error, where in lasting:
        assert trouble(error, where) == {"why": str(error), "lasts": True}
    half = trouble(OSError("(sqlite3.OperationalError) table _alembic_tmp_tags already exists"), uri)
    assert half == {"why": tracking_database.remedy(tmp_path / "mlflow.db", HALF), "lasts": True}
    _noise(tmp_path / "mlflow.db")
    damaged = trouble(OSError("anything"), uri)
    assert damaged["lasts"]
    assert "file is not a database" in damaged["why"]


# storages that are copied and moved


def _session(storage: Path, picture: str, key: str) -> None:
    """A session of the study `s`, in this process: one trial on the front, with a picture."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()  # a session has a process of its own
    file = storage / "picture.png"
    file.write_text(picture)
    writer = Writer(default_uri(storage), "s", storage / "mlartifacts" / "s")
    closing_ = {
        "records": [ended(key)], "status": "FINISHED", "pareto": [key], "pictures": {key: str(file)},
        "files": [str(file)], "metrics": {}, "note": "", "now": 1,
    }  # fmt: skip
    assert send(writer, [("open", {}), ("close", closing_)], [0.0]) is None


def _files(storage: Path) -> list[Path]:
    return sorted(path for path in (storage / "mlartifacts").rglob("*") if path.is_file())


def _places(storage: Path) -> set[str]:
    with closing(sqlite3.connect(storage / "mlflow.db")) as database:
        found = database.execute("SELECT artifact_uri FROM runs").fetchall()
        found += database.execute("SELECT artifact_location FROM experiments WHERE name = 's'").fetchall()
    return {place.partition("/mlartifacts/s")[0] for (place,) in found}


def test_a_copy_stands_on_its_own_beside_the_original(tmp_path: Path) -> None:
    first, copy = tmp_path / "first", tmp_path / "copy of it"
    put_into(first)
    _session(first, "a", "a")
    shutil.copytree(first, copy)
    before = _files(first)
    _session(copy, "b", "b")
    assert _files(first) == before
    assert _places(copy) == {copy.as_uri()}
    assert _places(first) == {first.as_uri()}
    new = {path.relative_to(copy) for path in _files(copy)} - {path.relative_to(first) for path in before}
    assert [path.name for path in new] == ["predictions.png"]
    _session(first, "c", "c")  # the original goes on
    assert len(_files(first)) == len(before) + 1
    assert _places(first) == {first.as_uri()}


def test_a_moved_storage_leaves_nothing_where_it_was(tmp_path: Path) -> None:
    put_into(tmp_path / "old" / "results")
    _session(tmp_path / "old" / "results", "a", "a")
    (tmp_path / "old").rename(tmp_path / "new")
    _session(tmp_path / "new" / "results", "a", "a")  # the picture is there already
    assert not (tmp_path / "old").exists()
    assert len(_files(tmp_path / "new" / "results")) == 2
    assert _places(tmp_path / "new" / "results") == {(tmp_path / "new" / "results").as_uri()}


def test_a_linked_storage_is_the_one_behind_the_link(tmp_path: Path) -> None:
    put_into(tmp_path / "real")
    _session(tmp_path / "real", "a", "a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    client.check_recorded(default_uri(tmp_path / "link"), tmp_path / "link")
    _session(tmp_path / "link", "b", "b")
    assert _places(tmp_path / "real") == {(tmp_path / "real").as_uri()}


def test_the_ui_of_a_copy_shows_its_own_artifacts(tmp_path: Path) -> None:
    put_into(tmp_path / "first")
    _session(tmp_path / "first", "a", "a")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    client.check_recorded(default_uri(tmp_path / "copy"), tmp_path / "copy")
    assert _places(tmp_path / "copy") == {(tmp_path / "copy").as_uri()}


def test_others_experiments_in_a_common_database_stay(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    path = put_into(tmp_path)
    places: dict[str, str] = {
        "s": "file:///gone/mlartifacts/s", "t": "file:///gone/mlartifacts/t",
        "mine": "file:///gone/mine", "ss": "file:///gone/mlartifacts/s",
    }  # fmt: skip

    def now() -> dict[str, Any]:
        with closing(sqlite3.connect(path)) as database:
            listed = database.execute("SELECT name, artifact_location FROM experiments WHERE name <> 'Default'")
            return dict(listed.fetchall())

    for number, (name, place) in enumerate(places.items(), 1):
        values = f"{number}, '{name}', '{place}', 'active', 'default'"
        _execute(
            path,
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, workspace) "
            f"VALUES ({values})",
        )
    settle(uri, tmp_path / "mlartifacts", "s")
    assert now() == places | {"s": (tmp_path / "mlartifacts" / "s").as_uri()}
    settle(uri, tmp_path / "mlartifacts")
    assert now() == places | {name: (tmp_path / "mlartifacts" / name).as_uri() for name in "st"}


def test_a_folder_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """MLflow would make it, and with it the storage that somebody has deleted under a running study."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    tracking_database.hurry()
    with pytest.raises(Exception, match="unable to open database file"):
        SqlAlchemyStore(f"sqlite:///{tmp_path}/gone/mlflow.db", str(tmp_path / "mlruns"))
    assert not (tmp_path / "gone").exists()
