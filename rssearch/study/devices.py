"""The devices of a study: which trials wait for them, and the desks where their agents ask."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rssearch.agent import protocol
from rssearch.agent.desk import Desk, Ended
from rssearch.agent.server import serving
from rssearch.config.devices import Device
from rssearch.config.schema import Search, StudyConfig
from rssearch.cost import device_latencies
from rssearch.cost.device_latencies import LAYERS, MEASURED, PREDICTED
from rssearch.cost.device_table import DeviceTable
from rssearch.errors import InputError, unknown
from rssearch.storage.artifacts import Store
from rssearch.storage.records import Status, TrialRecord
from rssearch.trial.interface import DEPLOYED

FILE = "model.onnx"
_KNOWN = (*protocol.METRICS, PREDICTED)
_LOOK = 0.2  # seconds between two looks at what came back


def is_on(name: str) -> bool:
    """Whether a metric is that of a device: ``latency_ms@pi``."""
    return "@" in name


def is_predicted(name: str) -> bool:
    """Whether a metric of a device is known without it: ``predicted_latency_ms@pi``."""
    return name.partition("@")[0] == PREDICTED


def asked(config: StudyConfig, device: str) -> list[str]:
    """The metrics that a device has to measure for a study: a prediction is learned from latencies."""
    pairs = [name.partition("@") for name in (*config.search.objectives, *config.search.constraints)]
    names = [MEASURED if name == PREDICTED else name for name, _, of in pairs if of == device]
    return [f"{name}@{device}" for name in dict.fromkeys(names)]


def without(config: StudyConfig, deploys: bool) -> Search:
    """The search of a study by what is known without devices; they measure what is trained already.

    Args:
        config: of the study.
        deploys: whether its trials can be deployed.

    Raises:
        InputError: a metric or a device that there is not, a trial that cannot be deployed, or no objective but those
            of devices.
    """
    search = config.search
    for section in ("objectives", "constraints"):
        for name in filter(is_on, getattr(search, section)):
            metric, _, device = name.partition("@")
            if metric == PREDICTED and section == "objectives":
                raise InputError(
                    f"search.objectives.{name}: the first trials are not predicted, as nothing is measured by then; "
                    f"take {MEASURED}@{device}, or limit the prediction by a constraint"
                )
            if metric not in _KNOWN:
                raise InputError(f"search.{section}.{name}: {unknown('metric of a device', metric, _KNOWN)}")
            if device not in config.devices:
                raise InputError(f"search.{section}.{name}: {unknown('device', device, config.devices)}")
            if not deploys:
                raise InputError(f"search.{section}.{name}: {config.trial} has no hook deploy, so no device can run it")
    objectives = {name: to for name, to in search.objectives.items() if not is_on(name)}
    if not objectives:
        raise InputError(
            "search.objectives: needs one that trials report themselves, such as val_accuracy: devices measure what is "
            "trained already"
        )
    known = {name: bound for name, bound in search.constraints.items() if not is_on(name) or is_predicted(name)}
    return search.model_copy(update={"objectives": objectives, "constraints": known})


def waiting(config: StudyConfig, device: str, records: Iterable[TrialRecord]) -> list[str]:
    """Keys of the finished trials that lack what the study asks of a device."""
    wanted = asked(config, device)
    return [
        record.key
        for record in records
        if wanted and record.status is Status.FINISHED and not {*wanted} <= (record.measured or {}).keys()
    ]


class Devices:
    """The desks of a study's devices, open while a session runs."""

    def __init__(self, config: StudyConfig, store: Store, desks: Mapping[str, Desk]) -> None:
        self._config, self._store, self._desks = config, store, desks

    def lacking(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """The records of trials that wait for a device, and whose ONNX file is not in the store yet."""
        known = {record.key: record for record in records}
        keys = [key for name in self._desks for key in waiting(self._config, name, known.values())]
        return [known[key] for key in dict.fromkeys(keys) if not self._store.has(DEPLOYED, key)]

    def offer(self, records: Mapping[str, TrialRecord]) -> dict[str, int]:
        """Hand out what waits from now on; how many networks for each device that has any."""
        for name, desk in self._desks.items():
            for key in waiting(self._config, name, records.values()):
                if self._store.has(DEPLOYED, key):
                    desk.offer(key, _loader(self._store, key))
        return {name: len(left) for name, desk in self._desks.items() if (left := desk.left())}

    def measure(
        self,
        records: Mapping[str, TrialRecord],
        done: Callable[[str, str, Ended], None],
        alive: Callable[[], None],
    ) -> dict[str, int]:
        """Wait until what was offered is measured, or no device has been heard of for its `wait` seconds.

        Args:
            records: of the study's trials, by key.
            done: told of each trial by its key, with the device and what became of it.
            alive: called again and again; what it raises ends the wait.

        Returns:
            How many trials still wait for each device.
        """
        begun = time.monotonic()
        while True:
            alive()
            for name, desk in self._desks.items():
                for key, ended in desk.collect().items():
                    done(name, key, ended)
            if not any(desk.left() and not self._is_away(name, begun) for name, desk in self._desks.items()):
                break
            time.sleep(_LOOK)
        return {name: len(waiting(self._config, name, records.values())) for name in self._desks}

    def learn(self, device: str, key: str, metrics: Mapping[str, Any]) -> None:
        """Keep what a device has measured of a trial, where its network is described, for predictions."""
        if (files := self._store.get(DEPLOYED, key, [LAYERS])) and LAYERS in files:
            device_latencies.remember(self._store, device, files[LAYERS], metrics)

    def tables(self) -> Iterator[tuple[str, DeviceTable]]:
        """What the devices' latencies are predicted from."""
        for name in self._desks:
            yield from ((name, table) for table in device_latencies.tables(self._store, name).values())

    def _is_away(self, name: str, begun: float) -> bool:
        idle = self._desks[name].idle()
        since = time.monotonic() - begun
        return (since if idle is None else min(idle, since)) > self._config.devices[name].wait


@contextmanager
def opened(config: StudyConfig, store: Store) -> Iterator[Devices]:
    """Listen for the agents of the devices that objectives or constraints name; none: nothing is opened.

    Raises:
        InputError: a token, a certificate or an address that cannot be used.
    """
    wanted = {name: device for name, device in config.devices.items() if asked(config, name)}
    with ExitStack() as stack:
        desks = {}
        for name, device in wanted.items():
            desks[name] = Desk(name, device.lease)
            token, tls = _token(name, device), _tls(name, device)
            server = serving(desks[name], device.address, token, threads=device.threads, tls=tls)
            try:
                stack.enter_context(server)
            except OSError as error:
                why = error.strerror or error
                raise InputError(f"devices.{name}.listen: cannot listen at {device.listen}: {why}") from None
        yield Devices(config, store, desks)


def _loader(store: Store, key: str) -> Callable[[], bytes]:
    def load() -> bytes:
        files = store.get(DEPLOYED, key)
        if files is None:
            raise FileNotFoundError(f"{DEPLOYED}/{key} is gone from the store")
        return files[FILE]

    return load


def _token(name: str, device: Device) -> str:
    where = f"devices.{name}.token_file"
    if device.token_file is None:
        return protocol.check_token(os.environ.get(protocol.TOKEN), where)
    try:
        return protocol.check_token(Path(device.token_file).read_text(), where)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is no text"
        raise InputError(f"{where}: {device.token_file}: {why}") from None


def _tls(name: str, device: Device) -> ssl.SSLContext | None:
    if device.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a question for the passphrase of a key, which nobody would answer.
        context.load_cert_chain(device.certificate, device.private_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"devices.{name}.certificate: {device.certificate}: {error.strerror or error}") from None
    return context
