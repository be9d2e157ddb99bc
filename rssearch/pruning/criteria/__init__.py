"""Criteria: one file each, ``(model, graph, data, seed) -> {group: scores [width]}``, higher means keep.

The modules that help to write one: ``batches`` (iterate over the data), ``maps`` (feature maps), ``producers`` (from
scores of layers to scores of groups).
"""

__all__ = ["batches", "maps", "producers"]
