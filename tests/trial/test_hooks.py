"""What a study looks for in a trial's module, and how it says that something does not fit."""

from __future__ import annotations

from types import ModuleType

import pytest

from rssearch.errors import InputError
from rssearch.trial.hooks import HOOKS, check_hooks
from rssearch.trials import channel_nas, curves, micronet, prune
from tests.support import toy


def module(source: str) -> ModuleType:
    made = ModuleType("mine")
    exec(source, made.__dict__)  # the functions get its name, as those of a file do
    return made


def test_what_is_shipped_fits() -> None:
    for shipped in (prune, channel_nas, micronet, curves, toy):
        check_hooks(shipped)
    assert all(callable(getattr(prune, name)) for name in HOOKS)  # it offers every one


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def check(point): ...", r"^trial: mine.check\(point\) cannot be called as check\(point, settings\)$"),
        (
            "def cost(point, session, more): ...",
            r"mine.cost\(point, session, more\) cannot be called as cost\(point, se",
        ),
        ("def share(points, *, settings): ...", r"cannot be called as share\(points, settings, data_root, progress\)$"),
        ("def chek(point, settings): ...", "^trial: mine.chek is no hook of a trial. Did you mean 'check'?"),
        ("def identiy(point, settings, data_root): ...", "Did you mean 'identity'?"),
        ("METRICS = 'val_accuracy'", "^trial: mine.METRICS is no list of names$"),
        ("EPOCH_METRICS = 3", "^trial: mine.EPOCH_METRICS is no list of names$"),
        ("ON_REQUEST = [1]", "^trial: mine.ON_REQUEST is no list of names$"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_hooks(module(source))


@pytest.mark.parametrize(
    "source",
    [
        "def check(point, settings, strict=False): ...",
        "def cost(*arguments): ...",
        "def epochs(point, _settings): ...",
        "check = dict",  # a class without a signature
        "share = 0.5",  # no function, and so no hook
        "def costs(model, shape): ...",  # a helper: no hook has these parameters
        "def chek(point, settings): ...\ndef check(point, settings): chek(point, settings)",
        "METRICS = {'val_accuracy': 1}",
    ],
)
def test_what_fits_is_taken(source: str) -> None:
    check_hooks(module(source))
