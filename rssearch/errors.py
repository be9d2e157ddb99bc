"""The errors that a user can cause, and those that a trial can end with."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["DataWarning", "Infeasible", "InputError", "OutOfMemory", "PeerLostError", "StorageGoneError", "TrialFailed"]


class InputError(ValueError):
    """What the user gave cannot be used. The command line prints the message alone and exits with status 2."""


class DataWarning(UserWarning):
    """Something about a dataset that its reader should know: files that are left out, copies in two splits."""


class TrialFailed(RuntimeError):  # noqa: N818 - it is a status of a trial
    """A trial cannot continue, for a reason that a second try would meet (a diverged loss, an impossible ratio)."""


class Infeasible(RuntimeError):  # noqa: N818 - likewise
    """What is known of a trial before its training breaks a constraint.

    Args:
        metrics: what is known.
    """

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        super().__init__(dict(metrics))
        self.metrics = dict(metrics)


class OutOfMemory(RuntimeError):  # noqa: N818 - as PyTorch and Ray name theirs
    """The memory did not suffice for a training step; a trial is tried again with half as many images at a time."""


class StorageGoneError(RuntimeError):
    """A study's folder was deleted, moved or replaced while the study ran."""


class PeerLostError(RuntimeError):
    """One of the workers that run a trial together died; the trial can be started again."""


_MOST = 100  # characters of a value in a message
_short = reprlib.Repr()  # costs the same, however large the value is
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, _MOST, _MOST, 40


def shown(value: object) -> str:
    """A value for a message, as Python writes it; cut where it is long or deep."""
    try:
        return cut(_short.repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a value of type {type(value).__name__}"


def cut(text: str, most: int = _MOST) -> str:
    """A text for a message, without its middle where it is long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 2 - 3) :]}"


def unknown(what: str, name: object, allowed: Iterable[str], unlisted: Iterable[str] = ()) -> InputError:
    """The error for a name that is not in a registry.

    Args:
        what: the kind of thing, for example ``"method"``.
        name: what was asked for.
        allowed: the names that exist.
        unlisted: further ones, too many to list: they are named where they are close.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(cut(str(name)), [*names, *unlisted], n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return InputError(f"unknown {what} {shown(name)}.{hint} Known: {', '.join(names)}.")
