"""What one trial does: one module for each kind of study, named in a YAML as ``trials.prune:run``."""

__all__ = ["channel_nas", "curves", "micronet", "prune"]
