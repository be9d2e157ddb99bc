"""Pixels of image files, and tiles of scenes. NumPy and Pillow alone: prediction works without torch."""

__all__ = ["headers", "pixels", "tiling"]
