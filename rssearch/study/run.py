"""The way of a study, from top to bottom: plan, search, measure, report."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rssearch.backend import nodes
from rssearch.config import plain_yaml
from rssearch.config.schema import StudyConfig
from rssearch.errors import DataWarning, InputError, StorageGoneError
from rssearch.front import references
from rssearch.report import files
from rssearch.storage import shared_folder, uris
from rssearch.storage.journal import Journal, flat
from rssearch.storage.location import check_writable, remove, write_atomic
from rssearch.storage.lock import Held, lock
from rssearch.study import class_metrics, devices, rounding, split_files, weight_files
from rssearch.study.console import PlainConsole
from rssearch.study.definition import StudyDefinition, sample_note
from rssearch.study.environment import environment
from rssearch.study.planning import Plan, plan
from rssearch.study.progress import Display
from rssearch.study.recorder import Recorder, clear_leftovers
from rssearch.study.stages import Stages
from rssearch.tracking import client, database, views
from rssearch.trial.interface import CHECKPOINTS

if TYPE_CHECKING:
    from rssearch.backend.stop import Stop

__all__ = ["Plan", "flat", "plan", "search"]

_log = logging.getLogger(__name__)

DONE, SOME_FAILED, GONE, INTERRUPTED = 0, 1, 1, 130


def search(
    config: StudyConfig,
    *,
    address: str | None = None,
    fresh: bool = False,
    verbose: bool = False,
    console: Console | None = None,
    summary: bool = True,
) -> int:
    """Run a study, or resume it.

    Args:
        config: the study.
        address: of a Ray cluster; None: that of the environment or of this machine, or else a new local one.
        fresh: put the record of earlier sessions away (it is kept) and start from scratch; baselines and scores stay.
        verbose: let Ray and Optuna speak.
        console: where to print.
        summary: print the front at the end.

    Returns:
        The exit status: 0 done, 1 some trials failed for good or the storage was deleted, 130 interrupted.

    Raises:
        InputError: the study cannot be run as it is; nothing has been trained.
    """
    from rssearch.backend.stop import Stop
    from rssearch.backend.tune import connected, gpu_memories, node_resources, run_jobs

    definition, console = StudyDefinition(config), console or PlainConsole()
    uri, artifacts = client.home(definition.storage, config.tracking_uri)
    check_writable(definition.storage)
    database.check(uri)
    with ExitStack() as stack:
        measuring = stack.enter_context(devices.opened(config, definition.store))
        stack.enter_context(connected(address, config.resources, verbose=verbose))
        stop = stack.enter_context(Stop().listening())
        display = stack.enter_context(Display(console, verbose=verbose))
        if definition.sampled:
            display.say(sample_note(len(definition.points)))
        data = _read(definition, display)
        stack.enter_context(_alone(definition, stop))
        clear_leftovers(definition)
        token = shared_folder.leave_token(definition.folder)
        nodes.check_nodes(definition.folder, token)
        tracker = client.Tracker(uri, config.study, artifacts / config.study)
        tracker.open()
        tracker.describe(views.experiment_tags(config.study, config.search.objectives, config.space))
        journal = Journal(definition.folder / "trials.jsonl")
        if fresh:
            _start_from_scratch(definition, journal, tracker)
        weight_files.keep(definition.config, definition.store)
        rounding.keep(config, definition.config, definition.store)
        write_atomic(definition.folder / "study.yaml", plain_yaml.dump(definition.config.masked()))
        write_atomic(definition.folder / "environment.json", environment(data.values()))
        for name, table in split_files.written(data.values()).items():
            write_atomic(definition.folder / name, table)
        recorder = Recorder(definition, journal, tracker, display)
        session = Stages(definition, recorder, _shared(data), token, stop, run_jobs)
        status = "FINISHED"
        try:
            session.pack(node_resources(), gpu_memories)
            session.search()
            session.measure_on_devices(measuring)
            session.measure()
        except KeyboardInterrupt:
            status = "KILLED"
        except BaseException:
            if not _close(recorder, "FAILED", token):
                return GONE
            raise
        if not _close(recorder, status, token):
            return GONE
        if status == "KILLED":
            display.say(f"interrupted; the same command resumes from here ({definition.folder})")
            return INTERRUPTED
    if summary:
        _say_result(recorder, console, uri)
    return SOME_FAILED if recorder.failures() else DONE


def _read(definition: StudyDefinition, display: Display) -> dict[str, Any]:
    """The data that all trials share. Nothing has been written yet, should an image be refused."""
    share = definition.hook("share")
    if share is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # said below, on the study's console
        objects = share(definition.points, definition.config.settings, definition.data_root, display.reading)
    for found in objects.values():
        class_metrics.check_data(definition.class_metrics, found)
        for note in getattr(found, "notes", ()):
            display.say(f"{found.name}: {note}")
        if skipped := getattr(found, "skipped", ()):
            shown = "; ".join(skipped[:3]) + ("; ..." if len(skipped) > 3 else "")
            display.say(f"{found.name}: images that cannot be read and are left out: {len(skipped)} ({shown})")
    return dict(objects)


def _shared(data: dict[str, Any]) -> dict[str, Any]:
    """`data` in Ray's object store; it is emptied, so that one copy is left."""
    from rssearch.backend.object_store import InObjectStore

    return {name: InObjectStore(data.pop(name)) for name in list(data)}


@contextmanager
def _alone(definition: StudyDefinition, stop: Stop) -> Iterator[None]:
    """A lock that only one driver of a study can hold. Raises InputError; a driver that loses it stops."""

    def lost() -> None:
        stop.requested = True

    with ExitStack() as stack:
        try:
            stack.enter_context(lock(definition.folder / ".lock", wait=False, lost=lost))
        except Held:
            raise InputError(
                f"study {definition.config.study} is being run by another process on {definition.folder}"
            ) from None
        yield


def _close(recorder: Recorder, status: str, token: str) -> bool:
    """Close the records of a session; False where their place is gone, which is said and not made again."""
    try:
        shared_folder.check_there(recorder.definition.folder, token)
    except StorageGoneError as error:
        recorder.tracker.abandon()
        recorder.display.say(str(error))
        return False
    recorder.close(status)
    return True


def _start_from_scratch(definition: StudyDefinition, journal: Journal, tracker: client.Tracker) -> None:
    for key in {*journal.records, *map(definition.key, definition.points)}:
        definition.store.remove(CHECKPOINTS, key)
    journal.archive()
    remove(definition.folder, [references.FILE])
    tracker.supersede()


def _say_result(recorder: Recorder, console: Console, uri: str) -> None:
    """The front, and where everything is."""
    definition = recorder.definition
    config, search_ = definition.config, definition.config.search
    console.print(
        files.format_front(
            recorder.rows(),
            search_.objectives,
            "table",
            study=config.study,
            constraints=search_.constraints,
            dimensions=recorder.dimensions(),
            references=recorder.references,
            width=console.width,
        )
    )
    failed = recorder.failures()
    if failed:
        console.print(f"{len(failed)} trial{'s' if len(failed) > 1 else ''} failed:", highlight=False)
        for reason in dict.fromkeys(record.reason for record in failed):  # many share a long one
            for record in failed:
                if record.reason == reason:
                    console.print(f"  {record.key}  {record.title}", highlight=False, markup=False, soft_wrap=True)
            console.print(f"    {reason}", highlight=False, markup=False, soft_wrap=True)
    where = f"--storage {config.storage}" if config.tracking_uri is None else f"--tracking-uri {uri}"
    where = uris.hidden(where, config.storage, uri)
    for text in (
        f"files      {definition.folder}/: front.html, front.png, trials.csv",
        f"MLflow UI  rssearch ui {where}",
    ):
        console.print(text, highlight=False, markup=False, soft_wrap=True)
