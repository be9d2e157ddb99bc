"""Images that do not fit into memory: decoded when they are asked for, some batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import psutil
import torch

from rssearch.data.listing import Files
from rssearch.data.reading import RGB, Reader
from rssearch.errors import InputError
from rssearch.imaging.pixels import DECODE_ERRORS, Array

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
T = TypeVar("T")
AHEAD = 4  # batches in preparation: enough to even out slow reads, small beside the model's activations


@dataclass
class Stream:
    """Stands for an array [N, C, H, W] whose images are read from their files. Small to pickle.

    Attributes:
        files: the encoded images.
        shape: [N, C, H, W].
        workers: decoding threads; None takes as many as PyTorch computes with, in a trial its share of the CPUs.
        reader: makes pixels of the files.
        dtype: of the pixels.
    """

    files: Files
    shape: tuple[int, int, int, int]
    workers: int | None = None
    reader: Reader = RGB
    dtype: np.dtype[np.generic] = np.dtype(np.uint8)  # noqa: RUF009  (immutable)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: npt.NDArray[np.int64]) -> Array:
        """Decode some images: [B, C, H, W]. Raises InputError where a file can no longer be read."""
        return next(self.batches([indices]))

    def batches(self, chunks: Iterable[npt.NDArray[np.int64]]) -> Iterator[Array]:
        """Decode one batch after the other, with the next ones in preparation."""
        for images in read_ahead(self._one, chunks, self.workers):
            batch = np.empty((len(images), *self.shape[1:]), dtype=self.dtype)
            for row, image in zip(batch, images, strict=True):
                row[:] = image
            yield batch

    def _one(self, index: int) -> Array:
        size = self.shape[2] if self.shape[2] == self.shape[3] else None
        try:
            image = self.reader.decode(self.files.read(index), size)
        except DECODE_ERRORS as error:
            raise InputError(f"{self.files.location(index)}: cannot be read any more: {error}") from error
        if image.shape != self.shape[1:] or image.dtype != self.dtype:
            now, then = f"{image.shape} of {image.dtype}", f"{self.shape[1:]} of {self.dtype}"
            raise InputError(f"{self.files.location(index)}: has changed: it is {now}, not {then}")
        return image


def read_ahead(
    read: Callable[[int], T], chunks: Iterable[npt.NDArray[np.int64]], workers: int | None
) -> Iterator[list[T]]:
    """Read chunk after chunk in threads, with the next ones in preparation; they end with the reader."""
    with ThreadPoolExecutor(workers or torch.get_num_threads(), thread_name_prefix="stream") as pool:
        pending: deque[list[Future[T]]] = deque()
        try:
            for chunk in chunks:
                pending.append([pool.submit(read, int(index)) for index in chunk])
                if len(pending) > AHEAD:
                    yield [item.result() for item in pending.popleft()]
            while pending:
                yield [item.result() for item in pending.popleft()]
        finally:  # also when the reader stops early
            pool.shutdown(wait=True, cancel_futures=True)


def node_memory() -> int:
    """Bytes of memory that this node, or the container it runs in, may use."""
    limits = [psutil.virtual_memory().total]
    for path in CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
