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
    jobs.ended(B)
    assert taken(jobs) == ["B1", "B2"]
    assert jobs.next() is LATER
    jobs.ended(A)
    assert taken(jobs) == ["A1", "A2"]
    for name in ("A1", "A2", "B1", "B2"):
        assert jobs.next() is LATER
        jobs.ended(trial(name))
    jobs.ended(trial("C1"))
    assert jobs.next() is None


def test_without_preparations_nobody_is_asked_what_a_trial_needs() -> None:
    def needs(_: Job) -> Any:
        raise AssertionError

    jobs = iter([trial("A1")])
    empty = JobQueue([], lambda: next(jobs, None), needs, 9)
    assert empty.next() == trial("A1")


def test_only_so_many_trials_are_asked_for_while_they_wait() -> None:
    jobs = queue("A1 A2 B1", 2, A)
    assert taken(jobs) == ["A"]
    assert jobs.next() is LATER  # B1, which could start, is not asked for
    jobs.ended(A)
    assert taken(jobs) == ["A1", "A2", "B1"]


def test_nobody_is_asked_again_once_there_are_no_more_trials() -> None:
    jobs = queue("A1", 9, A)
    assert jobs.next() == A
    assert [jobs.next(), jobs.next()] == [LATER, LATER]
    jobs.ended(A)
    assert jobs.next() == trial("A1")
    assert jobs.next() is LATER
    jobs.ended(trial("A1"))
    assert jobs.next() is None


def test_what_runs_alone_comes_last_one_after_another() -> None:
    """A measurement has the key of its trial."""
    looked = []

    def alone() -> list[Job]:
        looked.append(True)
        return [trial("A1")._replace(function="measure"), trial("A2")._replace(function="measure")]

    names = iter([trial("A1"), trial("A2")])
    jobs = JobQueue([], lambda: next(names, None), lambda _: set(), 9, alone)
    assert taken(jobs) == ["A1", "A2"]
    jobs.ended(trial("A2"))
    assert jobs.next() is LATER
    assert not looked
    jobs.ended(trial("A1"))
    for number in (1, 2):
        job = jobs.next()
        assert job == Job(f"A{number}", {"needs": "A"}, "measure")
        assert jobs.next() is LATER
        jobs.ended(job)
    assert jobs.next() is None
    assert len(looked) == 1
