"""What Ray Tune asks for the next trial: a thin adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from rssearch.trial.jobs import LATER, Job


class Bridge(Searcher):
    """Gives Ray Tune one job after another.

    Args:
        ask: the next job; LATER: it has to wait for one that runs; None: nothing more.
    """

    def __init__(self, ask: Callable[[], Job | None]) -> None:
        super().__init__()
        self._ask = ask

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for snapshots that we do not use; the study stays here."""
        return {}

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """The next configuration, as Ray Tune asks for it."""
        job = self._ask()
        if job is LATER:
            return None  # Tune asks again
        return Searcher.FINISHED if job is None else job._asdict()

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to do: outcomes go through the study's callback, which sees crashed trials as well."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is what a study resumes from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""
