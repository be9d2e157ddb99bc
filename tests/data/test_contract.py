"""What every dataset keeps to, whatever it is read from."""

import pickle

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config import Split
from rssearch.data.loader import batches
from rssearch.errors import InputError

from .fakes import FAKES


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
    return {name: data.load(name, root, input_size=16, workers=1) for name, root in roots.items()}


def test_every_registered_dataset_is_tested():
    assert set(data.list_datasets()) == {name for name in FAKES if ":" not in name}


@pytest.mark.parametrize("name", FAKES)
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

    def test_fetch_of_what_is_there_downloads_nothing(self, roots, name, monkeypatch):
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
    if ":" not in name:
        assert f"rssearch data fetch {name}" in message


def test_unknown_names():
    with pytest.raises(InputError, match=r"unknown dataset 'eurosad'\. Did you mean 'eurosat'"):
        data.load("eurosad", ".")
    with pytest.raises(InputError, match="unknown split 'training'"):
        data.create("synthetic_scenes", ".", "training")
    with pytest.raises(InputError, match="unknown on_error"):
        data.load("synthetic_scenes", ".", on_error="ignore")
