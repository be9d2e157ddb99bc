"""The Ray Tune trainable around every trial: however a trial ends, the driver gets one last report that says so."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rssearch.backend.nodes import node
from rssearch.config import imports
from rssearch.errors import Infeasible, InputError, PeerLostError, TrialFailed
from rssearch.storage import shared_folder
from rssearch.storage.records import Status
from rssearch.trial.interface import Metrics
from rssearch.trial.session import Context, Session
from rssearch.trial.worker import Notes, call, call_within_memory, loaded, release_memory, use_cpus

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rssearch.train.data_parallel import DistributedWorkerGroup


def supervised(config: dict[str, Any], *, target: str, context: Context) -> None:
    """The Ray Tune trainable around every trial.

    However the trial ends, the driver gets one last report that says so. An exception becomes a failed trial with its
    reason; Tune's own retries are thus kept for workers that die.
    """
    from ray import tune

    key, point = config["key"], config["point"]
    if "given_up" in config:
        tune.report({"event": "given up"})
        return
    if context.token is not None:
        folder = f"{context.storage}/{context.study}"
        if reason := shared_folder.problem(folder, context.token):
            tune.report({"event": "unshared", "reason": str(shared_folder.refusal(folder, {node(): reason}))})
            return
    notes = Notes()
    logging.getLogger("rssearch").addHandler(notes)
    last: dict[str, Any] = {}
    try:
        imports.install(context.sources)
        if (other := config.get("function")) is not None:
            target = f"{target.partition(':')[0]}:{other}"
        function = loaded(target) if context.workers == 1 else partial(_on_workers, target)
        use_cpus(context.cpus)
        session = Session(
            context,
            key,
            point,
            lambda m: tune.report({"event": "epoch", "metrics": m}),
            config.get("micro_batches", 1),
        )
        result = call_within_memory(function, {**point, "settings": context.settings.model_dump(mode="json")}, session)
        last = {"status": Status.FINISHED.value, "metrics": dict(result) if result is not None else None}
        if last["metrics"] is not None and session.micro_batches > 1:
            last["metrics"].setdefault("micro_batches", session.micro_batches)
    except Infeasible as error:
        last = {"status": Status.INFEASIBLE.value, "metrics": error.metrics}
    except (TrialFailed, InputError) as error:
        last = {"status": Status.FAILED.value, "reason": str(error)}
    except PeerLostError:  # as if this process had died
        raise
    except Exception as error:  # noqa: BLE001  # the boundary: any error of a trial becomes its recorded reason
        reason = f"{type(error).__name__}: {error}"
        last = {"status": Status.FAILED.value, "reason": reason, "traceback": traceback.format_exc()}
    finally:
        logging.getLogger("rssearch").removeHandler(notes)
        release_memory()
    tune.report({"event": "end", **last, "notes": notes.lines})


def _on_workers(target: str, config: dict[str, Any], session: Session) -> Any:
    """Call a trial's function on workers of its own, see `rssearch.backend.worker_group`."""
    from rssearch.backend import worker_group

    context = session.context
    work = partial(_work, target, config, context, session.key, session.micro_batches)
    result, notes = worker_group.launch(
        work, session.report, workers=context.workers, cpus=context.cpus, gpus=context.gpus
    )
    for line in notes:
        _log.warning("%s", line)
    return result


def _work(
    target: str,
    config: dict[str, Any],
    context: Context,
    key: str,
    micro_batches: int,
    worker_group: DistributedWorkerGroup,
    on_report: Callable[[Metrics], None],
) -> tuple[Any, list[str]] | None:
    """What each worker does: the main worker calls the trial's function, the others train with it."""
    folder = f"{context.storage}/{context.study}"
    if context.token is not None and (reason := shared_folder.problem(folder, context.token)):
        raise shared_folder.refusal(folder, {node(): reason})
    imports.install(context.sources)
    function, context = loaded(target), replace(context, worker_group=worker_group)
    use_cpus(context.cpus)
    if not worker_group.is_main:
        for helped, point, more in worker_group.jobs():
            helped(point, Session(context, key, point, micro_batches=micro_batches), **more)
        return None
    notes = Notes()
    logging.getLogger("rssearch").addHandler(notes)
    result = call(function, config, Session(context, key, config, on_report, micro_batches))
    worker_group.close()
    return result, notes.lines
