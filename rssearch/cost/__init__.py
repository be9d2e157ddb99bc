"""What a network costs: MACs and parameters, latency, memory, and the ONNX export that some of it needs."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.cost.counting import Cost as Cost
    from rssearch.cost.counting import profile as profile

__all__ = ["Cost", "profile"]

_MODULES = {"Cost": "counting", "profile": "counting"}
__getattr__ = exports(__name__, _MODULES)
