"""Which job of a study is next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rssearch.study.job_queue import JobQueue
from rssearch.trial.jobs import LATER, Job

A, B = Job("A", {}, "prepare"), Job("B", {}, "prepare")


def trial(name: str) -> Job:
    return Job(name, {"needs": name[0]})


def queue(names: str, most: int = 9, *preparations: Job) -> JobQueue:
    jobs: Iterator[Job] = map(trial, names.split())
    return JobQueue(preparations, lambda: next(jobs, None), lambda job: {job.point["needs"]}, most)


def taken(jobs: JobQueue) -> list[str]:
    """What can start now."""
    found: list[str] = []
    while (job := jobs.next()) is not None and job is not LATER:
        found.append(job.key)
    return found


def test_what_trials_need_comes_first_and_they_start_as_soon_as_it_is_there() -> None:
    jobs = queue("A1 B1 A2 B2 C1", 9, A, B)
    assert taken(jobs) == ["A", "B", "C1"]
    assert jobs.next() is LATER
    jobs.prepared("B")
    assert taken(jobs) == ["B1", "B2"]
    assert jobs.next() is LATER
    jobs.prepared("A")
    assert taken(jobs) == ["A1", "A2"]
    assert jobs.next() is None


def test_without_preparations_nobody_is_asked_what_a_trial_needs() -> None:
    def needs(_: Job) -> Any:
        raise AssertionError

    jobs = iter([trial("A1")])
    empty = JobQueue([], lambda: next(jobs, None), needs, 9)
    assert (empty.next(), empty.next()) == (trial("A1"), None)


def test_only_so_many_trials_are_asked_for_while_they_wait() -> None:
    jobs = queue("A1 A2 B1", 2, A)
    assert taken(jobs) == ["A"]
    assert jobs.next() is LATER  # B1, which could start, is not asked for
    jobs.prepared("A")
    assert taken(jobs) == ["A1", "A2", "B1"]


def test_the_last_trials_wait_for_the_last_preparation() -> None:
    jobs = queue("A1", 9, A)
    assert jobs.next() == A
    assert jobs.next() is LATER
    assert jobs.next() is LATER
    jobs.prepared("A")
    assert (jobs.next(), jobs.next()) == (trial("A1"), None)
