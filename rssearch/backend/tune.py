"""Ray: connect to it, and run jobs on Ray Tune one after another until nothing more is proposed."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air._internal import usage
from ray.air.execution._internal import actor_manager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.execution import tune_controller
from ray.tune.result import AUTO_RESULT_KEYS
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rssearch.backend import local_ray
from rssearch.backend.gpu_sharing import slots
from rssearch.backend.retries import Cause, Retries, cause
from rssearch.backend.scheduler import TuneScheduler
from rssearch.backend.searcher import Bridge
from rssearch.backend.stop import Stop
from rssearch.backend.trainable import supervised
from rssearch.config.schema import Resources
from rssearch.errors import InputError, cut
from rssearch.sampling.sampler import quiet
from rssearch.storage import scratch
from rssearch.storage.records import Status
from rssearch.trial.jobs import Job, Outcome
from rssearch.trial.session import Context

_log = logging.getLogger(__name__)

# A worker that Ray ends because a node's memory runs out is a dead worker. Ray 2.60 has an error of its own for that,
# which Tune does not take for a death: it would end the whole study with "Caught unexpected exception".
for _module in (actor_manager, tune_controller):
    setattr(_module, "RayActorError", (RayActorError, OutOfMemoryError))  # noqa: B010  # mypy knows it as a class

_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"  # how many trials may wait for their workers
_TUNE_KEYS = {*AUTO_RESULT_KEYS, "done", "trial_id", "experiment_tag", "training_iteration", "timestamp"}


@dataclass(frozen=True)
class Listener:
    """Hears of jobs.

    Attributes:
        started: a job is on a worker.
        epoch: it reported.
        retried: its worker died (why), and it is started again.
        ended: it ended.
        should_continue: whether it may continue after an epoch, asked before `epoch` hears of it; None: always.
        alive: called at every step of Tune's loop; what it raises ends the run.
    """

    started: Callable[[Job], None]
    epoch: Callable[[Job, dict[str, Any]], None]
    retried: Callable[[Job, str], None]
    ended: Callable[[Job, Outcome], None]
    should_continue: Callable[[Job, dict[str, Any]], bool] | None = None
    alive: Callable[[], None] = lambda: None


@contextmanager
def connected(address: str | None, resources: Resources, *, verbose: bool) -> Iterator[None]:
    """A connection to Ray, closed at the end; without an address, the running cluster of this machine or a new one.

    A new one is closed to strangers, see `rssearch.backend.local_ray`. A cluster has the mode that it was started with.

    Raises:
        InputError: nothing answers at the address, it asks for a token, or the cluster can never hold one trial.
    """
    if not verbose:
        for name in ("ray", "ray._private", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # trials that fail are told by us, in one line each
        quiet()
    already = ray.is_initialized()
    with ExitStack() as stack:
        if not already:
            _check_answers(address)
            stack.enter_context(_initialized(address, verbose))
        _check_fits(resources)
        yield


@contextmanager
def _initialized(address: str | None, verbose: bool) -> Iterator[None]:
    """Connect to a Ray, or start one."""
    with ExitStack() as stack:
        own = False
        try:
            if own := local_ray.starts(address):
                stack.enter_context(local_ray.closed(logs=verbose))
            stack.callback(ray.shutdown)
            ray.init(
                address="local" if own else address,
                logging_level=logging.INFO if verbose else logging.ERROR,
                log_to_driver=verbose,
                include_dashboard=False if own else None,
                configure_logging=True,
            )
        except InputError:
            raise
        except Exception as error:  # Ray raises plain exceptions where its processes do not start in time
            if "AuthenticationError" in f"{error!r} {error.__cause__!r}":  # Ray quotes the one that it met
                given = address or os.environ.get("RAY_ADDRESS")
                which = f"--address {given}: this Ray" if given else "the Ray that was started on this machine"
                other = "" if given else "; --address local starts another"
                raise InputError(
                    f"{which} asks for another token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                    f"RAY_AUTH_TOKEN_PATH to what it was started with{other}"
                ) from error
            raise _silent(None if own else address or os.environ.get("RAY_ADDRESS", "auto"), error) from error
        yield


def _silent(address: str | None, error: Exception) -> InputError:
    """One sentence on a Ray that does not start or answer."""
    said = cut((str(error).strip() or type(error).__name__).splitlines()[0], 300)
    if address is None:
        return InputError(f"Ray did not start on this machine: {said}")
    return InputError(f"--address {address}: Ray does not answer: {said}")


def _check_answers(address: str | None) -> None:
    """Knock before Ray does, which would try for minutes and cannot be stopped meanwhile."""
    said, address = ("--address", address) if address else ("RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or None)
    found = re.fullmatch(r"(?:ray://)?(?P<host>\[[^\]]+\]|[^:/\[\]]+):(?P<port>\d+)", address or "")
    if address in (None, "local", "auto"):
        return
    if found is None:
        raise InputError(f"{said} {cut(str(address))}: must be HOST:PORT, ray://HOST:PORT, auto or local")
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=10).close()
    except (OSError, OverflowError, ValueError) as error:  # also a port of too many digits, a name too long for the DNS
        raise InputError(f"{said} {cut(str(address))}: nothing answers there ({error})") from None


def _check_fits(resources: Resources) -> None:
    if _may_grow():
        if resources.workers > 1 and resources.max_concurrent is None:
            raise InputError(
                "resources.max_concurrent: is needed for trials of several workers on a cluster that grows: so many "
                "run at once when it is at its largest"
            )
        return
    if slots(node_resources(), resources.cpus, resources.share, resources.workers):
        return
    shown = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in node_resources())
    one = f"{resources.cpus:g} CPUs and {resources.share:g} GPUs"
    whole = f"the nodes together cannot hold a trial of {resources.workers} workers, each of {one}"
    raise InputError(
        f"resources: {whole if resources.workers > 1 else f'no node can hold a trial of {one}'}; nodes: {shown}"
    )


def node_resources() -> list[dict[str, float]]:
    """The resources of each node that is alive, as Ray names them."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def gpu_memories() -> list[int]:
    """Bytes of each kind of GPU in the cluster: those of one on each node that has any."""
    look = ray.remote(num_cpus=0)(_gpu_memory)
    found = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0)]  # type: ignore[no-untyped-call]
    strategies = [NodeAffinitySchedulingStrategy(node, soft=False) for node in found]
    memories: list[int] = ray.get(
        [look.options(num_gpus=0.0001, scheduling_strategy=strategy).remote() for strategy in strategies]
    )
    return memories


def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


def _at_once(resources: Resources) -> int | None:
    """How many trials Tune may start; None: as many as it finds resources for.

    Ray Train reserves the workers of a trial, all or none, once the trial has begun: Tune cannot count them. A Ray that
    this process has started has no other jobs and no nodes to come, so that its slots are counted.
    """
    if _may_grow() or (resources.workers == 1 and not _is_own()):
        return resources.max_concurrent
    room = slots(node_resources(), resources.cpus, resources.share, resources.workers)
    return min(resources.max_concurrent or room, room)


def _is_own() -> bool:
    """Whether this process has started the Ray that it is connected to."""
    node = ray._private.worker._global_node
    return node is not None and bool(node.head)


@contextmanager
def _actors_side_by_side(slots: int | None) -> Iterator[None]:
    """Let the workers of all slots start at once.

    Tune has one trial wait for a worker at a time where trials are proposed one by one, so that they would not be
    proposed too early: the last of many slots would be used minutes later. Where slots are counted, as many trials are
    proposed as run.
    """
    if slots is None or _PENDING in os.environ:
        yield
        return
    os.environ[_PENDING] = str(slots)
    try:
        yield
    finally:
        del os.environ[_PENDING]


def _may_grow() -> bool:
    """Whether an autoscaler may bring larger nodes: its configuration lies on the head that `ray up` made."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists() or "KUBERNETES_SERVICE_HOST" in os.environ


def run_jobs(
    ask: Callable[[], Job | None],
    target: str,
    context: Context,
    resources: Resources,
    listener: Listener,
    *,
    stop: Stop,
    verbose: bool,
) -> None:
    """Run jobs on Ray Tune until `ask` gives None and all have ended.

    A job whose worker dies is started again, at most `resources.max_failures` times, and when its node is lost; it goes
    on from its checkpoint.

    Args:
        ask: the next job; called whenever a slot is free. LATER where none can start before another has ended.
        target: import string of the function that does a job, unless the job names another of the same module.
        context: what all jobs share.
        resources: what each takes, and how many at once.
        listener: hears what happens.
        stop: raises KeyboardInterrupt from here once it is asked for.
        verbose: leave Ray its own console output.
    """
    # Ray Train reserves the workers of a trial. Tune wants to reserve something, too: a byte of memory.
    own = {"cpu": resources.cpus, "gpu": resources.share}
    needs = own if resources.workers == 1 else {"cpu": 0.0, "memory": 1.0}
    trainable = tune.with_resources(tune.with_parameters(supervised, target=target, context=context), needs)
    scheduler = TuneScheduler(listener.should_continue or (lambda *_: True), _reported)
    at_once = _at_once(resources)
    side_by_side = _actors_side_by_side(at_once if resources.workers == 1 else None)
    with scratch.folder("rssearch-study-") as folder, stop.carefully(), _uncounted(), side_by_side:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=Bridge(ask),
                scheduler=scheduler,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=at_once,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="study",
                storage_path=str(folder),
                verbose=1 if verbose else 0,
                callbacks=[_Events(listener, stop, scheduler.stopped, Retries(resources.max_failures))],
                failure_config=tune.FailureConfig(max_failures=-1),  # Tune would count lost nodes: `Retries` counts
            ),
        ).fit()


@contextmanager
def _uncounted() -> Iterator[None]:
    """Keep Ray from counting a study's callbacks for its usage statistics, where these are off.

    It counts them all the same, and for that imports its integrations: MLflow, two seconds of CPU in every driver
    (`ray.air._internal.usage.tag_callbacks`, as of Ray 2.60).
    """
    if os.environ.get("RAY_USAGE_STATS_ENABLED") != "0":
        yield
        return
    counted = usage.tag_callbacks
    usage.tag_callbacks = lambda callbacks: False  # noqa: ARG005
    try:
        yield
    finally:
        usage.tag_callbacks = counted


class _Events(tune.Callback):
    """Turns Tune's callbacks into those of a `Listener`."""

    def __init__(self, listener: Listener, stop: Stop, stopped: Container[str], retries: Retries) -> None:
        self._listener, self._stop, self._stopped, self._retries = listener, stop, stopped, retries
        self._last: dict[str, dict[str, Any]] = {}  # what a plain trainable reported last
        self._ended: set[str] = set()
        self._refusal: InputError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for snapshots that we do not use; the listener stays here."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        if self._stop.requested:
            raise KeyboardInterrupt
        if self._refusal is not None:
            raise self._refusal
        self._listener.alive()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        if (job := _job(trial)).name not in self._ended:
            self._listener.started(job)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        job = _job(trial)
        if job.name in self._ended:
            return
        match result.get("event"):
            case "end":
                self._end(job, Outcome.from_report(result), plain=result.get("metrics") is None)
            case "unshared":  # every trial that this node gets would fail
                self._ended.add(job.name)
                self._refusal = InputError(result["reason"])
            case event:
                metrics = _reported(result) or {}
                if event is None:
                    self._last[job.name] = {name: value for name, value in metrics.items() if name in result}
                self._listener.epoch(job, metrics)
                if job.name in self._stopped:
                    self._end(job, Outcome(Status.STOPPED, metrics))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        job, why = _job(trial), cause(_error(trial))
        if job.name not in self._ended and self._retries.again(job.name, why):
            if why is Cause.MEMORY:
                trial.config["micro_batches"] = 2 * trial.config.get("micro_batches", 1)
            self._listener.retried(job, _reason(trial))
            return
        # Tune has put the trial into its queue already: it starts once more, and ends at once.
        trial.config["given_up"], trial.max_failures = True, 0
        self._end(job, _failed(f"its worker died: {_reason(trial)}"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._end(_job(trial), _failed(f"its worker died: {_reason(trial)}"))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._end(_job(trial), _failed("it ended without a result"))

    def _end(self, job: Job, outcome: Outcome, *, plain: bool = False) -> None:
        """Pass the end of a trial on, once: Tune reports the completion of a trial whose last report we have seen.

        A `plain` trainable returns nothing: its last report counts.
        """
        if job.name in self._ended:
            return
        self._ended.add(job.name)
        last = self._last.pop(job.name, {})
        if plain and outcome.status is Status.FINISHED:
            outcome = replace(outcome, metrics=last)
        self._listener.ended(job, outcome)


def _job(trial: Any) -> Job:
    return Job.given(trial.config)


def _failed(reason: str) -> Outcome:
    return Outcome(Status.FAILED, reason=reason)


def _reported(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a trial reported after an epoch; None for its last report. Tune's schedulers get results flattened."""
    match result.get("event"):
        case "epoch":
            nested = {name.removeprefix("metrics/"): v for name, v in result.items() if name.startswith("metrics/")}
            return dict(result.get("metrics") or nested)
        case None:
            own = {n: v for n, v in result.items() if n not in _TUNE_KEYS and not n.startswith(("__", "config/"))}
            plain = {name: value for name, value in own.items() if isinstance(value, int | float | str | bool)}
            return {"epoch": result.get("training_iteration", 1)} | plain
    return None


def _error(trial: Any) -> str:
    """What Tune wrote down of a trial's last failure."""
    name = trial.run_metadata.error_filename
    path = Path(trial.local_path) / name if name is not None else None
    if path is None or not path.is_file():
        return ""
    text = path.read_text(errors="replace")
    return re.split(r"^Failure # .*$", text, flags=re.MULTILINE)[-1]  # the file holds every failure of the trial


def _reason(trial: Any) -> str:
    """The last failure of a trial in one line: its class and message, or what it says first."""
    lines = [line.strip() for line in _error(trial).splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    text: str = errors[-1].removeprefix("ray.exceptions.") if errors else (lines or ["no error was recorded"])[0]
    return text.rstrip(".")[:300]
