"""Which job of a study is next: what trials need, trials as soon as that is there, and what has to run alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from rssearch.trial.jobs import LATER, Job

__all__ = ["JobQueue"]


class JobQueue:
    """Jobs in the order in which they may start.

    Args:
        preparations: start first, in this order.
        ask: the next trial; None: nothing more.
        needs: keys of the preparations that a trial needs.
        most: so many trials are asked for, at most, that cannot start yet; a sampler that learns knows no more of them.
        alone: called once all else has ended, for the jobs that run one after another.
    """

    def __init__(
        self,
        preparations: Iterable[Job],
        ask: Callable[[], Job | None],
        needs: Callable[[Job], set[str]],
        most: int,
        alone: Callable[[], Iterable[Job]] = tuple,
    ) -> None:
        self._preparations, self._ask, self._needs, self._most = deque(preparations), ask, needs, most
        self._missing = {job.key for job in self._preparations}
        self._waiting: list[tuple[Job, set[str]]] = []
        self._running: set[str] = set()
        self._alone = alone
        self._more = True  # trials
        self._left: Iterator[Job] | None = None

    def next(self) -> Job | None:
        """The next job; LATER where those that are left wait for one that runs; None: there are no more."""
        job = self._next()
        if job is not None and job is not LATER:
            self._running.add(job.name)
        return job

    def _next(self) -> Job | None:
        if self._preparations:
            return self._preparations.popleft()
        for number, (job, needs) in enumerate(self._waiting):
            if self._missing.isdisjoint(needs):
                del self._waiting[number]
                return job
        while self._more and len(self._waiting) < self._most:
            if (found := self._ask()) is None:
                self._more = False
            elif not self._missing or self._missing.isdisjoint(needs := self._needs(found)):
                return found
            else:
                self._waiting.append((found, needs))
        if self._waiting or self._running:
            return LATER
        if self._left is None:
            self._left = iter(self._alone())
        return next(self._left, None)

    def ended(self, job: Job) -> None:
        """A job ended, well or not."""
        self._running.discard(job.name)
        self._missing.discard(job.key)
