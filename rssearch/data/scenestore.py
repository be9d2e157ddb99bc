"""Decoded scenes: in memory, or in memory-mapped files of a cache folder. Either way each file is decoded once.

The cache lies in ``$XDG_CACHE_HOME/rssearch/scenes`` (``~/.cache/rssearch/scenes``), one folder of ``.npy`` files for
each content; it can be deleted at any time, and is then made again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from rssearch.data.decode import Progress, available_cpus
from rssearch.data.scaling import image_sums
from rssearch.data.scenes import SceneSource
from rssearch.data.streaming import node_memory
from rssearch.errors import InputError
from rssearch.imaging.pixels import Array, Pixels
from rssearch.storage import scratch

VERSION = 3  # of the files in the cache
ROWS = 64  # counted at once: 64-bit copies of a whole mask would need eight times its memory
Keep = Callable[[int, Array, Pixels], None]


@dataclass
class Facts:
    """What one pass over all scenes found. The entries of scenes that cannot be read are empty.

    Attributes:
        sizes: height and width.
        sums: [3, C] for each scene, see `rssearch.data.scaling.image_sums`.
        counts: pixels of each class index, 256 numbers for each scene.
        digests: equal for copies of an image.
        errors: index of a scene -> why it cannot be read.
    """

    sizes: list[tuple[int, int]]
    sums: list[list[list[float]]]
    counts: list[list[int]]
    digests: list[str]
    errors: dict[int, str]


@dataclass
class Memory:
    """Scenes in memory. Pickled with protocol 5 the arrays travel out of band."""

    images: list[Array]
    masks: list[Pixels]

    def image(self, scene: int) -> Array:
        """[H, W, C], in the type of the files."""
        return self.images[scene]

    def mask(self, scene: int) -> Pixels:
        """uint8 [H, W]."""
        return self.masks[scene]


@dataclass
class Mapped:
    """Scenes in files that are mapped into memory, so that only the pages of the windows in use are read.

    Small to pickle. Where the files are not there (another node, a cleaned cache) they are made again.

    Attributes:
        key: name of their folder in the cache.
        source: of the pixels.
        numbers: of the scenes in the source.
    """

    key: str
    source: SceneSource
    numbers: tuple[int, ...]
    _open: dict[str, Array] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}}

    def image(self, scene: int) -> Array:
        """[H, W, C], in the type of the files."""
        return self._array(scene, "image")

    def mask(self, scene: int) -> Pixels:
        """uint8 [H, W]."""
        return self._array(scene, "mask")

    def _array(self, scene: int, kind: str) -> Array:
        name = _file(self.numbers[scene], kind)
        if name not in self._open:
            path = cache_folder() / self.key / name
            if not path.exists():
                cached(self.key, self.source)
            try:
                self._open[name] = np.asarray(np.load(path, mmap_mode="r"))
            except FileNotFoundError:
                raise InputError(f"{path} is gone; delete {path.parent}, which is then made again") from None
        return self._open[name]


def cache_folder() -> Path:
    """Where decoded scenes are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rssearch" / "scenes"


def cache_key(fingerprint: str, source: SceneSource) -> str:
    """The name of a content in the cache. Unlike the fingerprint it changes with the times of the files."""
    return hashlib.sha256(f"{VERSION} {fingerprint} {source.stamp()}".encode()).hexdigest()[:32]


def cached(key: str, source: SceneSource, *, workers: int | None = None, progress: Progress | None = None) -> Facts:
    """The facts of a content whose scenes are in the cache; decoded into it first where they are not.

    The folder appears whole or not at all, and is made by one process while others wait.

    Raises:
        InputError: the cache cannot be written.
    """
    folder = cache_folder() / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "facts.json").exists():
                _fill(folder, source, workers, progress)
        content = json.loads((folder / "facts.json").read_text())
    except OSError as error:
        raise InputError(
            f"scenes cannot be decoded into the cache {folder.parent}: {error}; set XDG_CACHE_HOME to a folder with "
            "room, or a larger settings.memory_share to keep them in memory"
        ) from error
    content["errors"] = {int(index): text for index, text in content["errors"].items()}
    return Facts(**content)


def _fill(folder: Path, source: SceneSource, workers: int | None, progress: Progress | None) -> None:
    def keep(index: int, image: Array, mask: Pixels) -> None:
        np.save(draft / _file(index, "image"), image)
        np.save(draft / _file(index, "mask"), mask)

    with scratch.folder(f"{folder.name}-", folder.parent) as draft:
        facts = read_all(source, keep, workers=workers, progress=progress)
        (draft / "facts.json").write_text(json.dumps(asdict(facts)))
        draft.rename(folder)


def _file(number: int, kind: str) -> str:
    return f"{number:06d}.{kind}.npy"


def read_all(source: SceneSource, keep: Keep, *, workers: int | None = None, progress: Progress | None = None) -> Facts:
    """Decode every scene once, in threads, and hand it to `keep`."""
    total = len(source)
    facts = Facts([(0, 0)] * total, [[]] * total, [[0] * 256] * total, [""] * total, {})

    def work(index: int) -> None:
        try:
            image, mask, digest, nodata = source.read(index)
        except InputError as error:
            facts.errors[index] = str(error)
            return
        facts.sizes[index] = (image.shape[0], image.shape[1])
        facts.sums[index], facts.digests[index] = image_sums(image.transpose(2, 0, 1), nodata).tolist(), digest
        facts.counts[index] = _counts(mask).tolist()
        keep(index, image, mask)

    workers = workers or threads(max((height * width for height, width in header_sizes(source)), default=0))
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for done, _ in enumerate(pool.map(work, range(total)), start=1):
            if progress is not None:
                progress(done, total)
    return facts


def header_sizes(source: SceneSource) -> list[tuple[int, int]]:
    """Height and width of every scene from its header; 0 of one that is unreadable, which `read_all` names."""

    def size(index: int) -> tuple[int, int]:
        try:
            return source.size(index)
        except InputError:
            return 0, 0

    return [size(index) for index in range(len(source))]


def threads(pixels: int) -> int:
    """As many as there are CPUs, but scenes of so many pixels in the making take at most a tenth of the memory."""
    return max(1, min(available_cpus(), int(0.1 * node_memory() / (12 * max(pixels, 1)))))


def _counts(mask: Pixels) -> npt.NDArray[np.int64]:
    """Pixels of each class index."""
    result = np.zeros(256, np.int64)
    for row in range(0, len(mask), ROWS):
        result += np.bincount(mask[row : row + ROWS].reshape(-1), minlength=256)
    return result
