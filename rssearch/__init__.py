"""Pruning-rate and architecture search for remote-sensing CNNs."""

__version__ = "0.1.0"
