"""What `rssearch shrink` takes where nothing else is asked for: apart, as the help needs no more of it."""

from __future__ import annotations

# The highest mean at a quarter of the MACs among the methods that prune given weights: docs/results/pruning_methods.md.
METHOD = "compound"
EPOCHS = 10  # of the fine-tuning
