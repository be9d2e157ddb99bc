"""What a study asks of a trial's module, and what a running trial gets."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.trial.hooks import TrialModule as TrialModule
    from rssearch.trial.interface import Preparation as Preparation
    from rssearch.trial.session import Context as Context
    from rssearch.trial.session import Session as Session

__all__ = ["Context", "Preparation", "Session", "TrialModule"]

_MODULES = {"Context": "session", "Preparation": "interface", "Session": "session", "TrialModule": "hooks"}
__getattr__ = exports(__name__, _MODULES)
