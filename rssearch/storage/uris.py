"""Secrets in URIs: passwords, tokens in the place of a user, queries and fragments are never shown or written.

A URI is parsed. What cannot be parsed beyond doubt, such as a password with a bare ``/``, is masked whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, quote_plus, unquote, unquote_plus, urlsplit

from rssearch.errors import InputError

MASK = "***"
_DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "sqlite")
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")  # of Azure: CONTAINER@ACCOUNT
_WORD = 8  # a secret shorter than this is replaced in a text where it stands alone, not within another word
_VALUE = 3  # shorter values of a query are hardly secrets: timeout=10
# Where a URI begins and ends in a text. What is secret in it is not for a pattern to say.
_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]*[^\s'\"<>`.,;:!?)\]}]")
T = TypeVar("T")


def masked(uri: str) -> str:
    """A URI without its secrets; a text that is none as it is.

    A password becomes ``***``, and so do the query and the fragment. A user without a password, and whoever is named in
    the URI of a server, may be a token: only the users of databases and Azure's containers are shown.
    """
    before, found, rest = uri.partition("://")
    if not found:  # a slash that was forgotten, or none of the scheme
        who, at, host = uri.rpartition("@")
        return f"{MASK}@{host}" if at and ":" in who else uri
    if ";" in rest:  # parameters of some drivers, passwords among them
        return f"{masked(uri.partition(';')[0])};{MASK}"
    if "://" in rest:  # a URI within a URI: nobody knows which part belongs to which
        return f"{before}://{MASK}"
    parts, scheme = _parsed(rest, _scheme(before)), _scheme(before)
    if parts is None:
        return f"{before}://{MASK}"
    who, at, host = parts.netloc.rpartition("@")
    user, password, known = _user(who, scheme)
    shown = MASK if not known else f"{user}:{MASK}" if password else user
    query, fragment = (f"{sign}{MASK}" if text else "" for sign, text in (("?", parts.query), ("#", parts.fragment)))
    return f"{before}://{shown if at and who else ''}{at}{host}{parts.path}{query}{fragment}"


def is_masked(uri: str) -> bool:
    """Whether a URI is what `masked` leaves of one with secrets: nothing can be reached by it."""
    return MASK in uri and (
        uri.endswith((f"://{MASK}", f";{MASK}")) or uri.startswith(f"{MASK}@") or MASK in masked(uri.replace(MASK, "x"))
    )


def check_whole(uri: str | None, key: str, option: str) -> None:
    """Refuse a URI that was written without its secrets, as a study's own ``study.yaml`` has it.

    Raises:
        InputError: it is one.
    """
    if uri is not None and is_masked(uri):
        raise InputError(f"{key}: {uri}: its secrets are masked, as in study.yaml; give the whole URI ({option})")


def hidden(text: str, *uris: str | None) -> str:
    """A text such as an error message without the secrets of these URIs, and of any other URI that is in it.

    Args:
        text: may quote a URI whole or in part.
        uris: those that are known to be at stake.
    """
    for uri in filter(None, uris):
        text = text.replace(uri, masked(uri))
        for secret in sorted(_secrets(uri), key=len, reverse=True):
            exact = re.escape(secret) if len(secret) >= _WORD else rf"(?<!\w){re.escape(secret)}(?!\w)"
            text = re.sub(exact, MASK, text)
    return _IN_TEXT.sub(lambda found: masked(found[0]), text) if "://" in text else text


def hidden_in(value: T, *uris: str | None) -> T:
    """`hidden` for every text in a plain value: lists and mappings are gone through."""
    result: Any = value
    if isinstance(value, str):
        if uris or "://" in value:
            result = hidden(masked(value) if re.fullmatch(r"\S+://\S*", value) else value, *uris)
    elif isinstance(value, float | int | None):  # most values
        pass
    elif isinstance(value, Mapping):
        result = {hidden_in(name, *uris): hidden_in(one, *uris) for name, one in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(hidden_in(one, *uris) for one in value)
    return result  # type: ignore[no-any-return]


def within(value: Any) -> list[str]:
    """Every text of a plain value that has a URI in it, such as those of a study's configuration."""
    if isinstance(value, Mapping):
        return [text for pair in value.items() for one in pair for text in within(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in within(one)]
    return [value] if isinstance(value, str) and "://" in value else []


def _scheme(before: str) -> str:
    """The scheme of what stands before ``://``, without a driver (``postgresql+psycopg``) or a wrapper (``jdbc:``)."""
    return re.split(r"[^a-z0-9.-]", re.split(r":+", before.lower())[-1])[0]


def _user(who: str, scheme: str) -> tuple[str, str, bool]:
    """User and password, and whether the user is a name that may be seen."""
    user, _, password = who.partition(":")
    return user, password, scheme in _CONTAINERS or (scheme in _DATABASES and bool(password))


def _parsed(rest: str, scheme: str) -> SplitResult | None:
    """The parts of what follows ``://``; None where another reader could take other parts for the user's secrets."""
    try:
        parts = urlsplit(f"//{rest}")
        _ = parts.port
    except ValueError:
        return None
    beyond = f"{parts.path}?{parts.query}#{parts.fragment}"
    # SQLAlchemy takes all up to a later @ for the password, and so may who wrote it.
    doubtful = any(sign in parts.netloc for sign in "@:") or (parts.netloc and scheme in (*_DATABASES, "http", "https"))
    return None if "@" in beyond and doubtful else parts


def _secrets(uri: str) -> set[str]:
    """What must not be seen of a URI, as it stands there and as errors may quote it."""
    before, found, rest = uri.partition("://")
    if not found:
        return set()
    scheme = _scheme(before)
    parts = _parsed(rest, scheme) if "://" not in rest else None
    if parts is None:
        who = rest.rpartition("@")[0] or rest
        words = re.split(r"[:/@?#&=]+", who)  # a reader that takes it apart otherwise may quote any of them
        pieces = {rest, who, who.partition(":")[2], *(word for word in words if len(word) >= _VALUE)}
    else:
        who = parts.netloc.rpartition("@")[0]
        user, password, known = _user(who, scheme)
        values = [item.partition("=")[2] or item for item in parts.query.split("&")]
        pieces = {password, parts.query, parts.fragment, *(value for value in values if len(value) >= _VALUE)}
        pieces |= set() if known else {who, user}
    plain = {way(piece) for piece in pieces for way in (str, unquote, unquote_plus)}
    quoted = {way(piece, safe="") for piece in plain for way in (quote, quote_plus)}
    return {piece for piece in plain | quoted | {repr(piece)[1:-1] for piece in plain} if piece and piece != MASK}
