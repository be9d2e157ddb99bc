"""Which job of a study is next: what trials need comes first, and a trial waits for what it needs alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from rssearch.trial.jobs import LATER, Job

__all__ = ["JobQueue"]


class JobQueue:
    """Jobs in the order in which they may start.

    Args:
        preparations: start first, in this order.
        ask: the next trial; None: nothing more.
        needs: keys of the preparations that a trial needs.
        most: trials that are asked for, at most, while they cannot start; the samplers know nothing of each other's.

    Attributes:
        missing: keys of the preparations that have not ended.
    """

    def __init__(
        self,
        preparations: Iterable[Job],
        ask: Callable[[], Job | None],
        needs: Callable[[Job], set[str]],
        most: int,
    ) -> None:
        self._preparations, self._ask, self._needs, self._most = deque(preparations), ask, needs, most
        self.missing = {job.key for job in self._preparations}
        self._waiting: list[tuple[Job, set[str]]] = []

    def next(self) -> Job | None:
        """The next job; LATER where each that is left waits for a preparation; None: there are no more."""
        if self._preparations:
            return self._preparations.popleft()
        for number, (job, needs) in enumerate(self._waiting):
            if self.missing.isdisjoint(needs):
                del self._waiting[number]
                return job
        while len(self._waiting) < self._most and (found := self._ask()) is not None:
            if not self.missing or self.missing.isdisjoint(needs := self._needs(found)):
                return found
            self._waiting.append((found, needs))
        return LATER if self._waiting else None

    def prepared(self, key: str) -> None:
        """A preparation ended, well or not."""
        self.missing.discard(key)
