"""PyTorch without its compiler, whose import takes as much CPU time as that of PyTorch itself, in every process.

Optimizers and dispatch modes import `torch._dynamo` at their first call, only to tell it that it is not meant. Nothing
here is ever compiled; what is the user's own and is compiled imports it first, and then nothing changes.
"""

from __future__ import annotations

import inspect
import sys
from typing import TypeVar

import torch

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)

_HIDDEN = torch._compile._disable_dynamo(lambda: None).__code__  # that of all methods that are hidden from it


def spare_compiler(owner: type) -> None:
    """Let the own methods of a class be called without the compiler.

    `torch._disable_dynamo` asks the compiler for a form of the method that it does not look into, and remembers it.
    Without a compiler that is the method itself.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(owner).values():
        if getattr(method, "__code__", None) is _HIDDEN:
            plain = inspect.unwrap(method)
            setattr(plain, "__dynamo_disable", plain)  # not mangled: it is looked up as a string


def eager(optimizer: type[Optimizer]) -> type[Optimizer]:
    """An optimizer that takes the same steps without the compiler."""
    spare_compiler(torch.optim.Optimizer)
    step = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), {"step": step, "__module__": __name__})
