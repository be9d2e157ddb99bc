"""What a trial's module must keep to, so that its study can be planned, resumed and repeated."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.testing.clauses import check, require
from rssearch.trial.hooks import HOOKS, resolve
from rssearch.trial.session import Context, Session
from rssearch.trial.worker import call

__all__ = ["TRIAL_CLAUSES", "TrialPart", "check_trial"]

Metrics = dict[str, Any]
_OWN_TIMES = ("seconds", "images_per_second")  # how names of metrics end that measure time, and so never repeat


class _Interrupted(BaseException):
    """What a killed worker is for a trial: no handler of its own may take it for an error."""


class TrialPart:
    """A trial's function and module under test, at one point.

    Args:
        target: its import string.
        point: what it runs.
        settings: of the study.
        data_root: folder of the datasets.
        folder: an empty one for its artifacts.
    """

    def __init__(
        self, target: str, point: Mapping[str, Any], settings: Settings, data_root: Path, folder: Path
    ) -> None:
        self.target, self.point, self.settings, self.data_root = target, dict(point), settings, data_root
        self.folder = folder
        self.function, self.module = resolve(target)

    def hook(self, name: str) -> Callable[..., Any] | None:
        """A function that the module offers."""
        found = getattr(self.module, name, None)
        return found if callable(found) else None

    def session(self, key: str, reports: list[Metrics] | None = None, most: int | None = None) -> Session:
        """A session of its own storage, so that nothing is found there; with `most` it ends after so many reports."""
        kept: list[Metrics] = [] if reports is None else reports

        def report(metrics: Metrics) -> None:
            kept.append(metrics)
            if len(kept) == most:
                raise _Interrupted

        context = Context("contract", str(self.folder / key), str(self.data_root), self.settings)
        return Session(context, key, self.point, report)

    def run(self, session: Session) -> Metrics:
        """Call the function as a worker does."""
        return dict(call(self.function, {**self.point, "settings": self.settings.model_dump(mode="json")}, session))

    @cached_property
    def result(self) -> tuple[Metrics, list[Metrics]]:
        """What an uninterrupted run returns and reports."""
        reports: list[Metrics] = []
        return self.run(self.session("whole", reports)), reports


def check_trial(
    target: str,
    point: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    data_root: str | Path = "data",
) -> None:
    """Hold a trial against its contract: its function runs twice and a half.

    Args:
        target: its import string, ``package.module:function``; a function that takes a session.
        point: what it runs, as small as it can be.
        settings: of the study, as in the YAML.
        data_root: folder of the datasets.

    Raises:
        ContractError: which clauses do not hold, and why.
        InputError: there is no such function, or the settings cannot be.
    """
    with tempfile.TemporaryDirectory() as folder:
        part = TrialPart(target, point, Settings.model_validate(dict(settings or {})), Path(data_root), Path(folder))
        check(target, part, TRIAL_CLAUSES)


# The clauses


def hooks_take_what_they_get(part: TrialPart) -> None:
    """Every hook that the module offers takes the arguments that a study calls it with."""
    for name, arguments in HOOKS.items():
        if (hook := part.hook(name)) is None:
            continue
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError as error:
            raise AssertionError(f"{name}({', '.join(arguments)}): {error}") from None


def the_point_is_accepted(part: TrialPart) -> None:
    """`check` accepts the point, and says in an InputError what is wrong with another."""
    if (hook := part.hook("check")) is None:
        return
    hook(part.point, part.settings)
    try:
        hook({**part.point, "no_such_dimension": 1}, part.settings)
    except InputError:
        return
    raise AssertionError("it accepts a dimension called no_such_dimension")


def identity_is_plain_and_repeats_itself(part: TrialPart) -> None:
    """`identity` gives the same plain values each time: they are part of the trial's key."""
    if (hook := part.hook("identity")) is None:
        return
    first, second = (hook(part.point, part.settings, part.data_root) for _ in range(2))
    require(json.loads(json.dumps(first)) == first, "it is no plain JSON, such as text, numbers, lists and mappings")
    require(first == second, "it is another one at a second call")


def results_are_numbers_with_names(part: TrialPart) -> None:
    """It returns a mapping from names to plain values, with at least one finite number."""
    metrics, _ = part.result
    json.dumps(metrics)
    numbers = [v for v in metrics.values() if isinstance(v, int | float) and not isinstance(v, bool)]
    require(any(math.isfinite(v) for v in numbers), f"no finite number among {', '.join(metrics) or 'nothing'}")


def cost_is_known_beforehand(part: TrialPart) -> None:
    """`cost` needs no training, and is what comes out."""
    if (hook := part.hook("cost")) is None:
        return
    metrics, _ = part.result
    first, second = (hook(part.point, part.session("whole")) for _ in range(2))
    require(first == second, "it is another one at a second call")
    differing = {name: (value, metrics[name]) for name, value in first.items() if metrics.get(name, value) != value}
    require(not differing, f"promised and returned: {differing}")


def epochs_are_reported(part: TrialPart) -> None:
    """It reports as many epochs as `epochs` says, each with what EPOCH_METRICS promise."""
    _, reports = part.result
    if (hook := part.hook("epochs")) is not None:
        said = hook(part.point, part.settings)
        require(len(reports) == said, f"{len(reports)} are reported, epochs() says {said}")
    names = set(getattr(part.module, "EPOCH_METRICS", ()))
    for report in reports:
        require(not names or bool(names.intersection(report)), f"none of {', '.join(sorted(names))} is in {report}")


def a_second_run_gives_the_same(part: TrialPart) -> None:
    """The same point gives the same metrics again, but for times."""
    metrics, _ = part.result
    _require_equal(metrics, part.run(part.session("again")))


def an_interrupted_run_ends_as_a_whole_one(part: TrialPart) -> None:
    """A run that is killed after its first epoch and started again ends with the same metrics."""
    metrics, reports = part.result
    if len(reports) < 2:
        return
    try:
        part.run(part.session("killed", most=1))
    except _Interrupted:
        _require_equal(metrics, part.run(part.session("killed")))
        return
    raise AssertionError("it went on after it was interrupted: it takes BaseException for an error of its own")


def members_of_the_front_can_be_measured(part: TrialPart) -> None:
    """`measure` finds what a run has left in the store, and gives plain values, among them all of MEASURED."""
    if (hook := part.hook("measure")) is None:
        return
    _ = part.result
    measured = hook({**part.point, "settings": part.settings.model_dump(mode="json")}, part.session("whole"))
    json.dumps(measured)
    lacking = sorted(set(getattr(part.module, "MEASURED", ())).difference(measured))
    require(not lacking, f"measure does not return {', '.join(lacking)}, as MEASURED says")


def _require_equal(metrics: Metrics, other: Metrics) -> None:
    one, two = ({n: _without_times(v) for n, v in found.items() if not _is_time(n)} for found in (metrics, other))
    differing = [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]
    shown = ", ".join(f"{name}: {one.get(name)!r:.60} and {two.get(name)!r:.60}" for name in sorted(differing)[:3])
    require(not differing, f"it gives other values: {shown}")


def _is_time(name: str) -> bool:
    return name.endswith(_OWN_TIMES) or name.startswith("latency_")


def _without_times(value: Any) -> Any:
    """The records of epochs without what never repeats."""
    if isinstance(value, Mapping):
        return {name: _without_times(one) for name, one in value.items() if not _is_time(str(name))}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


TRIAL_CLAUSES: tuple[Callable[[TrialPart], None], ...] = (
    hooks_take_what_they_get,
    the_point_is_accepted,
    identity_is_plain_and_repeats_itself,
    results_are_numbers_with_names,
    cost_is_known_beforehand,
    epochs_are_reported,
    a_second_run_gives_the_same,
    an_interrupted_run_ends_as_a_whole_one,
    members_of_the_front_can_be_measured,
)
