"""How a network is used: the code of a model card, for images of 8 bits and for rasters of any bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rssearch.bundle.preprocessing import bands_of
from rssearch.escaping import markdown

__all__ = ["texts"]

_PURPOSE = {
    "multilabel": "A network that gives {size} RGB images those of {count} classes that they have",
    "classification": "A classifier of {size} RGB images into {count} classes",
    "segmentation": "A network that gives each pixel of an RGB scene one of {count} classes",
}
_PREDICT = {
    "multilabel": """\
for name, probability in zip(network.classes, predict.probabilities(network, "image.png")):
    if probability >= network.threshold:
        print(name, probability)""",
    "classification": """\
for name, probability in zip(network.classes, predict.probabilities(network, "image.png")):
    print(name, probability)""",
    "segmentation": """\
labels = predict.labels(network, "image.png")  # of any size, uint8 [height, width]
for index, name in enumerate(network.classes):
    print(name, (labels == index).mean())""",
}
_ALONE = {
    "classification": """\
With onnxruntime alone, for 8-bit images (deeper ones would be cut to 8 bits without a word):

```python
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

folder = Path("PATH/OF/THIS/FOLDER")
session = onnxruntime.InferenceSession(folder / "model.onnx")
about = json.loads((folder / "preprocessing.json").read_text())

channels, height, width = about["input_shape"]
%(prepare)s
pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
mean, std = (np.array(about[name], np.float32)[:, None, None] for name in ("mean", "std"))
(logits,) = session.run(["logits"], {"image": ((pixels - mean) / std)[None]})
print(about["classes"][logits[0].argmax()])
```""",
    "segmentation": """\
With onnxruntime alone, `model.onnx` takes tiles: input `image`, float32 [batch, 3, %(height)d, %(width)d], to
`logits`, [batch, %(count)d, %(height)d, %(width)d]. `preprocessing.json` says how pixels are scaled and how far tiles
overlap.""",
}
_ALONE["multilabel"] = _ALONE["classification"].replace(
    'print(about["classes"][logits[0].argmax()])',
    """\
chances = 1 / (1 + np.exp(-logits[0]))
print([name for name, chance in zip(about["classes"], chances) if chance >= about["threshold"]])""",
)
# What `rssearch.imaging.pixels.decode` does, for those who have Pillow alone: of a square input, and of any other.
_SQUARE = """\
image = Image.open(io.BytesIO(Path("image.png").read_bytes()))  # by its name, Pillow would misread a turned TIFF
image.draft("RGB", (2 * width, 2 * height))  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that is large enough
image = ImageOps.exif_transpose(image).convert("RGB")
side = min(image.size)
left, top = (image.width - side) / 2, (image.height - side) / 2
square = (left, top, left + side, top + side)
image = image.resize((width, height), Image.Resampling.BILINEAR, box=square, reducing_gap=3.0)"""
_OBLONG = """\
image = ImageOps.exif_transpose(Image.open(io.BytesIO(Path("image.png").read_bytes()))).convert("RGB")
assert image.size == (width, height)"""
_IMPORTS = {
    "classification": "from rssearch import bundle\nfrom rssearch.imaging.pixels import decode",
    "segmentation": """\
from rssearch import bundle
from rssearch.imaging.pixels import decode
from rssearch.train.segmentation import predict_scene""",
}
_USE = {
    "classification": """\
pixels = torch.from_numpy(decode(Path("image.png").read_bytes(), {side})) / 255
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
with torch.inference_mode():
    probabilities = model(((pixels - mean) / std)[None]).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))""",
    "segmentation": """\
# Of any size, at the resolution of the training scenes.
pixels = torch.from_numpy(decode(Path("image.png").read_bytes(), None)) / 255
mean, std = (torch.tensor(about[name])[:, None, None] for name in ("mean", "std"))
labels = predict_scene(model, (pixels - mean) / std, **about["tiles"]).argmax(0)  # [height, width]
for index, name in enumerate(about["classes"]):
    print(name, float((labels == index).float().mean()))""",
}

_ONE = """\
    probabilities = model(%s).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))"""
_SEVERAL = """\
    probabilities = model(%s).sigmoid()[0]
for name, probability in zip(about["classes"], probabilities.tolist()):
    if probability >= about["threshold"]:
        print(name, probability)"""
_INPUT, _BANDS_INPUT = "((pixels - mean) / std)[None]", "torch.from_numpy(predict.normalised(pixels, about))[None]"
_IMPORTS["multilabel"] = _IMPORTS["classification"]
_USE["multilabel"] = _USE["classification"].replace(_ONE % _INPUT, _SEVERAL % _INPUT)
_TORCH = "With torch and rssearch, which refuses what is no 8-bit image as the command line does:"
# Of rasters, of which what is said above of 8-bit RGB is not true.
_BANDS_PURPOSE = {
    "multilabel": "A network that gives {size} images of {bands} those of {count} classes that they have",
    "classification": "A classifier of {size} images of {bands} into {count} classes",
    "segmentation": "A network that gives each pixel of a scene of {bands} one of {count} classes",
}
_BANDS_ALONE = """\
With onnxruntime alone, `model.onnx` takes float32 [batch, {channels}, {height}, {width}]: of the values of each band
((value - low) / (high - low) - mean) / std, by the numbers of `preprocessing.json`, where `fill` stands for values
without data."""
_BANDS_TORCH = "With torch and rssearch, which refuses other bands as the command line does:"
_BANDS_USE = {
    "classification": """\
pixels = predict.pixels(predict.open_network(folder), "image.tif", {side})  # what has no data is filled
with torch.inference_mode():
    probabilities = model(torch.from_numpy(predict.normalised(pixels, about))[None]).softmax(1)[0]
print(about["classes"][int(probabilities.argmax())], float(probabilities.max()))""",
    "segmentation": """\
# Of any size, at the resolution of the training scenes.
pixels = predict.pixels(predict.open_network(folder), "image.tif", None)  # what has no data is filled
scene = torch.from_numpy(predict.normalised(pixels, about))
labels = predict_scene(model, scene, **about["tiles"]).argmax(0)  # [height, width]
for index, name in enumerate(about["classes"]):
    print(name, float((labels == index).float().mean()))""",
}
_BANDS_IMPORTS = {
    "classification": "from rssearch import bundle\nfrom rssearch.bundle import predict",
    "segmentation": """\
from rssearch import bundle
from rssearch.bundle import predict
from rssearch.train.segmentation import predict_scene""",
}

_BANDS_IMPORTS["multilabel"] = _BANDS_IMPORTS["classification"]
_BANDS_USE["multilabel"] = _BANDS_USE["classification"].replace(_ONE % _BANDS_INPUT, _SEVERAL % _BANDS_INPUT)


def texts(about: Mapping[str, Any]) -> dict[str, str]:
    """What a card says of a network's purpose and use, by the names of its places there.

    Args:
        about: what was kept with the weights.
    """
    (channels, height, width), task, bands = about["input_shape"], about["task"], bands_of(about)
    words = {"size": f"{height} x {width}", "count": len(about["classes"]), "height": height, "width": width}
    words |= {"prepare": _SQUARE if height == width else _OBLONG, "side": height if height == width else None}
    words |= {"bands": markdown(str(bands)), "channels": channels}
    if bands.pictures:
        return {
            "purpose": _PURPOSE[task].format(**words),
            "packages": "onnxruntime numpy pillow",
            "image": "image.png",
            "predict": _PREDICT[task],
            "alone": _ALONE[task] % words,
            "torch": _TORCH,
            "imports": _IMPORTS[task],
            "use": _USE[task].format(**words),
        }
    return {
        "purpose": _BANDS_PURPOSE[task].format(**words),
        "packages": "onnxruntime numpy pillow rasterio",
        "image": "image.tif",
        "predict": _PREDICT[task].replace("image.png", "image.tif"),
        "alone": _BANDS_ALONE.format(**words),
        "torch": _BANDS_TORCH,
        "imports": _BANDS_IMPORTS[task],
        "use": _BANDS_USE[task].format(**words),
    }
