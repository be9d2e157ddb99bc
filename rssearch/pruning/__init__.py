"""Structured pruning: which channels belong together, which ones go, and the smaller network.

graph = trace(model, example_input)             # coupled channels, and their exact cost
scores = score(model, graph, "l1")              # how much each channel matters
kept = allocate(graph, scores, allocation="uniform", macs_ratio=0.5)
smaller, spec = cut(model, graph, kept)         # or all of it: prune(model, example_input, "l1", macs_ratio=0.5)
"""

from rssearch.pruning.allocate import allocate, check_amount
from rssearch.pruning.channels import ChannelGraph, Group, Member
from rssearch.pruning.elasticity import Elasticity
from rssearch.pruning.graph import trace
from rssearch.pruning.methods import (
    METHODS,
    Method,
    check_network,
    check_options,
    code_of,
    get_method,
    list_methods,
    score,
)
from rssearch.pruning.pruned import PrunedModel, check_sensitivity, check_steps, cost_report, prune
from rssearch.pruning.ratios import layer_rates
from rssearch.pruning.sensitivity import Sensitivity, measure_sensitivities
from rssearch.pruning.surgery import apply_spec, compose, cut, make_spec, masked, zero_filters

__all__ = [
    "METHODS",
    "ChannelGraph",
    "Elasticity",
    "Group",
    "Member",
    "Method",
    "PrunedModel",
    "Sensitivity",
    "allocate",
    "apply_spec",
    "check_amount",
    "check_network",
    "check_options",
    "check_sensitivity",
    "check_steps",
    "code_of",
    "compose",
    "cost_report",
    "cut",
    "get_method",
    "layer_rates",
    "list_methods",
    "make_spec",
    "masked",
    "measure_sensitivities",
    "prune",
    "score",
    "trace",
    "zero_filters",
]
