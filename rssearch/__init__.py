"""Pruning-rate and architecture search for remote-sensing CNNs.

    import rssearch

    study = rssearch.load_study("quickstart", {"search.seed": 1})   # a YAML file, or the name of a shipped space
    print(rssearch.plan(study).lines())                             # nothing is trained
    rssearch.search(study)                                          # run it, or resume it; 0: done, see `study.run`
    found = rssearch.results(study)                                 # .trials, .front, .baseline: frames; .hypervolume
    small = rssearch.shrink(model, loader, macs_ratio=0.5, val=loader)   # a module of your own, without Ray

The packages (`rssearch.pruning`, `rssearch.data`, ...) are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rssearch.config.loading import parse_study as parse_study
    from rssearch.config.schema import StudyConfig as StudyConfig
    from rssearch.errors import InputError as InputError
    from rssearch.study.frames import Results as Results
    from rssearch.study.frames import results as results
    from rssearch.study.planning import Plan as Plan
    from rssearch.study.planning import plan as plan
    from rssearch.study.run import search as search
    from rssearch.study.script import load_study as load_study
    from rssearch.study.shrink_module import Shrunk as Shrunk
    from rssearch.study.shrink_module import shrink as shrink

_FUNCTIONS = {
    "InputError": "errors",
    "Plan": "study.planning",
    "Results": "study.frames",
    "StudyConfig": "config.schema",
    "load_study": "study.script",
    "Shrunk": "study.shrink_module",
    "shrink": "study.shrink_module",
    "parse_study": "config.loading",
    "plan": "study.planning",
    "results": "study.frames",
    "search": "study.run",
}
_PACKAGES = (
    "bundle",
    "config",
    "cost",
    "data",
    "front",
    "models",
    "nas",
    "papers",
    "pruning",
    "report",
    "train",
    "trial",
)

__all__ = [
    "InputError",
    "Plan",
    "Results",
    "Shrunk",
    "StudyConfig",
    "load_study",
    "parse_study",
    "plan",
    "results",
    "search",
    "shrink",
]


def __getattr__(name: str) -> Any:
    """Import a package or a public function when it is used (PEP 562): the command line starts fast."""
    if name in _PACKAGES:
        return import_module(f"rssearch.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(f"rssearch.{_FUNCTIONS[name]}"), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'rssearch' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # takes as long as all else that `--help` imports

    try:
        return version("rssearch")
    except PackageNotFoundError:  # a copy of the sources that was never installed
        return "unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *_FUNCTIONS, *_PACKAGES, "__version__"})
