"""Where a study's YAML is: a path, or the name of one that is shipped."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from rssearch.errors import InputError, cut
from rssearch.storage.location import expand


def shipped() -> dict[str, Path]:
    """The shipped spaces by their names, such as ``quickstart`` or ``papers/lfp``."""
    root = Path(str(resources.files("rssearch"))) / "search_spaces"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find(name: str) -> Path:
    """The file of a space.

    Args:
        name: a path, the name of a shipped space, or its path in the project (``search_spaces/quickstart.yaml``), which
            a script that was copied elsewhere can still use.

    Raises:
        InputError: there is no such file or name.
    """
    path = expand(name)
    try:
        if path.is_file():
            return path
    except OSError as error:
        raise InputError(f"{cut(name)}: {error.strerror}") from None
    known = shipped()
    plain = name.removeprefix("search_spaces/").removesuffix(".yaml").removesuffix(".yml")
    if plain in known:
        return known[plain]
    close = difflib.get_close_matches(cut(plain), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"{cut(name)}: there is no such file, and no shipped space of that name.{hint} Shipped: {', '.join(known)}."
    )
