"""Small rasters of every kind, written by rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def values(dtype: str, shape: tuple[int, int, int] = (4, 20, 24), seed: int = 0) -> npt.NDArray[Any]:
    """Numbers over the whole range of a type."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(0, 1000, shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def write(path: Path, pixels: npt.NDArray[Any], names: tuple[str, ...] = (), **options: Any) -> bytes:
    """Write [C, H, W] as a raster, a GeoTIFF where `options` name no other driver."""
    # Here: tests that need no raster run without it, on a GPU machine too.
    import rasterio
    from rasterio.transform import from_origin

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
    profile = {"driver": "GTiff", "dtype": pixels.dtype.name, **place, **options}
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
    return path.read_bytes()


def tree(root: Path, bands: tuple[str, ...] = ("B02", "B03", "B04", "B08"), count: int = 12, **options: Any) -> None:
    """Two classes that differ in their last band alone: 16 bits, 16 x 16 pixels, values up to 4,000."""
    for label, name in enumerate(("bare", "green")):
        for number in range(count):
            pixels = values("uint16", (len(bands), 16, 16), seed=100 * label + number) % 3000
            pixels[-1] += np.uint16(1000 * label)
            write(root / name / f"{number}.tif", pixels, bands, **options)
