"""From encoded files to pixels, in threads (Pillow and GDAL release the GIL), with every failure named."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from rssearch.data.listing import Files
from rssearch.data.reading import RGB, Reader, Rgb
from rssearch.data.scaling import image_sums, sums_dtype
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, Array, Pixels, reason, scale
from rssearch.imaging.rasters import Layout

Progress = Callable[[int, int], None]

CHUNK = 64  # images a thread takes at once: keeps the overhead of a future below 1 %


def available_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class Pass:
    """What one pass over all files found.

    Attributes:
        images: [N, C, H, W], or None if they were not kept.
        sums: [N, 3, C], see `rssearch.data.scaling.image_sums`.
        digests: hash of each encoded file; equal digests are copies.
        errors: index of a file that is not a readable image -> the reason.
    """

    images: Array | None
    sums: npt.NDArray[Any]
    digests: list[bytes]
    errors: dict[int, str]


def decode_all(
    files: Files,
    layout: Layout | None,
    *,
    keep: bool,
    reader: Reader = RGB,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Pass:
    """Decode every file once.

    Args:
        files: N encoded images.
        layout: of the results; None takes any, and then nothing is kept and nothing summed.
        keep: hold the pixels in memory.
        reader: makes pixels of files.
        workers: threads; None takes the CPUs of this process.
        progress: called with (done, total).
    """
    total = len(files)
    shape = None if layout is None else (layout.bands, layout.height, layout.width)
    images = np.empty((total, *shape), dtype=layout.dtype) if keep and layout and shape else None
    sums = np.zeros((total, 3, 0)) if layout is None else np.zeros((total, 3, layout.bands), sums_dtype(layout.dtype))
    digests = [b""] * total
    errors: dict[int, str] = {}
    size = None if shape is None or shape[1] != shape[2] else shape[1]

    def work(chunk: range) -> int:
        for index in chunk:
            try:
                data = files.read(index)
                digests[index] = hashlib.blake2b(data, digest_size=16).digest()
                image = reader.decode(data, size)
                if layout is not None and (image.shape, image.dtype) != (shape, np.dtype(layout.dtype)):
                    now, then = f"{image.shape} of {image.dtype}", f"{shape} of {layout.dtype}"
                    raise ValueError(f"decoded to {now}, not to {then}")
            except DECODE_ERRORS as error:
                errors[index] = reason(error)
                continue
            if layout is not None:
                sums[index] = image_sums(image, layout.nodata)
            if images is not None:
                images[index] = image
        return len(chunk)

    _run(work, total, workers, progress)
    return Pass(images, sums, digests, errors)


def common_layout(files: Files, size: int | None, reader: Reader = RGB, workers: int | None = None) -> Layout:
    """The one layout of all images, from their headers. Unreadable ones are left to `decode_all`.

    Args:
        files: encoded images.
        size: height and width that they are scaled to; None: their own.
        reader: makes pixels of files.
        workers: threads; None takes the CPUs of this process.

    Raises:
        InputError: there are several sizes, types, numbers or names of bands, or values of pixels without data; the
            message names them.
    """
    if size is not None and isinstance(reader, Rgb):
        return Layout(3, size, size, "uint8")
    found: list[Layout | None] = [None] * len(files)

    def work(chunk: range) -> int:
        for index in chunk:
            try:
                found[index] = reader.layout(files.read(index))
            except DECODE_ERRORS:
                continue  # named with its reason by decode_all, which opens every file again
        return len(chunk)

    _run(work, len(files), workers, None)
    layouts = [layout for layout in found if layout is not None]
    if not layouts:
        raise InputError(f"{files.base}: none of the {len(files)} files is a readable image{_why(files, reader)}")
    for what, value, advice in _COMMON:
        counts = Counter(value(layout) for layout in layouts)
        if len(counts) > 1 and not (size is not None and what == "size"):
            named = ", ".join(f"{text} ({number})" for text, number in counts.most_common(5))
            odd = counts.most_common()[-1][0]
            first = next(i for i, layout in enumerate(found) if layout is not None and value(layout) == odd)
            such = "" if what == "size" else f"; such as {files.location(first)}"
            raise InputError(f"{files.base}: images differ in {what}: {named}; {advice}{such}")
    return layouts[0] if size is None else replace(layouts[0], height=size, width=size)


_COMMON: tuple[tuple[str, Callable[[Layout], str], str], ...] = (
    ("bands and type", str, "all must have the same"),
    ("size", lambda layout: f"{layout.width}x{layout.height}", "set input_size to scale them"),
    ("the names of their bands", lambda layout: ", ".join(layout.names or ("none",)), "give settings.band_names"),
    (
        "the value of pixels without data",
        lambda layout: "none" if layout.nodata is None else f"{layout.nodata:g}",
        "give settings.nodata",
    ),
)


def _why(files: Files, reader: Reader) -> str:
    """Why the first file cannot be read."""
    try:
        reader.layout(files.read(0))
    except DECODE_ERRORS as error:
        return f"; {files.location(0)}: {reason(error)}"
    return ""


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
