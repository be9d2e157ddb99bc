"""User-defined code that a YAML names by an import string, such as ``mymodels:tiny``, and what its source is.

Modules are found in the working directory, as Python finds them, or among what is installed. Workers get the sources of
the former along, so that machines which do not have them run what the driver has.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rssearch.errors import InputError
from rssearch.storage import scratch

_SHAPE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_VERSIONED = {"rssearch"}  # says itself what of it changes a result
_INSTALLED = {"site-packages", "dist-packages"}

# What ``trials.NAME`` in a YAML may mean. A list, because in a checkout a file beside these is a user's.
SHIPPED_TRIALS = frozenset(
    {"baselines", "channel_nas", "curves", "finetune", "latency", "micronet", "prune", "searches", "tasks"}
)

Sources = tuple[tuple[str, bytes], ...]  # path relative to a folder that Python searches, and content


def is_import(text: str) -> bool:
    """Whether a text has the shape of an import string, ``package.module:name``."""
    return _SHAPE.fullmatch(text) is not None


def module_name(name: str) -> str:
    """The module that a name in a YAML means: ``trials.prune`` is the shipped one unless the user's folder has another.

    A file that holds what ours holds, such as a link or a copy of it, is ours.
    """
    path = Path(*name.split(".")).with_suffix(".py")
    ours = Path(__file__).parents[1] / path
    if name.removeprefix("trials.") not in SHIPPED_TRIALS or not name.startswith("trials."):
        return name
    found = next((file for place in sys.path if (file := Path(place or ".") / path).is_file()), ours)
    return f"rssearch.{name}" if found.read_bytes() == ours.read_bytes() else name


def load(target: str) -> tuple[Any, ModuleType]:
    """What an import string names, and its module.

    Raises:
        InputError: there is no such module or name, or the module cannot be imported.
    """
    name, _, attribute = target.partition(":")
    _search_here()
    name = module_name(name)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise InputError(f"{target}: importing {name} failed: {error}") from error
        raise InputError(f"{target}: there is no module {name!r} in {Path.cwd()} or among what is installed") from None
    except Exception as error:  # a user's module may raise anything while it is imported
        raise InputError(f"{target}: importing {name} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise InputError(f"{target}: {name} has no function {attribute!r}")
    return getattr(module, attribute), module


def is_shipped(target: str) -> bool:
    """Whether an import string names code of this package."""
    return module_name(target.partition(":")[0]).partition(".")[0] in _VERSIONED


@lru_cache(maxsize=64)
def fingerprint(target: str) -> str:
    """What the code behind an import string is: equal for equal code, on every machine.

    Of a user-defined module it is the SHA-256 of its source and of the sources that it imports from the same folder,
    read once in the life of a process; of an installed package its name and version.

    Raises:
        InputError: the module cannot be imported, or has no source.
    """
    load(target)
    name = module_name(target.partition(":")[0])
    top = name.partition(".")[0]
    root = _root(top)
    if root is None:
        raise InputError(f"{target}: {top} has no source file, so that its results could not be told from others'")
    if _INSTALLED & set(root.parts) and top not in _VERSIONED:
        names = metadata.packages_distributions().get(top, [])
        return " ".join(f"{found} {metadata.version(found)}" for found in sorted(set(names))) or top
    return digest(tuple(sorted(_sources(root, name).items())))


def sources(names: Iterable[str]) -> Sources:
    """The sources behind those of the names that are import strings of user-defined modules, for `install`."""
    _search_here()
    found: dict[str, bytes] = {}
    for name in filter(is_import, names):
        module = module_name(name.partition(":")[0])
        top = module.partition(".")[0]
        root = None if top in _VERSIONED else _root(top)
        if root is not None and not _INSTALLED & set(root.parts):
            found |= _sources(root, module)
    return tuple(sorted(found.items()))


@lru_cache(maxsize=8)
def install(found: Sources) -> None:
    """Let this process import modules from sources, unless it finds the same ones itself."""
    _search_here()
    places = [Path(place) for place in sys.path]
    if any(all(_content(place / path) == content for path, content in found) for place in places):
        return
    as_long_as_the_process = ExitStack()
    folder = as_long_as_the_process.enter_context(scratch.folder("rssearch-modules-"))
    atexit.register(as_long_as_the_process.close)
    for path, content in found:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _search_here() -> None:
    """Let Python search the working directory: a user-defined module lies beside the YAML."""
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _root(top: str) -> Path | None:
    """The folder that holds the source of a top-level module; None where it has none."""
    spec = find_spec(top)
    if spec is not None and spec.origin is None and spec.submodule_search_locations:  # a folder without __init__.py
        return Path(next(iter(spec.submodule_search_locations))).parent
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]


def digest(found: Sources) -> str:
    """The SHA-256 of sources, with their names."""
    hashed = hashlib.sha256()
    for path, content in found:
        hashed.update(f"{path} {len(content)}\n".encode() + content)
    return hashed.hexdigest()


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _sources(root: Path, name: str) -> dict[str, bytes]:
    """The files below a folder that importing a module reads: path relative to it -> content."""
    found: dict[str, bytes] = {}
    todo = [name]
    while todo:
        parts = todo.pop().split(".")
        for end in range(1, len(parts) + 1):  # the packages around a module are imported with it
            file = next((f for f in _places(root, parts[:end]) if f.is_file()), None)
            if file is None or (path := file.relative_to(root).as_posix()) in found:
                continue
            found[path] = file.read_bytes()
            inside = parts[:end] if file.name == "__init__.py" else parts[: end - 1]
            todo += [other for other in _imported(found[path], inside) if other.partition(".")[0] not in _VERSIONED]
    return found


def _places(root: Path, parts: list[str]) -> tuple[Path, Path]:
    path = root.joinpath(*parts)
    return path / "__init__.py", path.with_suffix(".py")


def _imported(source: bytes, package: list[str]) -> Iterator[str]:
    """The names of all modules that a source may import, in functions as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
