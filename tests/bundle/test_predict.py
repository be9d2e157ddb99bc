"""rssearch.bundle.predict: what a bundle says without torch is what the network says in its study."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from rssearch import bundle, data, pruning
from rssearch.bundle import predict
from rssearch.bundle.__main__ import main
from rssearch.config.settings import Patches
from rssearch.cost.onnx import to_onnx
from rssearch.data import ImageSet, SceneSet
from rssearch.data.imageset import normalise
from rssearch.data.listing import Files, Listing
from rssearch.data.registry import listing
from rssearch.data.scenes import Pairs, SceneListing
from rssearch.errors import InputError
from rssearch.escaping import csv_text
from rssearch.imaging.pixels import decode
from rssearch.train.segmentation import predict_scene
from tests.support.bundles import CLASSES, image_set, pictures, pruned_network, study, trial
from tests.support.files import plain_png, tiff
from tests.support.scenes import tiny

ROOT = Path(__file__).parents[2]
TILES = {"size": 8, "overlap": 3}
COLOURS = [[0, 114, 178], [213, 94, 0], [0, 158, 115]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pictures(folder)
    return folder


@pytest.fixture(scope="module")
def pruned() -> pruning.PrunedModel:
    return pruned_network()


@pytest.fixture(scope="module")
def folder(root: Path, pruned: pruning.PrunedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a classifier."""
    place = tmp_path_factory.mktemp("bundle")
    about, row = trial(pruned, image_set(root))
    return bundle.export(study(place, pruned, about, root), row, place / "net")


@pytest.fixture(scope="module")
def segmenter() -> predict.Network:
    """A network for tiles of 8 pixels."""
    session = onnxruntime.InferenceSession(to_onnx(tiny().eval(), (3, 8, 8)), providers=["CPUExecutionProvider"])
    about = {"task": "segmentation", "classes": ["dark", "grey", "bright"], "input_shape": [3, 8, 8], "tiles": TILES}
    about |= {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1], "onnx": {"input": "image", "output": "logits"}}
    return predict.Network(session, about | {"colours": COLOURS})


def files_of(name: str, root: Path) -> list[Path]:
    found = listing(name, root)
    assert isinstance(found, Listing)
    files = found.pixels
    assert isinstance(files, Files)
    return [Path(files.location(index)) for index in range(len(files))]


def test_an_image_is_prepared_as_in_training(root: Path, folder: Path) -> None:
    images, network = image_set(root), predict.open_network(folder)
    paths = files_of("folder:tiles", root)
    assert len(paths) == len(images.labels)
    for index, path in enumerate(paths):
        expected = normalise(images.take([index]), images)[0]
        pixels = predict.normalised(decode(path.read_bytes(), 32), network.about)
        assert torch.equal(torch.from_numpy(pixels), expected), path


def test_the_probabilities_are_those_of_the_network(root: Path, folder: Path, pruned: pruning.PrunedModel) -> None:
    images, network = image_set(root), predict.open_network(folder)
    for index, path in list(enumerate(files_of("folder:tiles", root)))[::5]:
        with torch.inference_mode():
            expected = pruned.model(normalise(images.take([index]), images)).softmax(1)[0]
        np.testing.assert_allclose(predict.probabilities(network, path), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(8, 8), (24, 18), (25, 31), (5, 20), (3, 2), (1, 9), (70, 9)])
def test_scenes_are_blended_as_in_torch(segmenter: predict.Network, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    mean, std = (torch.tensor(segmenter.about[name])[:, None, None] for name in ("mean", "std"))
    expected = predict_scene(tiny().eval(), (torch.from_numpy(pixels) / 255 - mean) / std, **TILES)
    found = np.concatenate(list(predict.strips(segmenter, pixels)), 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_a_line_for_each_image(root: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in files_of("folder:tiles", root)[:3]]
    network = predict.open_network(folder)
    assert main([str(folder), *paths]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == paths
    for path, name, probability in lines:
        expected = predict.probabilities(network, path)
        assert name == CLASSES[expected.argmax()]
        assert probability == f"{expected.max():.4f}"
    assert main([str(folder), *paths, "--json", "--top", "2"]) == 0
    for path, line in zip(paths, capsys.readouterr().out.splitlines(), strict=True):
        expected = predict.probabilities(network, path)
        found = json.loads(line)
        assert found["image"] == path
        assert list(found["classes"]) == [CLASSES[i] for i in (-expected).argsort()[:2]]
        assert list(found["classes"].values()) == sorted(map(float, expected), reverse=True)[:2]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_as_a_table(root: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), str(root / "tiles"), "--csv", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr() == ("", "")
    rows, network = rows_of(tmp_path / "out.csv"), predict.open_network(folder)
    assert [row["file"] for row in rows] == sorted(str(path) for path in (root / "tiles").rglob("*.*"))
    assert list(rows[0]) == ["file", "class", "probability", *(f"probability:{name}" for name in CLASSES)]
    for row in rows[::7]:
        expected = predict.probabilities(network, row["file"]).tolist()
        assert [float(row[f"probability:{name}"]) for name in CLASSES] == expected  # all digits
        assert row["class"] == CLASSES[int(np.argmax(expected))]
        assert float(row["probability"]) == max(expected)
    before = (tmp_path / "out.csv").read_bytes()
    assert main([str(folder), str(root / "tiles"), "--csv", str(tmp_path / "out.csv")]) == 2
    assert "out.csv: is there already" in capsys.readouterr().err
    assert (tmp_path / "out.csv").read_bytes() == before


def test_a_bad_file_is_named_and_the_rest_is_predicted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = tmp_path / "tiles"
    (tiles / "north").mkdir(parents=True)
    for name in ("a.png", "north/=1+1.png", "north/z.png"):
        Image.new("RGB", (40, 30)).save(tiles / name)
    (tiles / "b.png").write_text("no image")
    (tiles / "gone.png").symlink_to("nowhere")
    (tiles / "notes.txt").write_text("no image")
    assert main([str(folder), str(tiles), "--csv", str(tmp_path / "out.csv")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    note, *errors, summary = err.splitlines()
    assert note == f"note: {tiles}: left out, as these endings are not read: .txt (1)"
    assert errors == [
        f"error: {tiles}/b.png: cannot be read: it is no image of a known format "
        "(JPEG, PNG, TIFF, BMP, WebP, GIF, PPM)",
        f"error: {tiles}/gone.png: cannot be read: No such file or directory",
    ]
    assert summary == "2 of 5 images could not be predicted"
    names = ["a.png", "north/=1+1.png", "north/z.png"]
    assert [row["file"] for row in rows_of(tmp_path / "out.csv")] == [f"{tiles}/{name}" for name in names]
    assert main([str(folder), str(tiles / "b.png"), str(tiles / "a.png")]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{tiles}/a.png\t")
    assert err.splitlines()[-1] == "1 of 2 images could not be predicted"


def test_a_table_holds_no_formulas(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "@b.png", 'c,"d\n.png', os.fsdecode(b"e\xff.png")]
    for name in names:
        Image.new("RGB", (40, 30)).save(name)
    assert main([str(folder), *names, "--csv", "out.csv"]) == 0
    rows = rows_of(Path("out.csv"))
    assert [row["file"] for row in rows] == ["'=1+1.png", "'@b.png", 'c,"d\n.png', "e\\udcff.png"]
    assert [csv_text(row["file"]) for row in rows[:3]] == names[:3]


def test_masks_and_shares(
    segmenter: predict.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "open_network", lambda *_args, **_more: segmenter)
    scene = np.random.default_rng(0).integers(0, 256, (21, 13, 3), dtype=np.uint8)
    Image.fromarray(scene).save(tmp_path / "town.tif")
    assert main([str(tmp_path), str(tmp_path / "town.tif"), "--out", str(tmp_path / "masks"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mask"] == str(tmp_path / "masks" / "town.mask.png")
    labels = predict.labels(segmenter, tmp_path / "town.tif")
    with Image.open(found["mask"]) as mask:
        assert np.array_equal(np.asarray(mask), labels)
        colours = np.asarray(mask.convert("RGB"))
    assert np.array_equal(colours, np.array(COLOURS, dtype=np.uint8)[labels])
    assert found["classes"] == {name: (labels == i).mean() for i, name in enumerate(("dark", "grey", "bright"))}
    monkeypatch.chdir(tmp_path)
    assert main([str(tmp_path), "town.tif"]) == 0
    line = capsys.readouterr().out.rstrip("\n").split("\t")
    assert line[:2] == ["town.tif", "town.mask.png"]
    assert line[2::2] == ["dark", "grey", "bright"]
    assert sum(map(float, line[3::2])) == pytest.approx(1, abs=2e-4)
    (tmp_path / "other").mkdir()
    (tmp_path / "scenes" / "north").mkdir(parents=True)
    shutil.copy("town.tif", "scenes/north/village.tif")
    assert main([str(tmp_path), "scenes", "town.tif", "--csv", "out.csv", "--out", "deep/masks"]) == 0
    rows = rows_of(Path("out.csv"))
    assert [(row["file"], row["mask"]) for row in rows] == [
        ("scenes/north/village.tif", "deep/masks/north/village.mask.png"),
        ("town.tif", "deep/masks/town.mask.png"),
    ]
    shares = [f"share:{name}" for name in ("dark", "grey", "bright")]
    assert list(rows[0]) == ["file", "mask", *shares]
    assert [float(rows[1][name]) for name in shares] == [(labels == i).mean() for i in range(3)]
    assert Path("deep/masks/north/village.mask.png").is_file()
    shutil.copy("town.tif", "other/town.png")
    assert main([str(tmp_path), "town.tif", "other/town.png"]) == 2
    assert "would both have the mask town.mask.png" in capsys.readouterr().err


def test_bad_input_is_told_in_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.png"
    Image.new("RGB", (40, 30)).save(good)
    (tmp_path / "text.png").write_text("no image")
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "bands.tif").write_bytes(tiff(np.zeros((9, 9, 5), np.uint8), 2, tags={338: [0, 0]}))
    (tmp_path / "huge.png").write_bytes(plain_png(13000, 13000))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[list[Any], str]] = [
        ([tmp_path / "none", good], f"{tmp_path / 'none'}: is no bundle, or not a whole one: "),
        ([folder, tmp_path / "none.png"], "none.png: cannot be read: No such file or directory"),
        ([folder, tmp_path / "empty"], "empty: has no image (read are .bmp"),
        ([folder, tmp_path / "*.gif"], "*.gif: there is no such file, and no file fits this pattern"),
        ([folder, good, "--csv", good], "good.png: is there already; remove it, or name another file"),
        ([folder, tmp_path / "text.png", "--csv", tmp_path / "new.csv"], "text.png: cannot be read"),
        ([folder, tmp_path / "text.png"], "text.png: cannot be read: it is no image of a known format"),
        ([folder, tmp_path / "bands.tif"], "bands.tif: cannot be read: it has 5 bands of 8 bits (RGB and 2 more)"),
        ([folder, tmp_path / "huge.png"], "huge.png: cannot be read: it claims 13000x13000 pixels in 49"),
        ([folder, tmp_path / "pipe.png"], "pipe.png: is no regular file"),
        (
            [folder, tmp_path / "deep.png"],
            "deep.png: cannot be read: it has one band of 16 bits (grey), but images of 8 bits are read",
        ),
        ([folder, good, "--int8"], "has no model.int8.onnx; `rssearch export --int8` writes it"),
    ]
    for arguments, message in cases:
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert message in err
    assert not (tmp_path / "new.csv").exists()
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), str(good), "--csv", "new.csv", "--json"])
    assert "argument --json: not allowed with argument --csv" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(folder), str(good), "--top", "0"])
    assert "argument --top: '0' is not a whole number of at least 1" in capsys.readouterr().err


def test_a_network_for_oblong_images_takes_them_alone(folder: Path, tmp_path: Path) -> None:
    network = predict.open_network(folder)
    oblong = predict.Network(network.session, {**network.about, "input_shape": [3, 20, 30]})
    Image.new("RGB", (40, 30)).save(tmp_path / "image.png")
    with pytest.raises(InputError, match=r"image\.png: is 40x30; this network takes images of 30x20 alone"):
        predict.probabilities(oblong, tmp_path / "image.png")


def test_the_package_predicts_where_torch_cannot_be_imported(root: Path, folder: Path, tmp_path: Path) -> None:
    image = files_of("folder:tiles", root)[0]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'safetensors', 'onnx', 'pydantic', 'yaml', 'ray', 'mlflow', 'scipy'):\n"
        "    sys.modules[name] = None\n"  # importing it is then an error
        "from rssearch.bundle.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(image)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = predict.probabilities(predict.open_network(folder), image)
    assert done.stdout.split("\t")[1:] == [CLASSES[expected.argmax()], f"{expected.max():.4f}\n"]


@pytest.mark.slow
def test_an_environment_without_torch_predicts(root: Path, folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pinned = {line.partition("==")[0]: line for line in (ROOT / "constraints.txt").read_text().splitlines()}
    needed = [pinned[name] for name in ("onnxruntime", "numpy", "pillow")]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", *needed], check=True, timeout=500)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert "No module named 'torch'" in run("-c", "import torch").stderr
    images = [str(path) for path in files_of("folder:tiles", root)]
    done = run("-m", "rssearch.bundle", str(folder), *images, "--json", "--top", "3")
    assert done.returncode == 0, done.stderr
    network = predict.open_network(folder)
    for path, line in zip(images, done.stdout.splitlines(), strict=True):
        found, expected = json.loads(line), predict.probabilities(network, path)
        assert found["image"] == path
        assert [found["classes"][name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)
    assert run("-m", "rssearch.bundle", str(tmp_path), images[0]).returncode == 2


@pytest.mark.real
@pytest.mark.parametrize(("name", "size"), [("eurosat", 32), ("eurosat", 64), ("ucmerced", 128)])
def test_real_images_are_prepared_as_in_training(name: str, size: int) -> None:
    root = Path(os.environ["RSSEARCH_DATA"])
    images, found = data.load(name, root, input_size=size), listing(name, root)
    assert isinstance(images, ImageSet)
    assert isinstance(found, Listing)
    files = found.pixels
    assert isinstance(files, Files)
    about = json.loads(json.dumps({"mean": images.mean.tolist(), "std": images.std.tolist()}))
    for index in range(0, len(files), 97):
        pixels = predict.normalised(decode(files.read(index), size), about)
        assert torch.equal(torch.from_numpy(pixels), normalise(images.take([index]), images)[0]), files.location(index)


@pytest.mark.real
def test_real_scenes_are_prepared_as_in_training() -> None:
    root = Path(os.environ["RSSEARCH_DATA"])
    scenes, found = data.load("dubai", root, patches=Patches(size=128)), listing("dubai", root)
    assert isinstance(scenes, SceneSet)
    assert isinstance(found, SceneListing)
    assert isinstance(found.source, Pairs)
    about = {"mean": scenes.mean.tolist(), "std": scenes.std.tolist()}
    for scene in list(scenes.split("test").scenes())[:4]:
        pixels = decode(found.source.images.read(found.names.index(scene.name)), None)
        assert torch.equal(torch.from_numpy(predict.normalised(pixels, about)), scene.image), scene.name
