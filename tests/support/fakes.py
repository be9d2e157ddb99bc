"""Small datasets of the layouts that the real ones come in."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from rssearch.data import eurosat, inria, isprs, resisc45, ucmerced
from tests.support import rasters


def picture(seed: int, size: tuple[int, int] = (16, 16)) -> Image.Image:
    """A smooth random image of (width, height), so that JPEG changes it little."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tree(
    folder: Path,
    classes: list[str],
    count: int = 10,
    *,
    suffix: str = ".png",
    size: tuple[int, int] = (16, 16),
    seed: int = 0,
):
    """`count` images of each class, named class_1 and so on; every image differs."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(100_000 * seed + 1000 * label + number, size).save(folder / name / f"{name}_{number + 1}{suffix}")
    return folder


def zipped(folder: Path, archive: Path, prefix: str = "") -> Path:
    """A zip of a tree, its files in another order than on the disk."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_file():
                out.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


def _cifar_batch(path: Path, key: str, count: int, classes: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": data, key: [i % classes for i in range(count)]}, protocol=2))


def cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    for number in range(1, 6):
        _cifar_batch(folder / f"data_batch_{number}", "labels", 40, 10, number)
    _cifar_batch(folder / "test_batch", "labels", 20, 10, 6)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}, protocol=2))


def cifar100(root: Path) -> None:
    folder = root / "cifar-100-python"
    _cifar_batch(folder / "train", "fine_labels", 300, 100, 1)
    _cifar_batch(folder / "test", "fine_labels", 100, 100, 2)
    meta = {"fine_label_names": [f"class{i:02d}" for i in range(100)]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))


def imagenet(root: Path) -> None:
    for seed, (split, count) in enumerate((("train", 10), ("val", 3))):
        folder = root / "imagenet" / split
        tree(folder, ["n01440764", "n01443537", "n01484850"], count, suffix=".JPEG", size=(40, 32), seed=seed)


def scene(
    folder: Path, image: str, mask: str, seed: int, *, values: list[int], size: tuple[int, int] = (40, 30), **options
) -> None:
    """An image, and a mask in blocks of the values, each of which it has."""
    for path in (folder / image, folder / mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).save(folder / image, **options)
    width, height = size
    rows, columns = np.mgrid[:height, :width] // 5
    blocks = np.array(values, np.uint8)[(rows + columns + seed) % len(values)]
    Image.fromarray(blocks).save(folder / mask, **options)


def dubai(root: Path, tiles=(1, 2, 4, 5), parts: int = 2) -> Path:
    folder = root / "dubai_landcover"
    for tile in tiles:
        for part in range(1, parts + 1):
            name, size = f"tile{tile}_part{part:03d}", (40 + tile, 30 + part)
            scene(folder, f"images/{name}.png", f"masks/{name}.png", 10 * tile + part, values=[*range(6)], size=size)
    return folder


def aerial(root: Path, cities=("austin",), scenes: int = 5) -> Path:
    folder = root / "AerialImageDataset"
    for city in cities:
        for number in range(1, scenes + 1):
            image, mask = (f"train/{kind}/{city}{number}.tif" for kind in ("images", "gt"))
            seed = 100 * inria.CITIES.index(city) + number
            scene(folder, image, mask, seed, values=[0, 255], size=(48, 48), compression="tiff_lzw")
    return folder


def own_scenes(root: Path, count: int = 5) -> Path:
    folder = root / "scenes"
    for number in range(count):
        scene(folder, f"images/{number}.png", f"masks/{number}.png", number, values=[0, 1, 2, 255], size=(40, 28))
    (folder / "classes.json").write_text(json.dumps(["land", "water", "road"]))
    return folder


def multilabel(root: Path, count: int = 60) -> Path:
    """Images with one to three labels each; one of six is rare."""
    folder, rows = root / "several", ["path,label"]
    folder.mkdir(parents=True)
    for number in range(count):
        picture(number).save(folder / f"im_{number:02d}.png")
        labels = ("forest;water", "forest", "water", "forest;road", "rare;water", "forest;road;water")[number % 6]
        rows.append(f"im_{number:02d}.png,{labels}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def spatial(root: Path) -> Path:
    """EuroSAT with lists as torchgeo publishes them beside it: of ten images of a class six, two and two."""
    classes = list(eurosat.FAMILY.expected)
    root.mkdir(exist_ok=True)
    for (name, _), numbers in zip(eurosat.LISTS.values(), (range(5, 11), (1, 3), (2, 4)), strict=True):
        (root / name).write_text("".join(f"{label}_{number}.tif\n" for label in classes for number in numbers))
    return tree(root / "eurosat" / "2750", classes, suffix=".jpg")


def multispectral(root: Path, *, lists: bool = False) -> None:
    """EuroSAT with 13 bands, ten images a class; its lists of the spatial division too."""
    classes = list(eurosat.FAMILY.expected)
    for label, name in enumerate(classes):
        for number in range(1, 11):
            pixels = rasters.values("uint16", (13, 16, 16), seed=100 * label + number) % 5000
            rasters.write(root / "EuroSATallBands" / "tif" / name / f"{name}_{number}.tif", pixels)
    if lists:
        for (file, _), numbers in zip(eurosat.LISTS.values(), (range(5, 11), (1, 3), (2, 4)), strict=True):
            (root / file).write_text("".join(f"{label}_{number}.tif\n" for label in classes for number in numbers))


def landcover_ai(root: Path, *, tiles: bool = False) -> Path:
    folder = root / "landcover_ai"
    names = [f"M-33-{number}-A" for number in range(5)]
    for number, name in enumerate(names):
        scene(folder, f"images/{name}.tif", f"masks/{name}.tif", number, values=[*range(5)], size=(48, 40))
        for part in range(2 if tiles else 0):
            image, mask = f"output/{name}_{part}.jpg", f"output/{name}_{part}_m.png"
            scene(folder, mask.replace("_m", ""), mask, 10 * number + part, values=[*range(5)], size=(32, 32))
            (folder / mask.replace("_m", "")).unlink()
            picture(10 * number + part, (32, 32)).save(folder / image)
    lists = {"train": [f"{name}_0" for name in names], "val": [f"{name}_1" for name in names[:3]]}
    for split, listed in (lists | {"test": [f"{name}_1" for name in names[3:]]}).items():
        (folder / f"{split}.txt").write_text("\n".join(listed))
    (folder / "split.py").write_text("")
    return folder


def loveda(root: Path, kinds=("Urban", "Rural")) -> Path:
    folder = root / "LoveDA"
    number = 0
    for split, count in {"Train": 5, "Val": 2}.items():
        for kind in kinds:
            for _ in range(count):
                image, mask = (f"{split}/{kind}/{what}_png/{number}.png" for what in ("images", "masks"))
                scene(folder, image, mask, number, values=[*range(8)], size=(48, 48))
                number += 1
    return folder


def _coloured(folder: Path, image: str, mask: str, seed: int) -> None:
    scene(folder, image, mask, seed, values=[*range(6)], size=(40, 40))
    packed = np.array(isprs.COLOURS)[np.asarray(Image.open(folder / mask))]
    pixels = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / mask)


def potsdam(root: Path, bands: str = "RGB") -> Path:
    folder = root / "Potsdam"
    place = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG"}[bands]
    for seed, number in enumerate([*isprs.POTSDAM["train"][:4], *isprs.POTSDAM["test"][:2]]):
        stem = f"top_potsdam_{number}"
        _coloured(folder, f"{place}/{stem}_{bands}.tif", f"5_Labels_all/{stem}_label.tif", seed)
    return folder


def vaihingen(root: Path) -> Path:
    folder = root / "vaihingen"
    for seed, number in enumerate([*isprs.VAIHINGEN["train"][:4], *isprs.VAIHINGEN["test"][:2]]):
        name = f"top_mosaic_09cm_area{number}.tif"
        _coloured(folder, f"top/{name}", f"ground_truth/{name}", seed)
    return folder


# Each makes the named dataset below a data root; None: it needs no files.
FAKES = {
    "cifar10": cifar10,
    "cifar100": cifar100,
    "eurosat": lambda root: tree(root / "eurosat" / "2750", list(eurosat.FAMILY.expected), suffix=".jpg"),
    "eurosat_spatial": spatial,
    "eurosat_ms": multispectral,
    "eurosat_ms_spatial": lambda root: multispectral(root, lists=True),
    "imagenet": imagenet,
    "landcover_ai": landcover_ai,
    "landcover_ai:tiles": lambda root: landcover_ai(root, tiles=True),
    "loveda": loveda,
    "loveda:rural": lambda root: loveda(root, ["Rural"]),
    "loveda:urban": lambda root: loveda(root, ["Urban"]),
    "potsdam": potsdam,
    "potsdam:irrg": lambda root: potsdam(root, "IRRG"),
    "vaihingen": vaihingen,
    "resisc45": lambda root: tree(root / "NWPU-RESISC45", list(resisc45.CLASSES), suffix=".jpg"),
    "synthetic_scenes": None,
    "synthetic_bands": None,
    "synthetic_buildings": None,
    "dubai": dubai,
    "inria": aerial,
    **{f"inria:{city}": lambda root, city=city: aerial(root, [city]) for city in inria.CITIES[1:]},
    "inria:all": lambda root: aerial(root, inria.CITIES, 2),
    "ucmerced": lambda root: tree(root / "UCMerced_LandUse" / "Images", list(ucmerced.CLASSES), suffix=".tif"),
    "raster_folder:fields": lambda root: rasters.tree(root / "fields", count=20),
    "folder:mine": lambda root: tree(root / "mine", ["cloud", "clear"], suffix=".bmp"),
    "segmentation_folder:scenes": own_scenes,
}
