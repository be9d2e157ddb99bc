"""Whether the nodes of a Ray cluster share the study's storage."""

from __future__ import annotations

from typing import Any

from rssearch.storage.location import Location, address
from rssearch.storage.shared_folder import problem, refusal

_WAIT = 120.0  # seconds for a node to start a process and to look


def node() -> str:
    """The address of this process's node."""
    from ray.util import get_node_ip_address

    address: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def check_nodes(folder: Location, token: str) -> None:
    """Look for the token on every node of the Ray cluster that may run trials, unless it is the driver's own.

    Raises:
        InputError: a node does not see it, or does not answer within two minutes.
    """
    import ray
    from ray.util.client import ray as client
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    elsewhere = client.is_connected()  # type: ignore[no-untyped-call]
    here = None if elsewhere else ray.get_runtime_context().get_node_id()
    others = {node["NodeID"]: node for node in _alive() if node["Resources"].get("CPU") and node["NodeID"] != here}
    if not others:
        return
    look = ray.remote(num_cpus=0)(problem.__wrapped__)
    looks = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            address(folder), token
        )
        for node in others
    }
    ray.wait(list(looks.values()), num_returns=len(looks), timeout=_WAIT)
    found = {node: _answer(reference) for node, reference in looks.items()}
    left = {node["NodeID"] for node in _alive()}
    blind = {others[n]["NodeManagerAddress"]: reason for n, reason in found.items() if reason is not None and n in left}
    if blind:
        raise refusal(folder, blind)


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _answer(reference: Any) -> str | None:
    import ray

    try:
        reason: str | None = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"no answer within {_WAIT:g} seconds"
    except ray.exceptions.RayError as error:
        return str(error).strip().splitlines()[-1]
    return reason
