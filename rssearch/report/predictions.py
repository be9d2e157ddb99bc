"""A picture of what a segmentation network predicts: image, mask and prediction of a few scenes side by side."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from rssearch.data import IGNORE
from rssearch.data.imageset import normalise
from rssearch.device import Precision
from rssearch.imaging.pixels import Array, Pixels
from rssearch.metrics import human
from rssearch.report.look import shade
from rssearch.train.segmentation import confusion, miou, predict_scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rssearch.data import PatchDataset, SceneSet

SCENES = 3
SIDE = 512  # pixels of a scene that are shown at most, along each axis
PANEL = 2.6  # inches
RESOLUTIONS = (110, 90, 70)  # dots per inch: the first whose file is small enough
LIMIT = 300_000  # bytes
SIGNS = 6  # of the legend, in one row
PALE, STRIPE = (232, 232, 232), (150, 150, 150)  # of pixels without a label
HEX = "#{:02X}{:02X}{:02X}"
NAME = 26  # characters that fit over a panel
COLOURS = (("b04", "b03", "b02"), ("red", "green", "blue"), ("b4", "b3", "b2"), ("r", "g", "b"))  # names of bands


class Example(NamedTuple):
    """A scene, or the middle of a large one: pixels uint8 [H, W, 3], mask and prediction int64 [H, W]."""

    name: str
    pixels: Pixels
    mask: Tensor
    predicted: Tensor


def examples(
    model: nn.Module,
    dataset: PatchDataset,
    *,
    size: int,
    overlap: int,
    batch_size: int,
    device: torch.device,
    precision: Precision = "auto",
    count: int = SCENES,
) -> list[Example]:
    """Predict some scenes of a split, evenly spaced in its order: the same ones for every network.

    Args:
        model: gives logits [B, K, size, size]; it is left in the mode that it was in.
        dataset: the split.
        size: of the tiles, as `overlap` and `batch_size` those of `rssearch.train.segmentation.predict_scene`.
        overlap: pixels that neighbouring tiles share.
        batch_size: tiles that go through the network together.
        device: where it computes.
        precision: as in `rssearch.train.evaluate`.
        count: scenes at most.

    Returns:
        On the CPU, the central `SIDE` pixels of larger scenes; empty if the split is.

    Raises:
        InputError: a size or an overlap that is not allowed.
    """
    source = dataset.source
    numbers = np.unique(source.windows[dataset.indices, 0])
    chosen = numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)]
    found = []
    for scene in chosen.tolist():
        mask = _middle(source.scenes.mask(scene))
        pixels = np.array(_middle(source.scenes.image(scene)))  # a copy: shared pixels are read-only
        image = normalise(torch.from_numpy(pixels.transpose(2, 0, 1))[None], source)[0]
        logits = predict_scene(
            model, image, size=size, overlap=overlap, batch_size=batch_size, device=device, precision=precision
        )
        labels = torch.from_numpy(mask.astype(np.int64))
        found.append(Example(source.names[scene], visible(pixels, source), labels, logits.argmax(0).cpu()))
    return found


def visible(pixels: Array, source: SceneSet) -> Pixels:
    """A scene as people see it: its red, green and blue band, or the first ones, uint8 [H, W, 3].

    Args:
        pixels: [H, W, C], in the type of the files.
        source: their set.
    """
    if pixels.dtype == np.uint8 and source.layout is None:
        return pixels
    names = [name.lower() for name in source.bands or ()]
    seen = next((trio for trio in COLOURS if set(trio) <= set(names)), None)
    bands = [names.index(name) for name in seen] if seen else [0, 1, 2] if pixels.shape[2] > 2 else [0, 0, 0]
    low, high = (ends.reshape(-1)[bands] for ends in source.scaling.ends(pixels.shape[2]))
    scaled = (pixels[..., bands].astype(np.float32) - low) / (high - low)
    if source.scaling.nodata is not None:
        scaled[(pixels == source.scaling.nodata).all(2)] = 0
    # Reflectance fills little of its range; a picture shows that of the scene itself.
    scaled = np.nan_to_num(scaled)
    top = max(float(np.percentile(scaled, 98)), 1e-6)
    return np.asarray(np.clip(scaled / top, 0, 1) * 255, np.uint8)


def draw(found: Sequence[Example], classes: Sequence[str]) -> Figure:
    """Draw a row for each example: image, mask, and prediction with the mIoU of what is shown.

    Args:
        found: at least one example.
        classes: the names in the order of their indices. A class has the same colour in every picture.

    Returns:
        A Matplotlib figure without the global state of pyplot.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    seen = np.unique(np.concatenate([labels.numpy().ravel() for e in found for labels in (e.mask, e.predicted)]))
    signs = [Patch(color=HEX.format(*shade(i)), label=classes[i]) for i in seen.tolist() if i != IGNORE]
    if IGNORE in seen:
        light, dark = HEX.format(*PALE), HEX.format(*STRIPE)
        signs.append(Patch(facecolor=light, edgecolor=dark, hatch="////", linewidth=0, label="no label"))
    heights = [PANEL * min(height / width, 1.5) for height, width in (example.mask.shape for example in found)]
    extra = 0.24 * len(found) + 0.2 * math.ceil(len(signs) / SIGNS) + 0.15  # titles and legend
    figure = Figure(figsize=(3 * PANEL + 0.2, sum(heights) + extra), layout="constrained")
    panels = figure.subplots(len(found), 3, squeeze=False, height_ratios=heights)
    for (left, middle, right), example in zip(panels, found, strict=True):
        matrix = confusion(example.predicted, example.mask, len(classes))
        quality = f"mIoU {human('miou', miou(matrix))}" if matrix.any() else "no label"
        shown = example.name if len(example.name) <= NAME else "…" + example.name[1 - NAME :]
        titles = (shown, "mask", f"prediction, {quality}")
        pictures = (example.pixels, coloured(example.mask), coloured(example.predicted))
        for panel, picture, title in zip((left, middle, right), pictures, titles, strict=True):
            panel.imshow(picture, interpolation="nearest" if picture.shape[1] < SIDE / 2 else "auto")
            panel.set_title(title.replace("$", r"\$"), fontsize=9, pad=3)
            panel.set_axis_off()
    figure.legend(handles=signs, loc="outside lower center", ncols=min(len(signs), SIGNS), frameon=False, fontsize=9)
    return figure


def png(found: Sequence[Example], classes: Sequence[str]) -> bytes:
    """The picture of `draw` as a file of less than `LIMIT` bytes, where the lowest of `RESOLUTIONS` allows it.

    It has a palette of 256 colours, which makes it three times smaller.
    """
    figure = draw(found, classes)
    content = b""
    for dpi in RESOLUTIONS:
        whole, small = io.BytesIO(), io.BytesIO()
        figure.savefig(whole, format="png", dpi=dpi)
        picture = Image.open(whole).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(small, format="png", optimize=True)
        content = small.getvalue()
        if len(content) < LIMIT:
            break
    return content


def coloured(labels: Tensor) -> npt.NDArray[np.uint8]:
    """A mask or prediction int64 [H, W] in the colours of its classes, uint8 [H, W, 3]; `IGNORE` is hatched."""
    table = np.array([shade(index) for index in range(IGNORE)] + [PALE], dtype=np.uint8)
    result: npt.NDArray[np.uint8] = table[labels.numpy()]
    height, width = labels.shape
    period = max(4, max(height, width) // 32)
    stripes = (np.add.outer(np.arange(height), np.arange(width)) % period) < period // 4
    result[(labels == IGNORE).numpy() & stripes] = STRIPE
    return result


def _middle(scene: Pixels) -> Pixels:
    """The central pixels of a scene [H, W, ...], at most `SIDE` along each axis."""
    rows, columns = (max(0, (length - SIDE) // 2) for length in scene.shape[:2])
    return scene[rows : rows + SIDE, columns : columns + SIDE]
