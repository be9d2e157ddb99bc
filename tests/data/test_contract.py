"""What every dataset keeps to, whatever it is read from."""

import pickle
import warnings

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config.settings import Augment
from rssearch.data.describe import describe
from rssearch.data.loader import batches
from rssearch.errors import InputError
from rssearch.testing import IMAGE_CLAUSES, SCENE_CLAUSES
from rssearch.testing.datasets import DatasetPart
from tests.support.fakes import FAKES

IMAGES = [name for name in FAKES if data.task(name) in ("classification", None)]
SCENES = [name for name in FAKES if data.task(name) == "segmentation"]


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    made = {}
    for name, make in FAKES.items():
        made[name] = tmp_path_factory.mktemp("root")
        if make is not None:
            make(made[name])
    return made


def test_every_registered_dataset_is_tested():
    assert set(data.list_datasets()) == {name for name in FAKES if "folder:" not in name}


@pytest.fixture(scope="module")
def parts(roots):
    return {name: DatasetPart(name, roots[name]) for name in FAKES}


@pytest.mark.parametrize("clause", IMAGE_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", IMAGES)
def test_every_set_of_images(parts, name, clause):
    clause(parts[name])


@pytest.mark.parametrize("clause", SCENE_CLAUSES, ids=lambda clause: clause.__name__)
@pytest.mark.parametrize("name", SCENES)
def test_every_set_of_scenes(parts, name, clause):
    clause(parts[name])


@pytest.mark.parametrize("name", FAKES)
def test_nothing_is_left_out_and_nothing_is_there_twice(parts, roots, name):
    found = parts[name].images if name in IMAGES else parts[name].scenes
    assert found.skipped == ()
    assert data.verify(name, roots[name], workers=1).copies == ()


@pytest.mark.parametrize("name", SCENES)
class TestEverySceneSet:
    def test_mapped_pixels_give_the_same_batches(self, parts, name):
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(parts[name].scenes, protocol=5, buffer_callback=buffers.append)
        mapped = pickle.loads(stream, buffers=[memoryview(bytes(buffer)) for buffer in buffers])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of read-only memory
            for one, two in zip(
                batches(mapped.split("train"), 8, device="cpu", train=True, augment=Augment(jitter=0.2)),
                batches(parts[name].scenes.split("train"), 8, device="cpu", train=True, augment=Augment(jitter=0.2)),
                strict=True,
            ):
                assert torch.equal(one[0], two[0])
                assert torch.equal(one[1], two[1])

    def test_scenes_that_do_not_fit_into_memory_are_the_same_bit_for_bit(
        self, parts, roots, name, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert not parts[name].scenes.streaming
        mapped, scenes = parts[name].load(memory_share=0, workers=None), parts[name].scenes
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

    def test_the_messages_say_why_scenes_are_not_scaled(self, roots, name):
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
