"""What is secret in a URI is seen nowhere, and what is masked is never taken for the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from rssearch.config.loading import load_study, parse_study
from rssearch.errors import InputError
from rssearch.report.page.study_files import study_files
from rssearch.storage import uris
from rssearch.storage.location import Remote, address, locate
from rssearch.study import planning
from rssearch.tracking import client, trouble
from tests.support.commands import GOOD, refused, run

MASKED = {
    "https://TOKEN@host/x": "https://***@host/x",
    "https://TOKEN:x-oauth-basic@host": "https://***@host",
    "http://:secret@host": "http://***@host",
    "http://user:@host:5000": "http://***@host:5000",
    "HTTPS://TOKEN@HOST": "HTTPS://***@HOST",
    "http://host:5000/mlflow": "http://host:5000/mlflow",
    "http://[::1]:5000/x": "http://[::1]:5000/x",
    "http://host/x?token=a&b=c#d": "http://host/x?***#***",
    "http://host/?c2VjcmV0==": "http://host/?***",
    "postgresql+psycopg://ada:secret@db:5432/m": "postgresql+psycopg://ada:***@db:5432/m",
    "postgresql://ada:s@cret@db/m": "postgresql://ada:***@db/m",
    "postgresql://ada:se%2Fcret@db/m": "postgresql://ada:***@db/m",
    "postgresql://ada:a secret'\"@db/m": "postgresql://ada:***@db/m",
    "postgresql://TOKEN@db/m": "postgresql://***@db/m",
    "mssql+pyodbc:///?odbc_connect=PWD%3Dsecret": "mssql+pyodbc:///?***",
    "mysql+pymysql://ada:secret@db/m?ssl_key=k": "mysql+pymysql://ada:***@db/m?***",
    "sqlite:////home/me@work/mlflow.db": "sqlite:////home/me@work/mlflow.db",
    "sqlite:///C:\\results\\mlflow.db": "sqlite:///C:\\results\\mlflow.db",
    "s3://KEY:secret@bucket/x": "s3://***@bucket/x",
    "s3://bucket/me@work/x": "s3://bucket/me@work/x",
    "s3://bucket/x?token=secret": "s3://bucket/x?***",
    "abfs://container@account.dfs.core.windows.net/x": "abfs://container@account.dfs.core.windows.net/x",
    "jdbc:postgresql://ada:secret@db/m": "jdbc:postgresql://ada:***@db/m",
    "simplecache::s3://KEY:secret@bucket/x": "simplecache::s3://***@bucket/x",
    # Not understood beyond doubt: masked whole.
    "postgresql://ada:sec/ret@db/m": "postgresql://***",
    "postgresql://ada:12/ret@db/m": "postgresql://***",
    "postgresql://ada:p@se/cret@db/m": "postgresql://***",
    "s3://KEY:sec?ret@bucket/x": "s3://***",
    "https://TO/KEN@host": "https://***",
    "http://[half/x": "http://***",
    "http://host:99999/x": "http://***",
    "https://a/x,https://TOKEN@b": "https://***",
    # Slashes that were forgotten, and drivers with parameters of their own.
    "https:/user:secret@host/x": "***@host/x",
    "//user:secret@host/x": "***@host/x",
    "user:secret@host:5000": "***@host:5000",
    "sqlserver://host;user=sa;password=secret": "sqlserver://host;***",
    "http://host/p;token=secret": "http://host/p;***",
    # No URIs.
    "results": "results",
    "/mnt/me@work:5000?x#y": "/mnt/me@work:5000?x#y",
}
SECRET = "postgresql+psycopg://ada:hun-ter22@db.invalid:5432/m?token=tok%2Fen"
SHOWN = "postgresql+psycopg://ada:***@db.invalid:5432/m?***"


@pytest.mark.parametrize("uri", MASKED)
def test_secrets_are_masked_and_the_rest_is_left(uri: str) -> None:
    assert uris.masked(uri) == MASKED[uri]
    assert uris.masked(MASKED[uri]) == MASKED[uri]
    assert uris.is_masked(MASKED[uri]) is (MASKED[uri] != uri)
    assert not uris.is_masked(uri)


@pytest.mark.parametrize(
    ("text", "uri", "shown"),
    [
        (f"cannot open {SECRET!r}", SECRET, f"cannot open '{SHOWN}'"),
        ("password 'hun-ter22' of ada, tok/en", SECRET, "password '***' of ada, ***"),
        ("invalid literal: 'ret@db'", "postgresql://ada:sec/ret@db/m", "invalid literal: '***@db'"),
        ("quoted hunter%2F22", "http://ada:hunter/22@host/", "quoted ***"),
        ("a 1 in 12 and 1", "http://ada:1@host/?timeout=12", "a *** in 12 and ***"),
        (
            "see (https://TOKEN@host/x), twice: https://T@host.",
            None,
            "see (https://***@host/x), twice: https://***@host.",
        ),
        ("a: b", None, "a: b"),
    ],
)
def test_a_text_that_quotes_a_uri_is_shown_without_its_secrets(text: str, uri: str | None, shown: str) -> None:
    assert uris.hidden(text, uri) == shown


def test_plain_values_are_gone_through() -> None:
    value = {"a": ["https://T@h/x", 3, None, True], "see https://T@h": {"b": (1.5, "x")}}
    assert uris.hidden_in(value) == {"a": ["https://***@h/x", 3, None, True], "see https://***@h": {"b": (1.5, "x")}}
    assert uris.within(value) == ["https://T@h/x", "see https://T@h"]


# where they are shown and written


def study_at(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return GOOD | {"storage": str(tmp_path / "results"), "tracking_uri": SECRET} | more


def test_the_yaml_that_is_written_is_masked_and_the_study_is_not(tmp_path: Path) -> None:
    config = parse_study(study_at(tmp_path, settings={"options": {"hook": "https://TOKEN@host/x"}}))
    assert config.tracking_uri == config.resolved()["tracking_uri"] == SECRET
    assert config.masked()["tracking_uri"] == SHOWN
    assert config.masked()["settings"]["options"] == {"hook": "https://***@host/x"}
    assert config.masked() | {"tracking_uri": SECRET, "settings": 0} == config.resolved() | {"settings": 0}
    remote = parse_study(study_at(tmp_path, storage="s3://KEY:secret@bucket/x"))
    assert remote.masked()["storage"] == "s3://***@bucket/x"
    assert planning.plan(config).resolved["tracking_uri"] == SHOWN


def test_what_is_masked_is_not_taken_for_the_real_uri(tmp_path: Path) -> None:
    written = tmp_path / "written.yaml"
    written.write_text(yaml.safe_dump(parse_study(study_at(tmp_path)).masked()))
    assert load_study(written).tracking_uri == SHOWN  # it can be read, as by `rssearch front`
    refused(run("search", str(written)), f"tracking_uri: {SHOWN}: its secrets are masked", "--tracking-uri")
    refused(run("ui", "--tracking-uri", SHOWN), "its secrets are masked")
    with pytest.raises(InputError, match="its secrets are masked"):
        client.home(tmp_path, SHOWN)
    with pytest.raises(InputError, match=r"storage: s3://\*\*\*@bucket/x: its secrets are masked.*--storage"):
        locate("s3://***@bucket/x")
    assert not (tmp_path / "results").exists()


def test_a_mistake_in_the_yaml_does_not_show_a_secret(tmp_path: Path) -> None:
    for key, value in {
        "tracking_uri": [SECRET],
        "storage": "S3://KEY:secret@b/x",
        "study": SECRET,
        "data_root": 3,
    }.items():
        with pytest.raises(InputError) as error:
            parse_study(study_at(tmp_path, **{key: value}))
        for secret in ("hun-ter22", "tok%2Fen", "KEY", "secret@"):
            assert secret not in str(error.value)
    done = run("search", "quickstart", "--set", f"tracking uri={SECRET}")
    refused(done, "must be key.path=value")
    assert "hun-ter22" not in done.err


def test_a_storage_is_shown_without_its_secrets_and_goes_whole_to_other_processes() -> None:
    place = locate("s3://KEY:secret@bucket/x?token=abc/") / "study"
    assert isinstance(place, Remote)
    assert str(place) == f"{place}" == "s3://***@bucket/x?***"
    assert "secret" not in repr(place)
    assert "KEY" not in repr(place)
    assert locate(address(place)) == place
    assert address(Path("a/b")) == "a/b"


def test_what_a_store_says_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(remote: Remote) -> None:
        raise ValueError(f"Invalid bucket name {remote.url.removeprefix('s3://')!r}")

    monkeypatch.setattr(Remote, "_at", fails)
    with pytest.raises(InputError) as error:
        Remote("s3://KEY:se-cret-22@bucket/x").read_bytes()
    assert str(error.value) == (
        "storage s3://***@bucket/x: the store cannot be used: ValueError: Invalid bucket name '***@bucket/x'"
    )
    assert error.value.__suppress_context__


def test_what_a_database_says_is_told_without_secrets() -> None:
    for uri in (SECRET, "postgresql://ada:hun/ter22@db.invalid/m", "nodriver://ada:hunter22@db.invalid/m"):
        with pytest.raises(InputError) as error, client.opening(uri):
            sqlalchemy.create_engine(uri).connect()
        assert str(error.value).startswith(f"MLflow cannot open {uris.masked(uri)}: ")
        for secret in ("hun-ter22", "tok", "ter22", "hunter22"):
            assert secret not in str(error.value)


def test_the_tracking_uri_is_no_argument_of_the_writer(
    tmp_path: Path, start_real_writer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "start_writer", start_real_writer)  # the real command
    tracker = client.Tracker(SECRET, "s", tmp_path)
    try:
        assert tracker._process.args == [sys.executable, "-m", "rssearch.tracking.writer", "s", str(tmp_path)]
    finally:
        tracker._process.kill()
        tracker._end()
    told = trouble.trouble(ValueError(f"{'x' * 250} {SECRET} and more"), SECRET)
    assert told["why"] == f"{'x' * 250} {SHOWN} and more"[:300]


def test_documents_of_earlier_releases_are_shown_without_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "s"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(yaml.safe_dump({"tracking_uri": SECRET, "study": "s"}, sort_keys=False))
    assert study_files(folder, []).documents == {"study.yaml": f"tracking_uri: {SHOWN}\nstudy: s\n"}
    (folder / "study.yaml").write_text(f"tracking_uri: [{SECRET}\n")
    assert "hun-ter22" not in study_files(folder, []).documents["study.yaml"]
    plain = "study: s   # as it is\n"
    (folder / "study.yaml").write_text(plain)
    assert study_files(folder, []).documents == {"study.yaml": plain}
