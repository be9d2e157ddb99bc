"""A device that measures the networks of a study: what runs there, and the desk where the study hands them out.

What runs on the device (`python -m rssearch.agent`) needs Python, onnxruntime and NumPy, and nothing else.
"""

from rssearch.agent.protocol import METRICS
from rssearch.lazy import exports

__all__ = ["METRICS", "Desk", "run", "serving"]

__getattr__ = exports("rssearch.agent", {"Desk": "desk", "run": "client", "serving": "server"})
