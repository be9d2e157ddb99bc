"""Trained weights that cannot be fetched: why, and what serves without a network."""

from __future__ import annotations

import os
from pathlib import Path

from rssearch.errors import InputError, cut

__all__ = ["hub_cache", "not_fetched", "torch_cache"]

_INSTEAD = "or name a file of weights instead: settings.model.weights: FILE (`shrink --weights FILE`)"


def not_fetched(what: str, error: Exception, cache: str, url: str | None = None) -> InputError:
    """The error for trained weights that cannot be fetched.

    Args:
        what: the network and its weights.
        error: that the client for the network raised.
        cache: the folder where the weights would lie.
        url: where they are, if that is known.
    """
    why = cut(" ".join(str(error).split()) or type(error).__name__, 500)
    name = "" if url is None else f" as {url.rpartition('/')[2]}"
    source = "from a machine that has fetched them" if url is None else url
    return InputError(f"{what} could not be fetched: {why}. Put them into {cache}{name} ({source}), {_INSTEAD}")


def torch_cache() -> str:
    """Where torch keeps what it has fetched."""
    import torch

    return str(Path(torch.hub.get_dir()) / "checkpoints")


def hub_cache() -> str:
    """Where the client of the Hugging Face hub keeps what it has fetched."""
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return os.environ.get("HF_HUB_CACHE") or str(Path(home).expanduser() / "hub")
