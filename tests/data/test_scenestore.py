"""Scenes are decoded once, and only windows are read of those that do not fit into memory."""

import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from rssearch import data
from rssearch.config.settings import Patches
from rssearch.data import sceneload, scenes, scenestore
from rssearch.data.buildings import Drawings
from rssearch.data.loader import batches
from rssearch.data.scaling import image_sums
from rssearch.errors import InputError
from tests.support.fakes import own_scenes, zipped


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return own_scenes(tmp_path)


@pytest.fixture
def decoded(monkeypatch):
    """The images that were decoded, in order."""
    calls = []
    real = scenes.Pairs.read

    def read(self, index):
        calls.append(self.images.members[index])
        return real(self, index)

    monkeypatch.setattr(scenes.Pairs, "read", read)
    return calls


def load(folder, **options):
    return data.load("segmentation_folder:scenes", folder.parent, **({"patches": Patches(size=8)} | options))


def epoch(source):
    for x, y in batches(source.split("train"), 4, device="cpu", train=True):
        yield x.numpy(), y.numpy()


class TestDecodedOnce:
    def test_in_memory(self, folder, decoded):
        source = load(folder)
        for _ in range(3):
            list(epoch(source))
        list(source.split("train").scenes())
        assert sorted(decoded) == [f"images/{number}.png" for number in range(5)]

    def test_in_the_cache_by_all_studies_and_processes(self, folder, decoded):
        first = load(folder, memory_share=0)
        list(epoch(first))
        second = load(folder, memory_share=0, patches=Patches(size=12, overlap=4))
        list(epoch(second))
        list(epoch(pickle.loads(pickle.dumps(second))))
        assert sorted(decoded) == [f"images/{number}.png" for number in range(5)]

    def test_again_where_a_file_has_changed_though_not_in_size(self, folder, decoded):
        first = load(folder, memory_share=0)
        path = folder / "images" / "1.png"
        os.utime(path, ns=(1, 1))
        second = load(folder, memory_share=0)
        assert len(decoded) == 10
        assert first.fingerprint == second.fingerprint

    def test_again_where_the_cache_was_cleaned_or_is_on_another_node(self, folder, decoded, monkeypatch, tmp_path):
        source = load(folder, memory_share=0)
        before = list(epoch(source))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        after = list(epoch(pickle.loads(pickle.dumps(source))))
        assert len(decoded) == 10
        for one, two in zip(before, after, strict=True):
            assert np.array_equal(one[0], two[0])
            assert np.array_equal(one[1], two[1])

    def test_by_one_of_several_that_ask_at_once(self, folder, decoded):
        with ThreadPoolExecutor(4) as pool:
            facts = list(pool.map(lambda _: load(folder, memory_share=0).mean.tolist(), range(4)))
        assert facts == facts[:1] * 4
        assert len(decoded) == 5

    def test_a_zip_as_well(self, folder, decoded):
        zipped(folder, folder.parent / "packed.zip")
        for _ in range(2):
            data.load("segmentation_folder:packed.zip", folder.parent, memory_share=0, patches=Patches(size=8))
        assert len(decoded) == 5


class TestCache:
    def test_nothing_is_left_of_a_decoding_that_failed(self, folder, monkeypatch):
        def save(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(np, "save", save)
            with pytest.raises(InputError, match=r"scenes cannot be decoded into the cache .*No space left.*XDG_CACHE"):
                load(folder, memory_share=0)
        assert [path.suffix for path in scenestore.cache_folder().iterdir()] == [".lock"]
        assert load(folder, memory_share=0).streaming

    def test_a_file_that_was_taken_out_is_named(self, folder):
        source = load(folder, memory_share=0)
        (place,) = [path for path in scenestore.cache_folder().iterdir() if path.is_dir()]
        (place / "000000.mask.npy").unlink()
        with pytest.raises(InputError, match=r"000000\.mask\.npy is gone; delete .*, which is then made again"):
            source.targets(np.arange(len(source.windows)))

    def test_broken_scenes_are_remembered_with_their_reason(self, folder, decoded):
        Image.fromarray(np.full((28, 40), 9, np.uint8)).save(folder / "masks" / "2.png")
        for _ in range(2):
            with pytest.raises(InputError, match=r"masks/2\.png: has the value 9"):
                load(folder, memory_share=0)
        skipped, memory = load(folder, memory_share=0, on_error="skip"), load(folder, on_error="skip")
        assert len(decoded) == 10
        assert skipped.names == memory.names == ("0", "1", "3", "4")
        assert skipped.skipped == memory.skipped
        for one, two in zip(epoch(skipped), epoch(memory), strict=True):
            assert np.array_equal(one[0], two[0])
            assert np.array_equal(one[1], two[1])


def test_scenes_are_in_memory_where_they_fit(folder, monkeypatch):
    size = 5 * 28 * 40 * 4
    monkeypatch.setattr(sceneload, "node_memory", lambda: 2 * size)
    assert not load(folder, memory_share=0.5).streaming
    monkeypatch.setattr(sceneload, "node_memory", lambda: 2 * size - 1)
    assert load(folder, memory_share=0.5).streaming


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Three scenes of 12 megabytes each; they compress to nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(3):
        for kind, shape in (("images", (1500, 2000, 3)), ("masks", (1500, 2000))):
            (tmp_path / "scenes" / kind).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros(shape, np.uint8)
            pixels[500:1000], pixels[1000:] = 1, 2
            pixels[number] = 1  # or they were copies
            Image.fromarray(pixels).save(tmp_path / "scenes" / kind / f"{number}.png", compress_level=1)
    (tmp_path / "scenes" / "classes.json").write_text('["a", "b", "c"]')
    return tmp_path / "scenes"


def test_sets_larger_than_memory_take_the_memory_of_one_scene_to_decode_and_of_their_windows_to_read(large):
    tracemalloc.start()
    source = load(large, memory_share=0, workers=1, patches=Patches(size=64))
    decoding = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    for _ in zip(range(5), epoch(source), strict=False):
        pass
    reading = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    scene = 1500 * 2000 * 4
    # The encoded file, Pillow's pixels and the arrays of one scene; not those of three.
    assert decoding < 2.5 * scene
    # A few batches ahead, of four patches and their float copies each.
    assert reading < scene / 4


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="this system does not tell what is mapped")
def test_of_mapped_scenes_the_pages_of_the_windows_are_read_alone(large):
    source = pickle.loads(pickle.dumps(load(large, memory_share=0, workers=1, patches=Patches(size=64))))
    source.take([0])
    source.targets([0])
    maps = [area for area in psutil.Process().memory_maps() if str(scenestore.cache_folder()) in area.path]
    assert len(maps) == 2
    # 64 rows of 6 kB, and what the system reads with each page.
    assert sum(area.rss for area in maps) < 2e6 < 1500 * 2000 * 4


def test_sums_and_counts_are_exact():
    source = Drawings(count=3)
    kept = {}
    facts = scenestore.read_all(source, lambda index, image, mask: kept.update({index: (image, mask)}), workers=2)
    for index, (image, mask) in kept.items():
        assert facts.sums[index] == image_sums(image.transpose(2, 0, 1)).tolist()
        assert facts.counts[index] == np.bincount(mask.ravel(), minlength=256).tolist()
        assert facts.sizes[index] == (128, 128)
    tall = np.random.default_rng(0).integers(0, 256, (1000, 7, 3), dtype=np.uint8)
    assert scenestore._counts(tall[..., 0]).tolist() == np.bincount(tall[..., 0].ravel(), minlength=256).tolist()


def test_progress_and_threads(monkeypatch):
    calls = []
    scenestore.read_all(Drawings(count=4), lambda *_: None, workers=2, progress=lambda *call: calls.append(call))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(scenestore, "available_cpus", lambda: 16)
    monkeypatch.setattr(scenestore, "node_memory", lambda: 16 * 2**30)
    assert scenestore.threads(128 * 128) == 16
    assert scenestore.threads(5000 * 5000) == 5
    assert scenestore.threads(10**9) == 1
