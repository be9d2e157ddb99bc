"""What runs next and what stops early: Optuna's samplers, successive halving. No Ray."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.sampling.sampler import CAPABILITIES as CAPABILITIES
    from rssearch.sampling.sampler import Proposer as Proposer

__all__ = ["CAPABILITIES", "Proposer"]

_MODULES = {"CAPABILITIES": "sampler", "Proposer": "sampler"}
__getattr__ = exports(__name__, _MODULES)
