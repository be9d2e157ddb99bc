"""The latency of a trial's network where objectives or constraints name it: found out before the network is trained."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import nn

from rssearch import pruning
from rssearch.config.settings import Runtime
from rssearch.config.space import content_key
from rssearch.cost import latency, latency_table
from rssearch.cost.latency_table import Line, Table
from rssearch.cost.onnx import OnnxNetwork
from rssearch.storage.artifacts import Files
from rssearch.storage.lock import lock
from rssearch.trial import turns
from rssearch.trial.session import Session
from rssearch.trials.architecture import Architecture

Metrics = dict[str, Any]
Shape = tuple[int, int, int]

PREDICTED = "predicted_latency_ms"
MEASURED: dict[str, tuple[Runtime, int]] = {latency.metric(runtime, 1): (runtime, 1) for runtime in get_args(Runtime)}
METRICS = (*MEASURED, PREDICTED)
TABLES, LINES = "layer_latencies", "latency_lines"
_CUTS = (0.25, 0.5, 0.75)  # rates at which the networks for a line are cut, besides the whole one


def measured(model: nn.Module, shape: Shape, session: Session) -> Metrics:
    """The measured latencies that the study asks for, of a network with its final shape; alone on the machine.

    The session takes note of them. Raises Infeasible where they break a constraint.
    """
    wanted = [MEASURED[name] for name in session.context.requested if name in MEASURED]
    device = torch.device("cpu") if isinstance(model, OnnxNetwork) else session.device
    found = latency.measure_all(model, shape, wanted, device=device, threads=_threads(session), alone=turns.measuring)
    session.report_static_metrics(found)
    return found


def of_front(model: nn.Module, shape: Shape, session: Session, device: torch.device) -> Metrics:
    """The latencies that `settings.latency` lists, without those that the trial has measured: objectives stay."""
    known = {MEASURED[name] for name in session.context.requested if name in MEASURED}
    wanted = [pair for pair in session.settings.latency.pairs() if pair not in known]
    return latency.measure_all(model, shape, wanted, device=device, alone=turns.measuring)


def of_baseline(model: nn.Module, shape: Shape, session: Session) -> Metrics:
    """The latencies that members of the front have, whether `settings.latency` lists them or trials measure them."""
    wanted = of_baseline_names(session)
    return latency.measure_all(model, shape, wanted, device=session.device, alone=turns.measuring)


def of_baseline_names(session: Session) -> list[tuple[Runtime, int]]:
    """The runtimes and batches of `of_baseline`."""
    requested = [MEASURED[name] for name in session.context.requested if name in MEASURED]
    return [*dict.fromkeys([*session.settings.latency.pairs(), *requested])]


def predicted(model: nn.Module, whole: nn.Module, network: Architecture, session: Session) -> None:
    """Predict the latency of a pruned network where the study asks for it; times what the table lacks.

    The session takes note of it. Raises Infeasible where it breaks a constraint.

    Args:
        model: the pruned network.
        whole: the unpruned one, for the line.
        network: what the unpruned one's shapes depend on.
        session: of the trial.
    """
    if PREDICTED not in session.context.requested:
        return
    shape = network.shape
    files = session.store.get_or_build(LINES, _line_key(network, session), lambda: _fit(whole, shape, session))
    total = latency_table.layer_sum(latency_table.layers(model, shape), _timed(model, shape, session))
    assert total is not None
    session.report_static_metrics({PREDICTED: _line(files)(total)})


def looked_up(build: Callable[[], nn.Module], network: Architecture, session: Session) -> Metrics:
    """The same prediction where nothing has to be timed for it, on a machine like those of the trials; else nothing.

    Args:
        build: makes the pruned network.
        network: what the unpruned one's shapes depend on.
        session: of the point.
    """
    if (session.context.gpus > 0) != (session.device.type == "cuda"):
        return {}
    if (files := session.store.get(LINES, _line_key(network, session))) is None:
        return {}
    total = latency_table.layer_sum(latency_table.layers(build(), network.shape), _table(session))
    return {} if total is None else {PREDICTED: _line(files)(total)}


def _threads(session: Session) -> int:
    return max(1, int(session.context.cpus))


def machine(session: Session) -> Metrics:
    """What determines the times of layers."""
    name = latency.device_name(session.device)
    return {"device": name, "threads": _threads(session), "torch": torch.__version__, "batch": 1}


def _line_key(network: Architecture, session: Session) -> str:
    return content_key({"machine": machine(session), "network": network.inputs()})


def _line(files: Files) -> Line:
    return Line(*json.loads(files["line.json"])["line"])


def _table(session: Session) -> Table:
    files = session.store.get(TABLES, content_key(machine(session)))
    found: Table = {} if files is None else json.loads(files["layers.json"])
    return found


def _timed(model: nn.Module, shape: Shape, session: Session) -> Table:
    """The table of this kind of machine, with the layers of a network: those that it lacks are timed now."""
    table, names = _table(session), latency_table.layers(model, shape)
    if table.keys() >= set(names):
        return table
    key = content_key(machine(session))
    with lock(session.store.root / TABLES / f"{key}.lock"), latency.torch_threads(_threads(session)):
        table = _table(session)
        with turns.measuring():
            table |= latency_table.time_layers(model, shape, table, session.device)
        session.store.put(TABLES, key, {"layers.json": json.dumps(table, indent=1).encode()})
    return table


def _fit(whole: nn.Module, shape: Shape, session: Session) -> Files:
    """The line of a network: from the whole one, and from smaller ones with the same share of each layer's filters.

    Networks and layers are both represented by their fastest passes, which depend least on what else the machine does.
    """
    graph = pruning.trace(whole, torch.zeros(1, *shape, device=next(whole.parameters()).device))
    ones = {name: torch.ones(group.width) for name, group in graph.groups.items()}
    sums, times = [], []
    for rate in (0.0, *_CUTS):
        kept = pruning.allocate(graph, ones, allocation="uniform", rate=rate)
        model = pruning.apply_spec(copy.deepcopy(whole), pruning.make_spec(graph, kept))
        table = _timed(model, shape, session)
        sums.append(sum(table[name] for name in latency_table.layers(model, shape)))
        found = latency.measure(model, shape, device=session.device, threads=_threads(session), alone=turns.measuring)
        times.append(found.fastest_ms)
    line = latency_table.fit(sums, times)
    return {"line.json": json.dumps({"line": line, "sums_ms": sums, "measured_ms": times}).encode()}
