"""The database of a record in MLflow: made once, sound, and with its artifacts where it lies now.

MLflow makes its tables at the first touch, and those of its newer releases likewise, by hundreds of statements that two
processes must not run at once. In SQLite a process that is killed amid them leaves a file that no later one can use.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rssearch.errors import InputError
from rssearch.storage import scratch

PATIENCE = 60.0  # seconds that another process may take to make the tables; about five are usual
_LOOKS = 5  # a second apart, at a file that somebody else may be making
_LOCK = 0x7273_7365  # of PostgreSQL's advisory locks
HALF_MADE = "is half made, by a process that was ended meanwhile or by two at once"
_SETTINGS = ("foreign_keys = ON", "busy_timeout = 20000", "case_sensitive_like = true")  # of a connection, as MLflow's
_PLACES = (  # what holds the place of an artifact: table and column
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite database; None for every other tracking store."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except (ArgumentError, ValueError):  # a server, or what MLflow will refuse
        return None
    named = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)) if named and "uri" not in url.query else None


def is_database(uri: str) -> bool:
    """Whether the client itself opens a database, instead of asking a server."""
    return "://" in uri and not uri.startswith(("http://", "https://", "databricks", "file:"))


def check(uri: str) -> None:
    """Look whether a SQLite database can be used. One that is not there yet can be.

    Raises:
        InputError: it is damaged, half made, not MLflow's or cannot be written; what to do about it.
    """
    path = sqlite_path(uri)
    if path is None:
        return
    for look in range(_LOOKS):
        problem = _problem(path)
        if problem != HALF_MADE:
            break
        if look + 1 < _LOOKS:  # a server may be making it
            time.sleep(1)
    if problem is not None:
        raise InputError(remedy(path, problem))


def remedy(path: Path, problem: str) -> str:
    """What is wrong with a database, and what to do about it."""
    return (
        f"MLflow's database {path} {problem}. Move it away (with {path.name}-journal, if there is one): the next "
        "`rssearch search` makes a new one and sends every trial of the journal there; or set tracking_uri "
        "(--tracking-uri) to another one"
    )


def _problem(path: Path) -> str | None:
    if path.is_dir():
        return "is a folder"
    if not os.path.lexists(path):
        near = next(parent for parent in path.absolute().parents if parent.exists())
        return None if near.is_dir() and os.access(near, os.W_OK | os.X_OK) else f"cannot be made in {near}"
    try:
        if path.stat().st_size == 0:
            return None
        if not os.access(path.parent, os.W_OK | os.X_OK):
            return f"cannot be written in {path.parent}"
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=1)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            known = "alembic_version" in tables and database.execute("SELECT * FROM alembic_version").fetchone()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except sqlite3.DatabaseError as error:
        return None if "locked" in str(error) else f"cannot be used: {error}"
    if state != "ok":
        return f"is damaged: {state.splitlines()[-1]}"
    if not tables:
        return None
    if any(name.startswith("_alembic_tmp_") for name in tables) or ("experiments" in tables) != bool(known):
        return HALF_MADE
    return None if "experiments" in tables else "is not MLflow's"


def make(uri: str) -> None:
    """Make the tables of a database that has none, or not all. One process does, the others wait.

    A new file appears whole or not at all.

    Raises:
        FileNotFoundError: there is no folder for the file.
        TimeoutError: another process has been at it for `PATIENCE` seconds.
    """
    path = sqlite_path(uri)
    if path is not None:
        _make_file(path, uri)
    elif uri.startswith("postgresql"):
        _make_on_server(uri)


def _make_file(path: Path, uri: str) -> None:
    from filelock import FileLock

    if not path.parent.is_dir():  # such as that of a storage that was deleted: it is not made again
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE):
        scratch.clear_folders(f".{path.name}.", path.parent)
        if _has_content(path):
            _touch(uri)
            return
        with scratch.folder(f".{path.name}.", path.parent) as folder:
            _touch(f"sqlite:///{folder}/{path.name}")
            if not _has_content(path):  # nor has an MLflow of the user's own made it
                (folder / path.name).replace(path)


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _make_on_server(uri: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection, _advisory_lock(connection):
        _touch(uri)


@contextmanager
def _advisory_lock(connection: Any) -> Iterator[None]:
    from sqlalchemy import text

    deadline = time.monotonic() + PATIENCE
    while not connection.execute(text(f"SELECT pg_try_advisory_lock({_LOCK})")).scalar():
        if time.monotonic() > deadline:
            raise TimeoutError(f"another process has been making its tables for {PATIENCE:g} seconds")
        time.sleep(0.2)
    try:
        yield
    finally:
        connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))


def _touch(uri: str) -> None:
    """Let MLflow make its tables, and let go of the database."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    hurry()
    store = SqlAlchemyStore(uri, "./mlruns")  # type: ignore[no-untyped-call]
    store.engine.dispose()


def hurry() -> None:
    """Let MLflow try once to open a database, not ten times within 100 seconds: who calls it tries again.

    It makes the folder of a SQLite file, too, where that is gone: but a storage that was deleted under a running study
    is not made again.
    """
    import mlflow.store.db.utils as databases

    databases.MAX_RETRY_COUNT = 1
    if hasattr(databases, "_make_parent_dirs_if_sqlite"):  # not in every release
        databases._make_parent_dirs_if_sqlite = lambda db_uri: None  # noqa: ARG005


def settle(uri: str, root: Path, study: str | None = None) -> None:
    """Let the artifacts of a database be where its storage is now, should that have been copied, moved or renamed.

    MLflow writes the absolute place of its artifacts into each experiment, run and model.

    Args:
        uri: of the database.
        root: the folder that holds the artifacts of each study.
        study: the one to look after; None: all, as in a database that belongs to the storage.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    with engine.begin() as connection:
        experiments = sqlalchemy.table("experiments", *map(sqlalchemy.column, ("name", "artifact_location")))
        for name, place in connection.execute(sqlalchemy.select(experiments)).all():
            now = (root.resolve() / name).as_uri()
            if study not in (None, name) or place == now or not str(place).endswith(f"/{root.name}/{name}"):
                continue
            chosen = experiments.c.name == name
            connection.execute(experiments.update().where(chosen).values(artifact_location=now))
            for table, column in _PLACES:
                _move(connection, table, column, place, now)


def _move(connection: Any, table: str, column: str, before: str, now: str) -> None:
    """Let the places below a folder be below another one."""
    import sqlalchemy

    places = sqlalchemy.table(table, sqlalchemy.column(column))
    place = places.c[column]
    rest = sqlalchemy.func.substr(place, len(before) + 1)
    below = sqlalchemy.func.substr(place, 1, len(before) + 1) == f"{before}/"
    connection.execute(places.update().where(below).values({column: sqlalchemy.literal(now) + rest}))


@contextmanager
def one_transaction(client: Any) -> Iterator[None]:
    """Let all that a client of MLflow writes be one transaction, where it writes into a SQLite file itself.

    Each request opens several sessions, one within the other, and waits for the disk at the end of each: about five
    times for a run. Here they share one, in which the end of theirs is that of a savepoint.
    """
    from mlflow.store.db import utils
    from sqlalchemy.orm import Session

    store = client._tracking_client.store
    own = getattr(store, "ManagedSessionMaker", None)
    if own is None or store.db_type != "sqlite":
        yield
        return
    with (
        store.engine.connect() as connection,
        Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session,
    ):
        for setting in _SETTINGS:
            connection.exec_driver_sql(f"PRAGMA {setting}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        shared = utils._get_managed_session_maker(partial(nullcontext, session), "shared")  # type: ignore[no-untyped-call]
        store.ManagedSessionMaker = lambda read_only=True: shared(read_only=False)  # noqa: ARG005
        try:
            yield
        finally:
            store.ManagedSessionMaker = own
        connection.commit()
