"""Which files a user-defined network reads while it is built: those that no key knows are refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from rssearch.errors import InputError, cut

__all__ = ["only_known_files"]

_CODE = {".py", ".pyc", ".so", ".pyd"}
_INSTALLED = {"site-packages", "dist-packages"}

_here = threading.local()


@cache
def _listen() -> None:
    """Hear of each `open` of this process from now on; Python has no way to stop an audit hook."""

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        found: list[str] | None = getattr(_here, "found", None)
        if event == "open" and found is not None and isinstance(arguments[0], str | bytes):
            path, mode = arguments[0], arguments[1]
            if mode is None or "r" in str(mode):
                found.append(path if isinstance(path, str) else path.decode(errors="replace"))

    sys.addaudithook(heard)


@contextmanager
def only_known_files(name: str, known: str | None) -> Iterator[None]:
    """Refuse what a network reads below the working directory beside its code and the weights that it is given.

    What native code opens, such as safetensors' own reader, is not heard of.

    Args:
        name: of the network.
        known: the file of weights that it is given.

    Raises:
        InputError: it has read another file: a study would not notice that the file has changed.
    """
    _listen()
    before, _here.found = getattr(_here, "found", None), list[str]()
    try:
        yield
        found = _here.found
    finally:
        _here.found = before
    for path in map(Path, found):
        if _is_unknown(path, None if known is None else Path(known)):
            raise InputError(
                f"{name}: reads {cut(str(path), 300)} while it is built, and no key of a study would know its content. "
                "Give the network a parameter `weights`, and name the file as its weights in settings.model"
            )


def _is_unknown(path: Path, known: Path | None) -> bool:
    here, place = Path.cwd(), path.absolute()
    if not place.is_relative_to(here) or not place.is_file() or place.suffix in _CODE:
        return False
    inside = place.relative_to(here).parts
    if any(part.startswith(".") for part in inside) or _INSTALLED & set(inside):  # caches, and what is installed
        return False
    return known is None or not known.exists() or not place.samefile(known)
