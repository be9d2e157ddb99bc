"""Criteria: one file each, ``(model, graph, data, seed) -> {group: scores [width]}``, higher means keep."""
