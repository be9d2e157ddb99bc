"""Model zoos that come as extras of the package: imported when a network of theirs is named."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from types import ModuleType

from rssearch.errors import InputError, cut, shown

# Top-level module -> the extra of this package that installs it, and what pip calls the library.
EXTRAS = {
    "timm": ("timm", "timm"),
    "segmentation_models_pytorch": ("smp", "segmentation-models-pytorch"),
    "torchgeo": ("torchgeo", "torchgeo"),
}


def is_installed(module: str) -> bool:
    """Whether a zoo can be imported, without doing so."""
    return find_spec(module) is not None


def install_command(module: str) -> str:
    """What installs a zoo."""
    return f"pip install 'rssearch[{EXTRAS[module][0]}]'"


def load(module: str, what: str) -> ModuleType:
    """The module of a zoo, or one inside of it.

    Args:
        module: its full name.
        what: needs it, for the message.

    Raises:
        InputError: the zoo is not installed, with the command that installs it, or cannot be imported.
    """
    top = module.partition(".")[0]
    if not is_installed(top):
        raise InputError(f"{what} needs {EXTRAS[top][1]}, which is not installed: {install_command(top)}")
    try:
        return importlib.import_module(module)
    except Exception as error:  # versions that do not go together raise anything
        why = cut(f"{type(error).__name__}: {error}", 300)
        raise InputError(f"{what} needs {EXTRAS[top][1]}, which cannot be imported: {why}") from error


def code_of(module: str) -> str:
    """What the code of a zoo is: its name and version."""
    return f"{EXTRAS[module][1]} {metadata.version(EXTRAS[module][1])}"


def unknown_in(what: str, name: str, names: Iterable[str]) -> InputError:
    """The error for a name that a zoo of hundreds does not have: those that are near, not all of them."""
    close = difflib.get_close_matches(cut(name), list(names), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    return InputError(f"unknown {what} {shown(name)}.{hint} `rssearch models --search TEXT` lists those that match.")
