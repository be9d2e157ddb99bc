"""``python -m rssearch.bundle DIR PATH...``: predict with onnxruntime, NumPy and Pillow; torch is not needed.

Scenes that say where they are need rasterio, and their masks say it as well.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssearch.bundle import inputs, table
from rssearch.errors import InputError, cut, shown
from rssearch.escaping import printable
from rssearch.storage.location import check_folder

if TYPE_CHECKING:
    from rssearch.bundle.predict import Network

Write = Callable[[Mapping[str, Any]], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict images, and name those that cannot be predicted.

    Returns:
        0; 1 where some images failed, each with a message; 2 where all did, or for input that cannot be used.
    """
    asked = _parser().parse_args(arguments)
    try:
        from rssearch.bundle import predict

        network = predict.open_network(
            asked.bundle, int8=asked.int8, fp16=asked.fp16, bf16=asked.bf16, threads=asked.threads
        )
        _check_options(asked, network)
        images, notes = inputs.find(asked.images)
        files = network.segments or asked.grid
        if files:
            check_folder(asked.out)
        targets = _targets(images, asked.out) if files else dict.fromkeys(images, Path())
        for note in notes:
            _note(note)
        with _output(asked, network) as write:
            failed = _predict(network, targets, asked, write)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: prediction needs onnxruntime, numpy and pillow")
    except InputError as error:
        return _fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(f"{cut(str(error.filename), 300)}: {error.strerror}")
    if failed and len(targets) > 1:
        sys.stderr.write(f"{failed} of {len(targets)} images could not be predicted\n")
    return 0 if not failed else 2 if failed == len(targets) else 1


def _predict(network: Network, targets: Mapping[str, Path], asked: argparse.Namespace, write: Write) -> int:
    """Predict each image; how many could not be."""
    work, failed = _classified if not network.segments else _segmented, 0
    if asked.grid:
        work = _classified_tiles
    for image, target in targets.items():
        try:
            found = work(network, image, target, asked)
        except InputError as error:
            _fail(str(error))
            failed += 1
        else:
            write(found)
    return failed


def _check_options(asked: argparse.Namespace, network: Network) -> None:
    """Refuse options that are not for this network."""
    if asked.grid and network.segments:
        raise InputError("--grid: this network gives each pixel a class; --grid is for networks that classify images")
    if asked.tile and not asked.grid:
        raise InputError("--tile: needs --grid")
    if asked.probabilities and not (network.segments or asked.grid):
        raise InputError("--probabilities: of an image they are shown by --top, --json and --csv; maps need --grid")
    if asked.grid and network.threshold is not None:
        raise InputError("--grid: the images of this network have several classes; a pixel of a grid has one")
    if asked.csv and asked.grid:
        raise InputError("--csv: a row is for an image; --grid writes files for each scene")


@contextmanager
def _output(asked: argparse.Namespace, network: Network) -> Iterator[Write]:
    """Where predictions go: a table, or lines on the standard output."""
    if asked.csv is not None:
        with table.opened(asked.csv, network.classes, masks=network.segments, threshold=network.threshold) as write:
            yield write
        return

    def line(found: Mapping[str, Any]) -> None:
        sys.stdout.write((json.dumps(found) if asked.json else _line(found)) + "\n")
        sys.stdout.flush()

    yield line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rssearch.bundle",
        description="Predict images with a deploy bundle. One line for each image, columns separated by tabs: image, "
        "class, probability; for segmentation: image, mask, and each class with its share of the pixels.",
        epilog="An image that cannot be read is named, and the others are predicted. Status 0: all were predicted; "
        "1: some could not be; 2: none could be, or the input cannot be used.",
    )
    parser.add_argument("bundle", metavar="DIR", type=Path, help="the bundle, as `rssearch export` writes it")
    parser.add_argument(
        "images",
        metavar="PATH",
        nargs="+",
        help="image files, folders of them (with the folders in these), and patterns such as 'tiles/**/*.tif'",
    )
    parser.add_argument(
        "--top",
        metavar="K",
        type=_positive,
        help="the K likeliest classes; default 1, or, where images have several, those of at least the threshold",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="each line is a JSON object")
    form.add_argument("--csv", metavar="FILE", type=Path, help="instead of lines a new CSV file, with every class")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path(),
        help="where masks go, as NAME.mask.png, or NAME.mask.tif of a GeoTIFF, those of a folder in the same folders "
        "below; default: here",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="write NAME.probabilities.tif as well, a band for each class; masks are GeoTIFFs then",
    )
    parser.add_argument(
        "--grid",
        action="store_true",
        help="classify each image tile by tile: NAME.grid.tif has a pixel for each tile, NAME.grid.geojson their "
        "footprints in WGS 84",
    )
    parser.add_argument(
        "--tile",
        metavar="PIXELS",
        type=_positive,
        help="the side of such a tile, which is scaled to the network's input; default: as large as that",
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--int8", action="store_true", help="use the quantised model")
    precision.add_argument("--fp16", action="store_true", help="use the model that computes in float16")
    precision.add_argument("--bf16", action="store_true", help="use the model whose products are of bfloat16")
    parser.add_argument("--threads", metavar="N", type=_positive, default=0, help="default: as many as there are cores")
    return parser


def _positive(text: str) -> int:
    if not re.fullmatch(r"0*[1-9][0-9]{0,3}", text):
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of at least 1 and at most 9999")
    return int(text[-4:])


def _classified(network: Network, image: str, _target: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from rssearch.bundle.predict import probabilities

    found = probabilities(network, image)
    shown_ = asked.top or (1 if network.threshold is None else int((found >= network.threshold).sum()))
    likeliest = (-found).argsort(kind="stable")[: None if asked.csv else shown_]
    return {"image": image, "classes": {network.classes[i]: float(found[i]) for i in likeliest.tolist()}}


def _classified_tiles(network: Network, image: str, target: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from rssearch.bundle import grid

    stem = target.with_name(target.name.removesuffix(inputs.MASK))
    target.parent.mkdir(parents=True, exist_ok=True)
    found = grid.classify(network, image, stem, tile=asked.tile, probabilities=asked.probabilities)
    files = {"grid": str(grid.named(stem, grid.RASTER))}
    if found.footprints:
        files["footprints"] = str(grid.named(stem, grid.FOOTPRINTS))
    else:
        _note(f"{image}: has no CRS, so that its tiles have no longitude and latitude: no GeoJSON is written")
    return {"image": image, **files, "tiles": found.tiles, "classes": found.classes, "nodata": found.nodata}


def _segmented(network: Network, image: str, target: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from rssearch.bundle import scenes
    from rssearch.imaging.georaster import is_installed

    located = scenes.is_located(image)
    if asked.probabilities or not network.bands.pictures or (located and is_installed()):
        return _mapped(network, image, target, asked)
    if located:
        _note(f"{image}: its mask does not say where it is, which needs rasterio: pip install 'rssearch[geo]'")
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


def _mapped(network: Network, image: str, target: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """A scene whose mask is a GeoTIFF."""
    from rssearch.bundle import scenes

    stem = target.name.removesuffix(inputs.MASK)
    mask, chances = (target.with_name(stem + ending) for ending in (scenes.MASK, scenes.PROBABILITIES))
    target.parent.mkdir(parents=True, exist_ok=True)
    found = scenes.segment(network, image, mask, chances if asked.probabilities else None)
    files = {"mask": str(mask)} | ({"probabilities": str(chances)} if asked.probabilities else {})
    return {"image": image, **files, "classes": found.classes, "nodata": found.nodata}


def _targets(images: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Where the mask of each image goes."""
    targets = {image: folder / name.with_name(f"{name.stem}{inputs.MASK}") for image, name in images.items()}
    owner: dict[Path, str] = {}
    for image, target in targets.items():
        if target in owner:
            raise InputError(f"{image} and {owner[target]} would both have the mask {target}: predict them one by one")
        owner[target] = image
    return targets


def _line(found: Mapping[str, Any]) -> str:
    show: Callable[[float], str] = "{:.4f}".format
    pairs = [text for name, value in found["classes"].items() for text in (name, show(value))]
    if found.get("nodata"):
        pairs += ["without data", show(found["nodata"])]
    files = [found[name] for name in ("mask", "probabilities", "grid", "footprints") if name in found]
    cells = [found["image"], *files, *pairs]
    return "\t".join(printable(cell, keep=set()) for cell in cells)  # a name stays in its cell


def _note(text: str) -> None:
    sys.stderr.write(f"note: {cut(printable(text), 4000)}\n")


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {cut(printable(message), 4000)}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
