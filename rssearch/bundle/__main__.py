"""``python -m rssearch.bundle DIR IMAGE...``: predict with onnxruntime, NumPy and Pillow; torch is not needed."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.errors import InputError, cut, shown
from rssearch.escaping import printable
from rssearch.storage.location import check_folder

if TYPE_CHECKING:
    from rssearch.bundle.predict import Network


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each image. Status 0, or 2 with one message for what cannot be used."""
    asked = _parser().parse_args(arguments)
    try:
        from rssearch.bundle import predict

        network = predict.open_network(asked.bundle, int8=asked.int8, threads=asked.threads)
        work = _segmented if network.segments else _classified
        if network.segments:
            check_folder(asked.out)
        targets = _targets(asked.images, asked.out) if network.segments else dict.fromkeys(asked.images, Path())
        for image in asked.images:
            found = work(network, image, targets[image], asked.top)
            sys.stdout.write((json.dumps(found) if asked.json else _line(found)) + "\n")
            sys.stdout.flush()
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: prediction needs onnxruntime, numpy and pillow")
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"{cut(str(error.filename), 300)}: {error.strerror}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rssearch.bundle",
        description="Predict images with a deploy bundle. One line for each image, columns separated by tabs: image, "
        "class, probability; for segmentation: image, mask, and each class with its share of the pixels.",
    )
    parser.add_argument("bundle", metavar="DIR", type=Path, help="the bundle, as `rssearch export` writes it")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument("--top", metavar="K", type=_positive, default=1, help="the K likeliest classes; default 1")
    parser.add_argument("--json", action="store_true", help="each line is a JSON object")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, default=Path(), help="where masks go, as NAME.mask.png; default: here"
    )
    parser.add_argument("--int8", action="store_true", help="use the quantised model")
    parser.add_argument("--threads", metavar="N", type=_positive, default=0, help="default: as many as there are cores")
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of at least 1 and at most 9999")
    return int(text[-4:])


def _classified(network: Network, image: str, _target: Path, top: int) -> dict[str, Any]:
    from rssearch.bundle.predict import probabilities

    found = probabilities(network, image)
    likeliest = (-found).argsort(kind="stable")[:top]
    return {"image": image, "classes": {network.classes[i]: float(found[i]) for i in likeliest.tolist()}}


def _segmented(network: Network, image: str, target: Path, _top: int) -> dict[str, Any]:
    import numpy as np
    from PIL import Image

    from rssearch.bundle.predict import labels

    found = labels(network, image)
    mask = Image.fromarray(found)
    mask.putpalette([value for colour in network.about["colours"] for value in colour])  # its pixels stay the labels
    target.parent.mkdir(parents=True, exist_ok=True)
    mask.save(target)
    shares = np.bincount(found.ravel(), minlength=len(network.classes)) / found.size
    return {"image": image, "mask": str(target), "classes": dict(zip(network.classes, shares.tolist(), strict=True))}


def _targets(images: Sequence[str], folder: Path) -> dict[str, Path]:
    """Where the mask of each image goes."""
    targets = {image: folder / f"{Path(image).stem}.mask.png" for image in images}
    owner: dict[Path, str] = {}
    for image, target in targets.items():
        if target in owner:
            raise InputError(f"{image} and {owner[target]} would both have the mask {target}: predict them one by one")
        owner[target] = image
    return targets


def _line(found: dict[str, Any]) -> str:
    show: Callable[[float], str] = "{:.4f}".format
    pairs = [text for name, value in found["classes"].items() for text in (name, show(value))]
    cells = [found["image"], *([found["mask"]] if "mask" in found else []), *pairs]
    return "\t".join(printable(cell, keep=set()) for cell in cells)  # a name stays in its cell


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {cut(printable(message), 4000)}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
