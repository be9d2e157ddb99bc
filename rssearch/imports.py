"""Code of one's own that a YAML names by an import string, such as ``mymodels:tiny``, and what its source is.

Modules are found in the working directory, as Python finds them, or among what is installed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rssearch.errors import InputError

_SHAPE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_VERSIONED = {"rssearch", "trials"}  # say themselves what of them changes a result
_INSTALLED = {"site-packages", "dist-packages"}


def is_import(text: str) -> bool:
    """Whether a text has the shape of an import string, ``package.module:name``."""
    return _SHAPE.fullmatch(text) is not None


def load(target: str) -> tuple[Any, ModuleType]:
    """What an import string names, and its module.

    Raises:
        InputError: there is no such module or name, or the module cannot be imported.
    """
    name, _, attribute = target.partition(":")
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # a module of one's own lies beside the YAML
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and not name.startswith(error.name):
            raise InputError(f"{target}: importing {name} failed: {error}") from error
        raise InputError(f"{target}: there is no module {name!r} in {here} or among what is installed") from None
    except Exception as error:  # a user's module may raise anything while it is imported
        raise InputError(f"{target}: importing {name} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise InputError(f"{target}: {name} has no {attribute!r}")
    return getattr(module, attribute), module


@lru_cache(maxsize=64)
def fingerprint(target: str) -> str:
    """What the code behind an import string is: equal for equal code, on every machine.

    Of a module of one's own it is the SHA-256 of its source and of the sources that it imports from the same folder,
    read once in the life of a process; of an installed package its name and version.

    Raises:
        InputError: the module cannot be imported, or has no source.
    """
    load(target)
    name = target.partition(":")[0]
    top = name.partition(".")[0]
    spec = find_spec(top)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError(f"{target}: {top} has no source file, so that its results could not be told from others'")
    root = Path(spec.origin).parents[1 if spec.submodule_search_locations else 0]
    if _INSTALLED & set(root.parts) and top not in _VERSIONED:
        names = metadata.packages_distributions().get(top, [])
        return " ".join(f"{found} {metadata.version(found)}" for found in sorted(set(names))) or top
    digest = hashlib.sha256()
    for path, content in sorted(_sources(root, name).items()):
        digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()


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
