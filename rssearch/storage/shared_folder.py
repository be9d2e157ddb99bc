"""Whether every node sees the study's storage.

A folder on the disk of one node looks like any other, but what the other nodes write below its name stays with them. So
the driver leaves a token in the study's folder, and nobody starts a trial who does not see it.
"""

from __future__ import annotations

import time
import uuid
from functools import lru_cache

from rssearch.errors import InputError, StorageGoneError
from rssearch.storage import uris
from rssearch.storage.location import Location, locate, remove_tree, write_atomic

_FOLDER = ".session"  # a new name for each session: a shared folder may answer for an old one from a cache
_TRIES = 3  # a second apart: a shared folder may be a moment late


def leave_token(folder: Location) -> str:
    """Put a token of this session into a study's folder, in place of an older one, and return it."""
    token = uuid.uuid4().hex
    remove_tree(folder / _FOLDER)
    write_atomic(folder / _FOLDER / token, "")
    return token


@lru_cache(maxsize=8)
def problem(folder: str, token: str) -> str | None:
    """Why this process does not see the token of a session; None if it does. It looks once in its life."""
    for left in reversed(range(_TRIES)):
        try:
            (locate(folder) / _FOLDER / token).read_bytes()
        except FileNotFoundError:
            if left:
                time.sleep(1)
        except (OSError, InputError) as error:
            return str(error)
        else:
            return None
    return "what the driver wrote there is not seen"


def check_there(folder: Location, token: str) -> None:
    """Look whether the token of a running session is where it was left: the storage may be deleted under a study.

    Raises:
        StorageGoneError: it is not there, nor a moment later.
    """
    for left in reversed(range(_TRIES)):
        try:
            (folder / _FOLDER / token).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if left:
                time.sleep(1)
        except (OSError, InputError):  # out of reach for a while
            return
        else:
            return
    raise StorageGoneError(
        f"{folder} was deleted, moved or replaced while the study ran; what it held is not written again. "
        "`rssearch search` begins with what it finds there"
    )


def refusal(folder: Location | str, found: dict[str, str]) -> InputError:
    """The error for nodes that do not share a study's folder, by what they say."""
    shown = "; ".join(f"node {node}: {reason}" for node, reason in found.items())
    return InputError(
        f"storage: {uris.masked(str(folder))} is not shared by all nodes ({shown}); set storage (--storage) to a "
        "folder that every node mounts under the same path, or to an object store such as s3://bucket/results"
    )
