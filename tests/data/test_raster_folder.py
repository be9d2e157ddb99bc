import json

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config.settings import Patches, Scale
from rssearch.data import IGNORE
from rssearch.data.describe import describe
from rssearch.data.eurosat_ms import BANDS
from rssearch.data.loader import batches
from rssearch.data.reading import Options
from rssearch.errors import InputError
from rssearch.testing import check_dataset
from tests.support.rasters import tree, values, write

NAMES = ("B02", "B03", "B04", "B08")


def scenes(root, count=6, nodata=None, hole=False):
    """Scenes of 40 x 36 pixels and four bands, whose second class is bright in the last."""
    for number in range(count):
        mask = (values("uint8", (40, 36, 1), seed=number)[..., 0] > 127).astype(np.uint8)
        pixels = values("uint16", (4, 40, 36), seed=number) % 3000 + 1
        pixels[3] += np.uint16(2000) * mask
        if hole:
            pixels[:, :5] = 0
            pixels[1, 7] = 0  # of one band alone
        write(root / "images" / f"{number}.tif", pixels, NAMES, nodata=nodata)
        write(root / "masks" / f"{number}.tif", mask[None])
    (root / "classes.json").write_text(json.dumps(["bare", "green"]))


def test_the_contract_of_images(tmp_path):
    tree(tmp_path / "fields", NAMES, 20)
    check_dataset("raster_folder:fields", tmp_path)


def test_the_contract_of_scenes(tmp_path):
    scenes(tmp_path / "fields")
    check_dataset("raster_folder:fields", tmp_path)


def test_bands_in_memory_and_streamed(tmp_path):
    tree(tmp_path / "fields", NAMES)
    whole = data.load("raster_folder:fields", tmp_path)
    assert whole.images.dtype == np.uint16
    assert (whole.input_shape, whole.bands) == ((4, 16, 16), NAMES)
    some = data.load("raster_folder:fields", tmp_path, bands=Options(bands=("B08", 1)))
    assert some.bands == ("B08", "B02")
    assert np.array_equal(some.images, whole.images[:, [3, 0]])
    streamed = data.load("raster_folder:fields", tmp_path, bands=Options(bands=("B08", 1)), memory_share=0)
    assert streamed.streaming
    assert np.array_equal(streamed.take(np.arange(24)), some.images)
    assert streamed.take([0]).dtype == torch.uint16
    assert (streamed.scaling, streamed.mean.tolist()) == (some.scaling, some.mean.tolist())


def test_what_values_mean(tmp_path):
    tree(tmp_path / "fields", NAMES)
    found = data.load("raster_folder:fields", tmp_path)
    train = found.images[found.indices["train"]]
    low, high = np.percentile(train[:, 2], (2, 98))
    assert found.scaling.low[2] == np.float32(low)
    assert found.scaling.high[2] == np.float32(high)
    divided = data.load("raster_folder:fields", tmp_path, scale=Scale(divide=10_000))
    assert (divided.scaling.low, divided.scaling.high) == ((0,) * 4, (10_000,) * 4)
    np.testing.assert_allclose(divided.mean, train.mean((0, 2, 3)) / 10_000, rtol=1e-6)
    # The network sees the same, whatever the scale: mean 0 and deviation 1.
    pairs = [next(batches(one.split("train"), 8, device="cpu", train=False))[0] for one in (found, divided)]
    torch.testing.assert_close(*pairs, atol=1e-4, rtol=1e-4)


def test_a_plan_says_what_is_done(tmp_path):
    tree(tmp_path / "fields", NAMES, nodata=7)
    said = describe("raster_folder:fields", tmp_path, bands=Options(bands=("B08",))).pixels()
    assert said == (
        "1 band of uint16 (B08), from percentile 2 to 98 of each band in the training split, 7 is no data and becomes "
        "the mean of its band"
    )
    said = describe("raster_folder:fields", tmp_path, scale=Scale(divide=10_000), bands=Options(nodata="none")).pixels()
    assert said == "4 bands of uint16 (B02, B03, B04, B08), divided by 10000"


def test_pixels_without_data_are_the_mean(tmp_path):
    tree(tmp_path / "fields", NAMES, 12)
    write(tmp_path / "fields" / "bare" / "0.tif", np.full((4, 16, 16), 60_000, np.uint16), NAMES)
    plain = data.load("raster_folder:fields", tmp_path)
    found = data.load("raster_folder:fields", tmp_path, bands=Options(nodata=60_000))
    assert max(found.scaling.high) < 6000
    if max(plain.scaling.high) < 6000:  # the image is not in the training split
        assert plain.scaling.high == found.scaling.high
    image = np.flatnonzero((found.images == 60_000).all((1, 2, 3)))
    for name, indices in found.indices.items():
        if image[0] in indices:
            x, _ = found.split(name)[int(np.flatnonzero(indices == image[0])[0])]
            torch.testing.assert_close(x, torch.zeros_like(x), atol=1e-5, rtol=0)


def test_pixels_of_a_scene_without_data_are_of_no_class(tmp_path):
    scenes(tmp_path / "fields", nodata=0, hole=True)
    found = data.load("raster_folder:fields", tmp_path, patches=Patches(size=16))
    assert found.task == "segmentation"
    for scene in range(6):
        mask = found.scenes.mask(scene)
        assert (mask[:5] == IGNORE).all()
        assert (mask[5:] != IGNORE).all()
    whole = next(iter(found.split("train").scenes())).image
    torch.testing.assert_close(whole[:, :5], torch.zeros(4, 5, 36), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[1, 7], torch.zeros(36), atol=1e-5, rtol=0)
    assert whole[0, 7].abs().max() > 0.1


def test_scenes_from_the_cache_are_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scenes(tmp_path / "fields")
    options = {"patches": Patches(size=16), "bands": Options(bands=(4, 1))}
    memory = data.load("raster_folder:fields", tmp_path, **options)
    cached = data.load("raster_folder:fields", tmp_path, memory_share=0, **options)
    assert cached.streaming
    assert cached.input_shape == (2, 16, 16)
    indices = np.arange(len(memory.windows))
    assert torch.equal(cached.take(indices).to(torch.int32), memory.take(indices).to(torch.int32))
    assert np.array_equal(cached.mean, memory.mean)
    # Other bands of the same files have a place of their own.
    other = data.load("raster_folder:fields", tmp_path, memory_share=0, patches=Patches(size=16))
    assert other.input_shape == (4, 16, 16)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"pixels": values("uint8", (4, 16, 16))}, r"bands and type: 4 bands of uint16 \(24\), 4 bands of uint8 \(1\)"),
        ({"pixels": values("uint16", (5, 16, 16))}, r"4 bands of uint16 \(24\), 5 bands of uint16 \(1\); .*odd.tif"),
        ({"pixels": values("uint16", (4, 16, 16)), "nodata": 3}, r"without data: none \(24\), 3 \(1\); give settings"),
        ({"pixels": values("uint16", (4, 8, 16)), "names": NAMES}, r"size: 16x16 \(24\), 16x8 \(1\); set input_size"),
        ({"pixels": values("uint16", (4, 16, 16)), "names": NAMES[::-1]}, r"the names of their bands: .*band_names"),
    ],
)
def test_files_that_differ(tmp_path, odd, reason):
    tree(tmp_path / "fields", NAMES)
    names = NAMES if len(odd["pixels"]) == 4 else ()
    write(tmp_path / "fields" / "bare" / "odd.tif", **({"names": names} | odd))
    with pytest.raises(InputError, match=reason):
        data.load("raster_folder:fields", tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    tree(tmp_path / "fields", NAMES)
    path = tmp_path / "fields" / "green" / "3.tif"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"1 of 24 images cannot be read:\n.*green/3\.tif: it is damaged"):
        data.load("raster_folder:fields", tmp_path)
    assert len(data.load("raster_folder:fields", tmp_path, on_error="skip").labels) == 23


def test_images_of_8_bits_have_no_choice(tmp_path):
    for name in "ab":
        write(tmp_path / name / "0.tif", values("uint8", (3, 8, 8)))
    with pytest.raises(InputError, match="bands: these images are read as 8-bit RGB; raster_folder:PATH reads any"):
        data.load("folder:.", tmp_path, bands=Options(bands=(1,)))


def test_eurosat_ms(tmp_path):
    for label, name in enumerate(("AnnualCrop", "Forest", "River")):
        for number in range(1, 6):
            pixels = values("uint16", (13, 64, 64), seed=10 * label + number) % 5000
            write(tmp_path / "EuroSATallBands" / "tif" / name / f"{name}_{number}.tif", pixels)
    found = data.load("eurosat_ms", tmp_path, bands=Options(bands=("B8A", "B04")))
    assert found.bands == ("B8A", "B04")
    assert (found.input_shape, found.dtype) == ((2, 64, 64), np.uint16)
    assert found.scaling.high == (10_000, 10_000)
    whole = data.load("eurosat_ms", tmp_path)
    assert whole.bands == BANDS
    assert np.array_equal(found.images, whole.images[:, [12, 3]])
    with pytest.raises(InputError, match=r"B01, B02, .*, B8A, but no band 'NIR'"):
        data.load("eurosat_ms", tmp_path, bands=Options(bands=("NIR",)))
