"""From encoded files to uint8 pixels, in threads (Pillow releases the GIL), with every failure named."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.data.listing import Files
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, Pixels, decode, reason, scale, upright_size

Progress = Callable[[int, int], None]

ROWS = 64  # summed at once: 64-bit copies of a whole large image would need many times its memory
CHUNK = 64  # images a thread takes at once: keeps the overhead of a future below 1 %


def pixel_sums(image: Pixels) -> npt.NDArray[np.int64]:
    """Sum of the pixels and of their squares for each channel: int64 [2, C], exact, so that order never matters."""
    sums = np.zeros((2, image.shape[0]), np.int64)
    for row in range(0, image.shape[1], ROWS):
        flat = image[:, row : row + ROWS].reshape(image.shape[0], -1).astype(np.int64)
        sums += np.stack([flat.sum(1), (flat * flat).sum(1)])
    return sums


def moments(sums: npt.NDArray[np.int64], pixels: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of each channel in [0, 1], from exact sums [2, C] of pixels and of their squares."""
    first, second = sums / pixels
    mean = first / 255
    variance = second / 255**2 - mean**2
    # A constant channel has no deviation; half a grey level keeps the division finite.
    return mean.astype(np.float32), np.sqrt(np.maximum(variance, (0.5 / 255) ** 2)).astype(np.float32)


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Pass:
    """What one pass over all files found.

    Attributes:
        images: uint8 [N, C, H, W], or None if they were not kept.
        sums: int64 [N, 2, C], see `pixel_sums`.
        digests: hash of each encoded file; equal digests are copies.
        errors: index of a file that is not a readable image -> the reason.
    """

    images: Pixels | None
    sums: npt.NDArray[np.int64]
    digests: list[bytes]
    errors: dict[int, str]


def decode_all(
    files: Files,
    shape: tuple[int, int, int] | None,
    *,
    keep: bool,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Pass:
    """Decode every file once.

    Args:
        files: N encoded images.
        shape: (C, H, W) of the results; None takes any size, and then nothing can be kept.
        keep: hold the pixels in memory.
        workers: threads; None takes the CPUs of this process.
        progress: called with (done, total).
    """
    total = len(files)
    images = np.empty((total, *shape), dtype=np.uint8) if keep and shape is not None else None
    sums = np.zeros((total, 2, 3), dtype=np.int64)
    digests = [b""] * total
    errors: dict[int, str] = {}
    size = None if shape is None or shape[1] != shape[2] else shape[1]

    def work(chunk: range) -> int:
        for index in chunk:
            try:
                data = files.read(index)
                digests[index] = hashlib.blake2b(data, digest_size=16).digest()
                image = decode(data, size)
                if shape is not None and image.shape != shape:
                    raise ValueError(f"decoded to {image.shape}, not to {shape}")
            except DECODE_ERRORS as error:
                errors[index] = reason(error)
                continue
            sums[index] = pixel_sums(image)
            if images is not None:
                images[index] = image
        return len(chunk)

    _run(work, total, workers, progress)
    return Pass(images, sums, digests, errors)


def common_shape(files: Files, workers: int | None = None) -> tuple[int, int, int]:
    """The one (C, H, W) of all images, from their headers. Unreadable ones are left to `decode_all`.

    Raises:
        InputError: there are several sizes; the message names them.
    """
    sizes: list[tuple[int, int] | None] = [None] * len(files)

    def work(chunk: range) -> int:
        for index in chunk:
            try:
                sizes[index] = upright_size(io.BytesIO(files.read(index)))
            except DECODE_ERRORS:
                continue  # named with its reason by decode_all, which opens every file again
        return len(chunk)

    _run(work, len(files), workers, None)
    counts = Counter(size for size in sizes if size is not None)
    if not counts:
        raise InputError(f"{files.base}: none of the {len(files)} files is a readable image")
    if len(counts) > 1:
        named = ", ".join(f"{w}x{h} ({n})" for (h, w), n in counts.most_common(5))
        raise InputError(f"{files.base}: images differ in size: {named}; set input_size to scale them")
    height, width = next(iter(counts))
    return 3, height, width


def _run(work: Callable[[range], int], total: int, workers: int | None, progress: Progress | None) -> None:
    chunks: Iterable[range] = (range(start, min(start + CHUNK, total)) for start in range(0, total, CHUNK))
    done = 0
    with ThreadPoolExecutor(workers or available_cpus(), thread_name_prefix="decode") as pool:
        for count in pool.map(work, chunks):
            done += count
            if progress is not None:
                progress(done, total)


def resize_all(images: Pixels, size: int | None) -> Pixels:
    """Scale raw pixels uint8 [N, 3, H, W] to `size` as files are; None leaves them as they are."""
    if size is None or images.shape[2:] == (size, size):
        return images
    result = np.empty((len(images), 3, size, size), dtype=np.uint8)
    for row, image in zip(result, images, strict=True):
        row[:] = np.asarray(scale(Image.fromarray(image.transpose(1, 2, 0)), size)).transpose(2, 0, 1)
    return result


def broken_message(name: str, broken: Sequence[str], total: int, kind: str = "images") -> str:
    """What is said of images that cannot be read: how many, and the first ten by name."""
    rest = f"\n  and {len(broken) - 10} more" if len(broken) > 10 else ""
    first = "".join(f"\n  {line}" for line in broken[:10])
    return (
        f"dataset {name!r}: {len(broken)} of {total} {kind} cannot be read:{first}{rest}\n"
        "Mend or remove them, or set on_error: skip to leave them out."
    )
