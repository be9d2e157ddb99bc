"""How a contract is checked: every clause is tried, and those that do not hold are named together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["ContractError", "check", "require"]

Part = TypeVar("Part")


class ContractError(AssertionError):
    """Clauses of a contract do not hold."""


def require(holds: bool, what: str) -> None:
    """Raise an AssertionError that says what is wrong, also where Python runs without asserts."""
    if not holds:
        raise AssertionError(what)


def check(name: str, part: Part, clauses: Iterable[Callable[[Part], None]]) -> None:
    """Try every clause on a part.

    Args:
        name: of the part, for the message.
        part: what the clauses get.
        clauses: functions; the first line of a docstring says what it asks.

    Raises:
        ContractError: which clauses do not hold, and why; the first exception is its cause.
    """
    broken: list[tuple[str, BaseException]] = []
    asked = list(clauses)
    for clause in asked:
        try:
            clause(part)
        except Exception as error:  # noqa: BLE001  # whatever a part raises breaks the clause
            text = (clause.__doc__ or clause.__name__).strip().splitlines()[0]
            broken.append((text, error))
    if broken:
        lines = [f"{name}: {len(broken)} of {len(asked)} clauses do not hold"]
        for text, why in broken:
            said = str(why).strip() or type(why).__name__
            kind = "" if isinstance(why, AssertionError) else f"{type(why).__name__}: "
            lines.append(f"- {text}\n  {kind}{said}")
        raise ContractError("\n".join(lines)) from broken[0][1]
