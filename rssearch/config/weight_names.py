"""Whether trained weights are a file or a name: known without torch."""

from __future__ import annotations

__all__ = ["SUFFIXES", "is_file"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")


def is_file(weights: str) -> bool:
    """Whether a value of the option `weights` means a file, which its ending or a slash says, and no known name."""
    return "/" in weights or weights.lower().endswith(SUFFIXES)
