"""Differentiable search of the number of channels: gates, their expected cost, the search, what is derived.

``atrous`` says which dilation rates leave no holes.
"""

from rssearch.config.settings import ChannelSearch
from rssearch.nas import atrous
from rssearch.nas.derive import derive, fold
from rssearch.nas.gates import Gates
from rssearch.nas.search import Run, cost_loss, halves, search, temperature_at

__all__ = [
    "ChannelSearch",
    "Gates",
    "Run",
    "atrous",
    "cost_loss",
    "derive",
    "fold",
    "halves",
    "search",
    "temperature_at",
]
