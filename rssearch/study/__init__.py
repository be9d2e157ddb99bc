"""The story of a study: define, plan, run, record, read back."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.study.frames import Results as Results
    from rssearch.study.frames import results as results
    from rssearch.study.planning import Plan as Plan
    from rssearch.study.planning import plan as plan
    from rssearch.study.run import search as search
    from rssearch.study.script import load_study as load_study

__all__ = ["Plan", "Results", "load_study", "plan", "results", "search"]

_MODULES = {
    "Plan": "planning",
    "Results": "frames",
    "load_study": "script",
    "plan": "planning",
    "results": "frames",
    "search": "run",
}

__getattr__ = exports(__name__, _MODULES)
