"""Which files are images, their pixels, and tiles of scenes, without torch; rasterio is imported where it is used."""

__all__ = ["contents", "headers", "pixels", "tiling"]
