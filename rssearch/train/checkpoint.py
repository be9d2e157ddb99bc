"""What a training is resumed from."""

from __future__ import annotations

import io
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rssearch.errors import InputError


class StepRecord(Protocol):
    """What `fit` needs of a record of the training's steps, such as `rssearch.pruning.Elasticity`."""

    def reset(self) -> None: ...  # noqa: D102

    def update(self, loss: Tensor) -> None: ...  # noqa: D102

    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102

    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # noqa: D102


def write(
    identity: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    elasticity: StepRecord | None,
    history: list[dict[str, float]],
) -> bytes:
    """All that a resumption needs. There is no random state in it: every epoch seeds its own."""
    buffer = io.BytesIO()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "elasticity": elasticity.state_dict() if elasticity is not None else None,
        "history": history,
    }
    torch.save({**identity, **state}, buffer)
    return buffer.getvalue()


def restore(
    checkpoint: bytes,
    identity: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    elasticity: StepRecord | None,
    device: torch.device,
) -> list[dict[str, float]]:
    """Load a checkpoint into the model, the optimizer and the elasticity; returns the history."""
    state = torch.load(io.BytesIO(checkpoint), map_location=device, weights_only=True)
    for name, value in identity.items():
        if state[name] != value:
            raise InputError(f"the checkpoint was made with another {name}: {state[name]!r}, not {value!r}")
    history: list[dict[str, float]] = state["history"]
    if elasticity is not None:
        if state["elasticity"] is not None:
            elasticity.load_state_dict(state["elasticity"])
        elif len(history) == identity["recipe"]["epochs"]:
            raise InputError("the checkpoint is of a finished training whose elasticity was not recorded")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return history
