"""rssearch.bundle.scenes: masks of GeoTIFFs say where they are, and are what the whole scene gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from rssearch.bundle import predict, scenes
from rssearch.bundle.__main__ import main
from rssearch.errors import InputError
from tests.support.geo import CLASSES, about, bundle, geotiff, network, reflectance


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For four bands of 16 bits."""
    return bundle(tmp_path_factory.mktemp("bundle") / "net", about())


@pytest.fixture(scope="module")
def rgb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For images of 8 bits."""
    return bundle(tmp_path_factory.mktemp("bundle") / "rgb", about(3))


def test_a_mask_is_what_the_whole_scene_gives(tmp_path: Path, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = reflectance(45, 1100)
    path = geotiff(tmp_path / "a.tif", pixels, names=["B00", "B01", "B02", "B03"])
    monkeypatch.setattr(scenes, "MEMORY", 1)  # so that columns are as narrow as can be
    opened = predict.open_network(net)
    found = scenes.segment(opened, path, tmp_path / "mask.tif", tmp_path / "chances.tif")
    logits = np.concatenate(list(predict.strips(opened, pixels)), 1)
    with rasterio.open(tmp_path / "mask.tif") as mask, rasterio.open(path) as scene:
        np.testing.assert_array_equal(mask.read(1), logits.argmax(0))
        assert (mask.transform, mask.crs, mask.shape) == (scene.transform, scene.crs, scene.shape)
        assert (mask.dtypes, mask.nodata, mask.descriptions) == (("uint8",), 255, ("class",))
        tags = mask.tags()
        assert json.loads(tags["CLASSES"]) == [tags[f"CLASS_{i}"] for i in range(3)] == CLASSES
        assert tags["NODATA"] == "255: pixels without data in the scene"
        assert [mask.colormap(1)[i] for i in (0, 1, 2, 255)] == [
            *((*colour, 255) for colour in opened.about["colours"]), (0, 0, 0, 0),
        ]  # fmt: skip
    with rasterio.open(tmp_path / "chances.tif") as chances:
        assert (chances.dtypes, chances.descriptions) == (("float32",) * 3, tuple(CLASSES))
        assert chances.transform == rasterio.open(path).transform
        np.testing.assert_array_equal(chances.read(), predict.softmax(logits[None])[0])
    assert found.nodata == 0
    assert found.classes == {name: (logits.argmax(0) == i).mean() for i, name in enumerate(CLASSES)}
    np.testing.assert_array_equal(predict.labels(opened, path), logits.argmax(0))


def test_pixels_without_data_have_no_class(tmp_path: Path, net: Path) -> None:
    pixels = reflectance(40, 50)
    pixels[:, 10:20, 5:40] = pixels[1, 0, 0] = 0
    opened = predict.open_network(net)
    found = scenes.segment(
        opened, geotiff(tmp_path / "a.tif", pixels, nodata=0), tmp_path / "m.tif", tmp_path / "p.tif"
    )
    expected = np.concatenate(list(predict.strips(opened, pixels)), 1).argmax(0)  # low, which stands for them, is 0
    expected[10:20, 5:40] = 255
    with rasterio.open(tmp_path / "m.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), expected)
    with rasterio.open(tmp_path / "p.tif") as chances:
        assert np.isnan(chances.nodata)
        np.testing.assert_array_equal(np.isnan(chances.read()), np.stack([expected == 255] * 3))
    assert found.nodata == 350 / 2000
    assert found.classes == {name: (expected == i).sum() / 1650 for i, name in enumerate(CLASSES)}


def test_the_fill_stands_for_pixels_without_data(tmp_path: Path) -> None:
    pixels, filled = reflectance(20, 20), reflectance(20, 20).astype(np.float32)
    pixels[2, 3:6, 3:6] = 65535
    filled[2, 3:6, 3:6] = 1234.5
    opened = network(about() | {"fill": [1.0, 2.0, 1234.5, 4.0]})
    scenes.segment(opened, geotiff(tmp_path / "a.tif", pixels, nodata=65535), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), np.concatenate(list(predict.strips(opened, filled)), 1).argmax(0))


def test_with_256_classes_the_mask_has_16_bits(tmp_path: Path) -> None:
    opened = network(about(classes=[f"c{i}" for i in range(256)]))
    pixels = reflectance(16, 16)
    pixels[:, 0] = 0
    scenes.segment(opened, geotiff(tmp_path / "a.tif", pixels, nodata=0), tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert (mask.dtypes, mask.nodata) == (("uint16",), 65535)
        assert (mask.read(1)[0] == 65535).all()
        assert mask.read(1)[1:].max() < 256


def test_values_are_scaled_as_the_bundle_says() -> None:
    described = about(2) | {"scale": {"low": [100, 0], "high": [300, 50]}, "mean": [0.5, 0.25], "std": [0.5, 2.0]}
    pixels = np.array([[[100, 300]], [[50, 200]]], np.uint16)
    expected = [[[(0 - 0.5) / 0.5, (1 - 0.5) / 0.5]], [[(1 - 0.25) / 2, (4 - 0.25) / 2]]]
    np.testing.assert_allclose(predict.normalised(pixels, described), expected, rtol=1e-6)


def test_the_command_writes_masks_beside_one_another(
    tmp_path: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scenes" / "north").mkdir(parents=True)
    pixels = reflectance(30, 20)
    geotiff(tmp_path / "scenes" / "a.tif", pixels)
    pixels[:, :3] = 0
    geotiff(tmp_path / "scenes" / "north" / "b.tif", pixels, nodata=0)
    out = tmp_path / "out"
    arguments = [str(net), str(tmp_path / "scenes"), "--out", str(out)]
    assert main([*arguments, "--probabilities"]) == 0
    first, second = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert first[1:3] == [str(out / "a.mask.tif"), str(out / "a.probabilities.tif")]
    assert first[3::2] == CLASSES
    assert second[3::2] == [*CLASSES, "without data"]
    assert second[-1] == "0.1000"
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.tif")) == [
        "a.mask.tif", "a.probabilities.tif", "north/b.mask.tif", "north/b.probabilities.tif",
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(line) for line in found] == [["image", "mask", "classes", "nodata"]] * 2
    assert [line["nodata"] for line in found] == [0, 0.1]
    assert main([str(net), str(tmp_path / "scenes"), "--out", str(tmp_path / "scenes")]) == 0
    capsys.readouterr()
    assert main([*arguments, "--csv", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().err == f"note: {tmp_path}/scenes: left out, as predictions wrote them: 2\n"


def test_images_that_are_nowhere_go_on_as_before(
    tmp_path: Path, rgb: Path, net: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save("plain.tif")
    geotiff(Path("here.tif"), pixels)
    assert main([str(rgb), "plain.tif", "here.tif"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == ["plain.mask.png", "here.mask.tif"]
    with Image.open("plain.mask.png") as mask, rasterio.open("here.mask.tif") as located:
        np.testing.assert_array_equal(np.asarray(mask), located.read(1))
    assert main([str(rgb), "plain.tif", "--probabilities"]) == 0
    assert capsys.readouterr().out.split("\t")[1:3] == ["plain.mask.tif", "plain.probabilities.tif"]
    monkeypatch.setitem(sys.modules, "rasterio", None)
    Path("here.mask.tif").unlink()
    assert main([str(rgb), "plain.tif", "here.tif"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[1] for line in out.splitlines()] == ["plain.mask.png", "here.mask.png"]
    assert err.startswith("note: here.tif: its mask does not say where it is, which needs rasterio: pip install")
    assert len(err.splitlines()) == 1
    assert not Path("here.mask.tif").exists()
    for arguments in ([str(rgb), "here.tif", "--probabilities"], [str(net), "here.tif"]):
        assert main(arguments) == 2
        assert "needs rasterio: pip install 'rssearch[geo]'" in capsys.readouterr().err


def test_scenes_with_other_bands_are_refused(
    tmp_path: Path, net: Path, rgb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        (net, geotiff(tmp_path / "three.tif", reflectance(9, 9, 3)), "it has 3 bands of 16 bits"),
        (
            net,
            geotiff(tmp_path / "names.tif", reflectance(9, 9), names=["a", "b", "c", "d"]),
            "it has 4 bands of 16 bits (grey and 3 more) called 'a', 'b'",
        ),
        (net, geotiff(tmp_path / "bytes.tif", reflectance(9, 9).astype(np.uint8)), "its values are uint8, but the"),
        (rgb, geotiff(tmp_path / "deep.tif", reflectance(9, 9, 3)), "its values are uint16, but the network takes 3"),
    ]
    for folder, path, message in cases:
        assert main([str(folder), str(path), "--out", str(tmp_path / "out")]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert f"{path}: cannot be read: {message}" in err
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert main([str(net), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    assert "it is a PNG, but such bands are read from TIFF alone" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "out").iterdir()] == []


def test_a_scene_that_is_damaged_below_leaves_no_mask(tmp_path: Path, net: Path) -> None:
    path = geotiff(tmp_path / "a.tif", reflectance(600, 64), compress="deflate")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 900] + bytes(900))
    with pytest.raises(InputError, match=r"a\.tif: cannot be read: it is damaged: "):
        scenes.segment(predict.open_network(net), path, tmp_path / "m.tif", tmp_path / "p.tif")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    "values",
    [
        {"dtype": "uint64"}, {"dtype": None}, {"dtype": []},
        {"bands": ["a"]}, {"bands": ["a", "a", "b", "c"]}, {"bands": "abcd"},
        {"scale": {"low": [0] * 4, "high": [0] * 4}}, {"scale": {"low": [0] * 3, "high": [1] * 4}},
        {"scale": {"low": [0] * 4, "high": [1e-46] * 4}}, {"scale": {"low": [0] * 4, "high": [True] * 4}},
        {"scale": {"low": [0] * 4}}, {"scale": [1]}, {"fill": [0]}, {"fill": ["a"] * 4}, {"fill": {}},
        {"mean": [0.5] * 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_preprocessing_that_is_none_is_refused(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"model.onnx or preprocessing.json is damaged"):
        predict.open_network(bundle(tmp_path / "net", about() | values))


def test_the_card_of_a_network_for_rasters_says_what_it_takes(tmp_path: Path, net: Path) -> None:
    import torch

    from rssearch.bundle import usage

    for segments in (False, True):
        described = about(segments=segments)
        text = usage.texts(described)
        assert "4 bands of uint16 (B00, B01, B02, B03)" in text["purpose"]
        assert "RGB" not in "".join(text.values())
        space: dict[str, object] = {"torch": torch, "about": described, "folder": net, "model": torch.nn.Identity()}
        compile(text["imports"] + "\n" + text["use"] + "\n" + text["predict"], "card", "exec")
        exec(text["imports"], space)  # the names that it imports are there
        assert "predict" in space
