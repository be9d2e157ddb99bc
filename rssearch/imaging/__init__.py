"""Which files are images, their pixels, and tiles of scenes. NumPy and Pillow alone: prediction works without torch."""

__all__ = ["contents", "headers", "pixels", "tiling"]
