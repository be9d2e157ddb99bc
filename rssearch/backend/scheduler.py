"""How Ray Tune stops the trials that do not continue: a thin adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from rssearch.trial.jobs import Job


class TuneScheduler(FIFOScheduler):
    """Lets Ray Tune stop the trials that do not continue.

    Args:
        should_continue: is asked with the job and the metrics of every epoch that a trial reports.
        reported: the metrics of an epoch in a result of Ray Tune; None for another result, such as a trial's last.

    Attributes:
        stopped: names of the jobs that were stopped.
    """

    def __init__(
        self,
        should_continue: Callable[[Job, dict[str, Any]], bool],
        reported: Callable[[dict[str, Any]], dict[str, Any] | None],
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._should_continue, self._reported = should_continue, reported
        self.stopped: set[str] = set()
        self._chosen: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler for snapshots that we do not use; the study stays here."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next trial that has no worker yet, rather than the first one that waits.

        One that has been chosen waits for a worker that starts. Given again it would get the worker of a trial that has
        just ended, and Tune would end the one that starts: where trials take less than the start of a worker, all would
        run on the first one.
        """
        waiting = [t for t in tune_controller.get_live_trials() if t.status == Trial.PENDING]
        new = sorted(trial.trial_id for trial in waiting if trial.trial_id not in self._chosen)
        if not new:
            return None
        self._chosen.add(new[0])
        return next(trial for trial in waiting if trial.trial_id == new[0])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """The decision, before Tune's callbacks see the result."""
        job, metrics = Job.given(trial.config), self._reported(result)
        if metrics is None or self._should_continue(job, metrics):
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(job.name)
        return str(TrialScheduler.STOP)
