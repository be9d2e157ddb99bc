"""What every dataset keeps to, whatever it is read from."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config.schema import Augment, Patches, Split
from rssearch.data import IGNORE
from rssearch.data.describe import describe
from rssearch.data.loader import batches
from rssearch.errors import InputError
from tests.support.fakes import FAKES

IMAGES = [name for name in FAKES if data.task(name) == "classification"]
SCENES = [name for name in FAKES if data.task(name) == "segmentation"]
CUT = Patches(size=16, overlap=6)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {}
    for name, make in FAKES.items():
        made[name] = tmp_path_factory.mktemp("root")
        if make is not None:
            make(made[name])
    return made


@pytest.fixture(scope="module")
def loaded(roots):
    return {name: data.load(name, roots[name], input_size=16, workers=1) for name in IMAGES}


def test_every_registered_dataset_is_tested():
    assert set(data.list_datasets()) == {name for name in FAKES if "folder:" not in name}


@pytest.mark.parametrize("name", IMAGES)
class TestEveryDataset:
    def test_arrays(self, loaded, name):
        images = loaded[name]
        count = len(images.labels)
        assert images.images.shape == (count, 3, 16, 16)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        assert images.input_shape == (3, 16, 16)
        assert images.num_classes == len(images.classes) == images.labels.max() + 1
        assert images.skipped == ()
        assert images.name == name

    def test_splits_cover_every_image_once_and_every_class(self, loaded, name):
        images = loaded[name]
        assert set(images.indices) == {"train", "val", "test"}
        everything = np.concatenate(list(images.indices.values()))
        assert sorted(everything) == list(range(len(images.labels)))
        for split, members in images.indices.items():
            assert members.dtype == np.int64
            assert (np.diff(members) > 0).all()
            assert set(images.labels[members]) == set(range(images.num_classes)), split

    def test_moments_are_those_of_the_training_split(self, loaded, name):
        images = loaded[name]
        train = images.images[images.indices["train"]] / 255
        np.testing.assert_allclose(images.mean, train.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(images.std, train.std((0, 2, 3)), rtol=1e-5)
        assert images.mean.dtype == images.std.dtype == np.float32

    def test_normalised_training_images_have_mean_0_and_deviation_1(self, loaded, name):
        train = loaded[name].split("train")
        x = torch.cat([x for x, _ in batches(train, 512, device="cpu", train=False)])
        torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)

    def test_fingerprint_and_split_hash_are_stable(self, loaded, roots, name):
        assert data.fingerprint(name, roots[name]) == loaded[name].fingerprint
        again = data.load(name, roots[name], input_size=16, workers=2)
        assert (again.fingerprint, again.split_hash) == (loaded[name].fingerprint, loaded[name].split_hash)
        assert np.array_equal(again.images, loaded[name].images)
        assert len(again.fingerprint) == len(again.split_hash) == 64

    def test_another_seed_is_another_split_of_the_same_images(self, loaded, roots, name):
        other = data.load(name, roots[name], input_size=16, split=Split(seed=1), workers=1)
        assert other.split_hash != loaded[name].split_hash
        assert other.fingerprint == loaded[name].fingerprint
        assert {k: len(v) for k, v in other.indices.items()} == {k: len(v) for k, v in loaded[name].indices.items()}

    def test_create_is_one_split_as_a_torch_dataset(self, loaded, roots, name):
        dataset = data.create(name, roots[name], "val", input_size=16, workers=1)
        source = loaded[name]
        assert len(dataset) == dataset.images_per_split == len(source.indices["val"])
        assert dataset.classes == source.classes
        x, y = dataset[len(dataset) - 1]
        index = source.indices["val"][-1]
        assert y == source.labels[index]
        expected = (source.images[index] / 255 - source.mean[:, None, None]) / source.std[:, None, None]
        np.testing.assert_allclose(x.numpy(), expected, atol=2e-6)
        assert x.dtype == torch.float32
        assert len(list(torch.utils.data.DataLoader(dataset, batch_size=4))) == -(-len(dataset) // 4)

    def test_pickle_leaves_the_pixels_out_of_band(self, loaded, name):
        buffers: list[pickle.PickleBuffer] = []
        pickle.dumps(loaded[name], protocol=5, buffer_callback=buffers.append)
        assert max(memoryview(buffer).nbytes for buffer in buffers) == loaded[name].images.nbytes

    def test_verify_finds_nothing_wrong(self, loaded, roots, name):
        report = data.verify(name, roots[name], workers=1)
        assert report.ok
        assert report.images == len(loaded[name].labels) == sum(report.classes.values())
        assert report.fingerprint == loaded[name].fingerprint
        assert report.copies == ()
        assert str(report.images) in report.describe()

    def test_targets_are_the_labels(self, loaded, name):
        dataset = loaded[name].split("test")
        assert loaded[name].task == dataset.task == "classification"
        positions = np.arange(len(dataset))[::-2].copy()
        assert dataset.targets(positions).tolist() == [dataset[position][1] for position in positions]
        assert dataset.targets([0]).dtype == torch.int64


@pytest.fixture(scope="module")
def scene_sets(roots):
    return {name: data.load(name, roots[name], patches=CUT, workers=1) for name in SCENES}


@pytest.mark.parametrize("name", SCENES)
class TestEverySceneSet:
    def test_arrays(self, scene_sets, name):
        scenes = scene_sets[name]
        assert scenes.name == name
        assert scenes.task == scenes.split("val").task == "segmentation"
        assert scenes.input_shape == scenes.split("val").input_shape == (3, 16, 16)
        assert scenes.num_classes == len(scenes.classes) >= 2
        assert scenes.skipped == ()
        assert not scenes.streaming
        for image, mask in zip(scenes.scenes.images, scenes.scenes.masks, strict=True):
            assert image.dtype == mask.dtype == np.uint8
            assert image.shape == (*mask.shape, 3)
            assert set(np.unique(mask)) <= {*range(scenes.num_classes), IGNORE}
        seen = np.unique(np.concatenate([mask.ravel() for mask in scenes.scenes.masks]))
        assert set(range(scenes.num_classes)) <= set(seen)

    def test_no_group_is_in_two_splits(self, scene_sets, name):
        scenes = scene_sets[name]
        sides = {split: {scenes.groups[s] for s in scenes.windows[m, 0]} for split, m in scenes.indices.items()}
        assert set(sides) == {"train", "val", "test"}
        assert all(sides.values())
        assert sum(map(len, sides.values())) == len(set(scenes.groups)) == len(set.union(*sides.values()))

    def test_windows_cover_every_pixel_and_those_of_val_and_test_overlap_no_more_than_they_must(self, scene_sets, name):
        scenes = scene_sets[name]
        everything = np.concatenate(list(scenes.indices.values()))
        assert everything.tolist() == list(range(len(scenes.windows)))
        for split, members in scenes.indices.items():
            assert members.dtype == np.int64
            for scene in np.unique(scenes.windows[members, 0]):
                height, width = scenes.scenes.mask(scene).shape
                times = np.zeros((height, width), int)
                own = [window for window in scenes.windows[members].tolist() if window[0] == scene]
                for _, row, column in own:
                    assert 0 <= row <= max(height - 16, 0)
                    assert 0 <= column <= max(width - 16, 0)
                    times[row : row + 16, column : column + 16] += 1
                assert times.min() >= 1
                fewest = -(-height // 16) * -(-width // 16)
                assert len(own) == fewest if split != "train" else len(own) >= fewest

    def test_moments_are_those_of_the_training_scenes(self, scene_sets, name):
        scenes = scene_sets[name]
        train = np.unique(scenes.windows[scenes.indices["train"], 0])
        pixels = np.concatenate([scenes.scenes.image(scene).reshape(-1, 3) for scene in train]) / 255
        np.testing.assert_allclose(scenes.mean, pixels.mean(0), rtol=1e-6)
        np.testing.assert_allclose(scenes.std, pixels.std(0), rtol=1e-5)
        assert scenes.mean.dtype == scenes.std.dtype == np.float32
        x = torch.cat([scene.image.flatten(1) for scene in scenes.split("train").scenes()], dim=1)
        torch.testing.assert_close(x.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.std(1), torch.ones(3), atol=1e-3, rtol=0)

    def test_fingerprint_and_split_hash_are_stable(self, scene_sets, roots, name):
        scenes = scene_sets[name]
        assert data.fingerprint(name, roots[name]) == scenes.fingerprint
        again = data.load(name, roots[name], patches=CUT, workers=2)
        assert (again.fingerprint, again.split_hash) == (scenes.fingerprint, scenes.split_hash)
        assert len(again.fingerprint) == len(again.split_hash) == 64
        assert np.array_equal(again.windows, scenes.windows)
        for one, two in ((again.scenes.images, scenes.scenes.images), (again.scenes.masks, scenes.scenes.masks)):
            assert all(map(np.array_equal, one, two))

    def test_another_seed_is_another_split_of_the_same_scenes(self, scene_sets, roots, name):
        others = [data.load(name, roots[name], patches=CUT, split=Split(seed=seed), workers=1) for seed in (1, 2, 3)]
        assert any(other.split_hash != scene_sets[name].split_hash for other in others)
        assert {other.fingerprint for other in others} == {scene_sets[name].fingerprint}

    def test_create_is_one_split_as_a_torch_dataset(self, scene_sets, roots, name):
        dataset = data.create(name, roots[name], "val", patches=CUT, workers=1)
        source = scene_sets[name]
        assert len(dataset) == dataset.images_per_split == len(source.indices["val"])
        assert dataset.classes == source.classes
        scene, row, column = source.windows[source.indices["val"][-1]]
        image = source.scenes.image(scene)[row : row + 16, column : column + 16].transpose(2, 0, 1)
        expected = (image / 255 - source.mean[:, None, None]) / source.std[:, None, None]
        x, y = dataset[len(dataset) - 1]
        np.testing.assert_allclose(x.numpy(), expected, atol=2e-6)
        assert np.array_equal(y, source.scenes.mask(scene)[row : row + 16, column : column + 16])
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert len(list(torch.utils.data.DataLoader(dataset, batch_size=4))) == -(-len(dataset) // 4)

    def test_batches_are_the_patches_in_order(self, scene_sets, name):
        dataset = scene_sets[name].split("test")
        pairs = list(batches(dataset, 3, device="cpu", train=False))
        x, y = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        assert torch.equal(y, dataset.targets(np.arange(len(dataset))))
        assert y.dtype == torch.int64
        assert all(torch.equal(image, dataset[index][0]) for index, image in enumerate(x))

    def test_whole_scenes_are_what_their_patches_are_cut_from(self, scene_sets, name):
        source, dataset = scene_sets[name], scene_sets[name].split("test")
        whole = {scene.name: scene for scene in dataset.scenes()}
        assert set(whole) == {source.names[scene] for scene in source.windows[dataset.indices, 0]}
        for position, index in enumerate(dataset.indices):
            number, row, column = source.windows[index].tolist()
            scene = whole[source.names[number]]
            x, y = dataset[position]
            assert torch.equal(x, scene.image[:, row : row + 16, column : column + 16])
            assert torch.equal(y, scene.mask[row : row + 16, column : column + 16])
        assert len(list(dataset.part(np.array([0])).scenes())) == 1

    def test_pickle_leaves_the_pixels_out_of_band(self, scene_sets, name):
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(scene_sets[name], protocol=5, buffer_callback=buffers.append)
        arrays = [*scene_sets[name].scenes.images, *scene_sets[name].scenes.masks]
        assert sum(memoryview(buffer).nbytes for buffer in buffers) >= sum(array.nbytes for array in arrays)
        assert len(stream) < 20_000
        mapped = pickle.loads(stream, buffers=[memoryview(bytes(buffer)) for buffer in buffers])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of read-only memory
            for one, two in zip(
                batches(mapped.split("train"), 8, device="cpu", train=True, augment=Augment(jitter=0.2)),
                batches(scene_sets[name].split("train"), 8, device="cpu", train=True, augment=Augment(jitter=0.2)),
                strict=True,
            ):
                assert torch.equal(one[0], two[0])
                assert torch.equal(one[1], two[1])

    def test_scenes_that_do_not_fit_into_memory_are_the_same_bit_for_bit(
        self, scene_sets, roots, name, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        mapped, scenes = data.load(name, roots[name], patches=CUT, memory_share=0), scene_sets[name]
        assert mapped.streaming
        for field in ("classes", "names", "groups", "fingerprint", "split_hash", "skipped", "input_shape"):
            assert getattr(mapped, field) == getattr(scenes, field)
        assert np.array_equal(mapped.mean, scenes.mean)
        assert np.array_equal(mapped.std, scenes.std)
        for left in (mapped, pickle.loads(pickle.dumps(mapped))):
            for one, two in zip(
                batches(left.split("train"), 8, device="cpu", train=True, augment=Augment()),
                batches(scenes.split("train"), 8, device="cpu", train=True, augment=Augment()),
                strict=True,
            ):
                assert torch.equal(one[0], two[0])
                assert torch.equal(one[1], two[1])

    def test_verify_finds_nothing_wrong(self, scene_sets, roots, name):
        scenes, report = scene_sets[name], data.verify(name, roots[name], workers=1)
        assert report.ok
        assert report.images == len(scenes.names)
        masks = np.concatenate([mask.ravel() for mask in scenes.scenes.masks])
        counts = np.bincount(masks, minlength=256)
        assert list(report.classes.values()) == counts[: scenes.num_classes].tolist()
        assert report.ignored == counts[IGNORE]
        assert report.fingerprint == scenes.fingerprint
        assert report.copies == ()
        assert f"{report.images} scenes" in report.describe()

    def test_description_needs_no_pixels(self, roots, name):
        about = describe(name, roots[name], patches=CUT)
        assert (about.input_shape, about.task) == ((3, 16, 16), "segmentation")
        shares = Split(train=0.98, val=0.01, test=0.01)
        scenes = data.load(name, roots[name], patches=Patches(size=16), split=shares)
        assert describe(name, roots[name], patches=Patches(size=16)).num_images == len(scenes.windows)
        assert about.num_images > len(scenes.windows)
        assert about.num_classes == scenes.num_classes

    def test_scenes_are_never_scaled(self, roots, name):
        with pytest.raises(InputError, match=r"input_size: must be null for dataset .*, not 64: scenes are cut"):
            data.load(name, roots[name], input_size=64)
        with pytest.raises(InputError, match="input_size: must be null"):
            describe(name, roots[name], input_size=64)


@pytest.mark.parametrize("name", FAKES)
def test_fetch_of_what_is_there_downloads_nothing(roots, name, monkeypatch):
    monkeypatch.setattr("socket.socket", None)
    assert data.fetch(name, roots[name])


@pytest.mark.parametrize("name", [name for name, make in FAKES.items() if make is not None])
def test_missing_dataset_names_the_places(name, tmp_path):
    with pytest.raises(InputError) as caught:
        data.load(name, tmp_path / "nowhere")
    message = str(caught.value)
    assert name in message
    assert str(tmp_path / "nowhere") in message
    assert "does not exist" in message
    if data.registry.prefix_of(name) is None:
        assert (data.registry.find(name).by_hand or f"rssearch data fetch {name}") in message


def test_unknown_names():
    with pytest.raises(InputError, match=r"unknown dataset 'eurosad'\. Did you mean 'eurosat'"):
        data.load("eurosad", ".")
    with pytest.raises(InputError, match="unknown split 'training'"):
        data.create("synthetic_scenes", ".", "training")
    with pytest.raises(InputError, match="unknown on_error"):
        data.load("synthetic_scenes", ".", on_error="ignore")
