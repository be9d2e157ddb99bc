import dataclasses
import hashlib
import pickle
import warnings

import numpy as np
import pytest
import torch

from rssearch import data
from rssearch.config.settings import Augment
from rssearch.data import augment as augmentation
from rssearch.data import imageload, streaming
from rssearch.data.imageset import ImageSet, normalise
from rssearch.data.loader import batches, num_batches
from rssearch.data.streaming import Stream, node_memory
from rssearch.errors import InputError
from tests.support.fakes import tree, zipped

OFF = Augment(crop=0, hflip=False, vflip=False, rotate90=False, jitter=0)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tree(folder / "mine", ["a", "b", "c"], 20, suffix=".jpg")
    zipped(folder / "mine", folder / "mine.zip")
    return folder


@pytest.fixture(scope="module")
def images(root) -> ImageSet:
    return data.load("folder:mine", root, workers=1)


def epoch(images, *, train=True, size=8, **options):
    dataset = images.split("train")
    parts = list(batches(dataset, size, device="cpu", train=train, **options))
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def test_evaluation_is_in_order_and_complete(images):
    for split in ("train", "val", "test"):
        dataset = images.split(split)
        parts = list(batches(dataset, 5, device="cpu", train=False))
        y = torch.cat([y for _, y in parts])
        assert y.tolist() == images.labels[images.indices[split]].tolist()
        assert y.dtype == torch.int64
        x = torch.cat([x for x, _ in parts])
        expected = normalise(torch.from_numpy(images.images[images.indices[split]]), images)
        assert torch.equal(x, expected)
        assert x.dtype == torch.float32


def test_training_sees_every_image_once_with_its_label(images):
    x, y = epoch(images, augment=OFF)
    plain, labels = epoch(images, train=False)
    key = {image.numpy().tobytes(): int(label) for image, label in zip(plain, labels, strict=True)}
    assert len(key) == len(plain) == len(x)
    assert [key[image.numpy().tobytes()] for image in x] == y.tolist()
    assert y.tolist() != labels.tolist()


def test_epochs_are_reproducible_and_differ(images):
    jitter = Augment(jitter=0.3)
    first, _ = epoch(images, augment=jitter, seed=3, epoch=2)
    again, _ = epoch(images, augment=jitter, seed=3, epoch=2)
    assert torch.equal(first, again)
    assert not torch.equal(first, epoch(images, augment=jitter, seed=3, epoch=3)[0])
    assert not torch.equal(first, epoch(images, augment=jitter, seed=2, epoch=2)[0])


def test_batch_size_does_not_change_the_images(images):
    small, _ = epoch(images, augment=Augment(jitter=0.2), size=2)
    large, _ = epoch(images, augment=Augment(jitter=0.2), size=42)
    assert torch.equal(small, large)


@pytest.mark.parametrize(
    ("count", "size", "train", "expected"),
    [(42, 8, True, 6), (41, 8, True, 5), (41, 8, False, 6), (40, 8, True, 5), (9, 128, True, 1), (0, 8, False, 0)],
)
def test_a_last_batch_of_one_image_is_dropped_in_training_alone(images, count, size, train, expected):
    assert num_batches(count, size, train=train) == expected
    cut = dataclasses.replace(images, indices={"train": images.indices["train"][:count]})
    sizes = [len(y) for _, y in batches(cut.split("train"), size, device="cpu", train=train)]
    assert len(sizes) == expected
    assert sum(sizes) == (count - 1 if train and count % size == 1 else count)


def test_too_few_images_to_train_on(images):
    one = dataclasses.replace(images, indices={"train": images.indices["train"][:1]})
    with pytest.raises(InputError, match="two images"):
        next(batches(one.split("train"), 8, device="cpu", train=True))


def test_read_only_arrays_neither_warn_nor_change(images):
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(images, protocol=5, buffer_callback=buffers.append)
    mapped = pickle.loads(stream, buffers=[memoryview(bytes(buffer)) for buffer in buffers])
    assert not mapped.images.flags.writeable
    before = mapped.images.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, _ = epoch(mapped, augment=Augment(jitter=0.2))
        mapped.take([0, 1]).zero_()
        image, _ = mapped.split("val")[0]
        image.zero_()
    assert mapped.images.tobytes() == before == images.images.tobytes()
    assert torch.equal(x, epoch(images, augment=Augment(jitter=0.2))[0])


@pytest.mark.parametrize("name", ["folder:mine", "folder:mine.zip"])
def test_streaming_is_the_same_bit_for_bit(root, images, name):
    streamed = data.load(name, root, workers=2, memory_share=0)
    assert streamed.streaming
    assert not images.streaming
    assert isinstance(streamed.images, Stream)
    for field in ("classes", "fingerprint", "split_hash", "skipped", "input_shape"):
        assert getattr(streamed, field) == getattr(images, field)
    assert np.array_equal(streamed.mean, images.mean)
    assert np.array_equal(streamed.std, images.std)
    assert torch.equal(streamed.take([5, 3, 3]), images.take([5, 3, 3]))
    for left, right in ((streamed, images), (pickle.loads(pickle.dumps(streamed)), images)):
        for one, two in zip(epoch(left, augment=Augment()), epoch(right, augment=Augment()), strict=True):
            assert torch.equal(one, two)
    assert torch.equal(streamed.split("val")[1][0], images.split("val")[1][0])


def test_stream_stops_early_without_leaving_threads(root):
    import threading

    streamed = data.load("folder:mine", root, workers=2, memory_share=0)
    reader = batches(streamed.split("train"), 2, device="cpu", train=True)
    next(reader)
    assert any(thread.name.startswith("stream") for thread in threading.enumerate())
    reader.close()
    assert not any(thread.name.startswith("stream") for thread in threading.enumerate())


def test_file_that_vanishes_while_streaming_is_named(tmp_path):
    tree(tmp_path / "mine", ["a", "b"], 5)
    streamed = data.load("folder:mine", tmp_path, workers=1, memory_share=0)
    (tmp_path / "mine" / "a" / "a_3.png").unlink()
    with pytest.raises(InputError, match=r"a/a_3\.png: cannot be read any more"):
        streamed.take(np.arange(10))


def test_the_set_is_streamed_when_it_exceeds_its_share(root, monkeypatch):
    size = 60 * 3 * 16 * 16
    monkeypatch.setattr(imageload, "node_memory", lambda: 2 * size)
    assert not data.load("folder:mine", root, workers=1, memory_share=0.5).streaming
    monkeypatch.setattr(imageload, "node_memory", lambda: 2 * size - 1)
    assert data.load("folder:mine", root, workers=1, memory_share=0.5).streaming


def test_node_memory_respects_the_containers_limit(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(streaming, "CGROUP_LIMITS", (limit, tmp_path / "absent"))
    free = node_memory()
    limit.write_text("1048576\n")
    assert node_memory() == 2**20
    limit.write_text("max\n")
    assert node_memory() == free > 2**20


def test_dataset_bounds(images):
    dataset = images.split("val")
    assert len(dataset) == 6
    assert torch.equal(dataset[-1][0], dataset[5][0])
    with pytest.raises(IndexError, match="there is no image 6"):
        dataset[6]
    with pytest.raises(InputError, match="unknown split 'validation'"):
        images.split("validation")


@pytest.mark.gpu
def test_gpu_moves_and_jitters_16_bits_as_the_cpu():
    values = (
        torch.arange(16 * 6 * 8 * 8).mul(997).remainder(65536).to(torch.int32).to(torch.uint16).reshape(16, 6, 8, 8)
    )
    for augment in (Augment(crop=2), Augment(crop=2, jitter=0.3, band_dropout=0.5)):
        draws = augmentation.draw(16, augment, (6, 8, 8), np.random.default_rng(0))
        expected, found = (augmentation.apply(x, draws, slice(0, 16)) for x in (values, values.cuda()))
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found.cpu().double(), expected.double(), atol=0.1, rtol=1e-5)
        dropped = augmentation.drop_bands(found.float(), draws, slice(0, 16)).cpu()
        assert torch.equal((dropped == 0).all(3).all(2).sum(1), torch.from_numpy(draws.lost >= 0).long())


@pytest.mark.gpu
def test_gpu_batches_are_those_of_the_cpu(images):
    options = {"train": True, "augment": Augment(jitter=0.2), "seed": 1}
    pairs = zip(
        batches(images.split("train"), 8, device="cpu", **options),
        batches(images.split("train"), 8, device="cuda", **options),
        strict=True,
    )
    for (x, y), (x_gpu, y_gpu) in pairs:
        assert x_gpu.device.type == "cuda"
        assert torch.equal(y, y_gpu.cpu())
        torch.testing.assert_close(x, x_gpu.cpu(), atol=1e-5, rtol=1e-5)


class TestAugmentation:
    def picture(self, count=64, size=8):
        return torch.arange(count * 3 * size * size).remainder(251).to(torch.uint8).reshape(count, 3, size, size)

    def apply(self, images, augment, seed=0):
        draws = augmentation.draw(len(images), augment, tuple(images.shape[1:]), np.random.default_rng(seed))
        return augmentation.apply(images, draws, slice(0, len(images))), draws

    def test_everything_off_is_the_identity(self):
        images = self.picture()
        assert self.apply(images, OFF)[0] is images

    @pytest.mark.parametrize("flips", [{"hflip": True}, {"vflip": True}, {"hflip": True, "vflip": True}])
    def test_flips(self, flips):
        images = self.picture()
        result, draws = self.apply(images, OFF.model_copy(update=flips))
        seen = set()
        for before, after, (vertical, horizontal) in zip(images, result, draws.flips, strict=True):
            dims = [1] * bool(vertical) + [2] * bool(horizontal)
            assert torch.equal(after, before.flip(dims))
            seen.add((bool(vertical), bool(horizontal)))
        assert len(seen) == 2 ** len(flips)

    def test_quarter_turns(self):
        images = self.picture()
        result, draws = self.apply(images, OFF.model_copy(update={"rotate90": True}))
        assert set(draws.turns.tolist()) == {0, 1, 2, 3}
        for before, after, turn in zip(images, result, draws.turns.tolist(), strict=True):
            assert torch.equal(after, torch.rot90(before, turn, (1, 2)))

    def test_flips_and_turns_are_permutations_of_the_pixels(self):
        images = self.picture()
        result, _ = self.apply(images, OFF.model_copy(update={"rotate90": True, "hflip": True, "vflip": True}))
        assert not torch.equal(result, images)
        assert torch.equal(result.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
        assert result.dtype == torch.uint8

    def test_crop_is_a_window_of_the_reflected_image(self):
        images = self.picture()
        result, draws = self.apply(images, OFF.model_copy(update={"crop": 3}))
        bordered = torch.nn.functional.pad(images.float(), (3, 3, 3, 3), mode="reflect").to(torch.uint8)
        for before, after, (top, left) in zip(bordered, result, draws.shift.tolist(), strict=True):
            assert torch.equal(after, before[:, top : top + 8, left : left + 8])
        assert draws.shift.min() == 0
        assert draws.shift.max() == 6

    def test_every_symmetry_of_the_square_with_a_crop(self):
        images = self.picture()
        result, draws = self.apply(images, Augment(crop=2))
        bordered = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
        for i, (top, left) in enumerate(draws.shift.tolist()):
            window = bordered[i][:, top : top + 8, left : left + 8]
            window = window.flip([1] * bool(draws.flips[i, 0]) + [2] * bool(draws.flips[i, 1]))
            assert torch.equal(result[i], torch.rot90(window, int(draws.turns[i]), (1, 2)))

    def test_jitter_is_that_of_torchvision(self):
        from torchvision.transforms.v2 import functional as reference

        images = self.picture(16)
        result, draws = self.apply(images, OFF.model_copy(update={"jitter": 0.4}))
        assert result.dtype == torch.float32
        for before, after, (brightness, contrast, saturation) in zip(
            images, result, draws.jitter.tolist(), strict=True
        ):
            expected = reference.adjust_brightness(before.float() / 255, brightness)
            expected = reference.adjust_contrast(expected, contrast)
            expected = reference.adjust_saturation(expected, saturation)
            torch.testing.assert_close(after / 255, expected, atol=2e-3, rtol=0)
        assert draws.jitter.min() >= 0.6
        assert draws.jitter.max() <= 1.4

    def test_rgb_is_drawn_and_changed_as_ever(self):
        """Literals and the arithmetic of the first release: what was trained is trained again, bit for bit."""
        images = self.picture()
        draws = augmentation.draw(64, Augment(crop=2, jitter=0.4), (3, 8, 8), np.random.default_rng([3, 1]))
        drawn = b"".join(array.tobytes() for array in (draws.shift, draws.flips, draws.turns, draws.jitter))
        assert hashlib.sha256(drawn).hexdigest()[:16] == "02b7c56c83508eb8"
        moved = augmentation.move(images, draws, slice(0, 64)).float()
        brightness, contrast, saturation = torch.from_numpy(draws.jitter)[:, :, None, None, None].unbind(1)
        luma = torch.tensor(augmentation.LUMA)[:, None, None]
        expected = (moved * brightness).clamp_(0, 255)
        mean = (expected * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
        expected = torch.lerp(mean, expected, contrast).clamp_(0, 255)
        grey = (expected * luma).sum(1, keepdim=True)
        expected = torch.lerp(grey, expected, saturation).clamp_(0, 255)
        assert torch.equal(augmentation.apply(images, draws, slice(0, 64)), expected)

    @pytest.mark.parametrize("bands", [1, 3, 6])
    def test_bands_that_are_not_rgb_are_changed_each_by_itself(self, bands):
        values = np.random.default_rng(0).integers(100, 9000, (32, bands, 8, 8)).astype(np.uint16)
        images, black = torch.from_numpy(values).float(), np.full(bands, 50, np.float32)
        augment = OFF.model_copy(update={"jitter": 0.3})
        draws = augmentation.draw(32, augment, (bands, 8, 8), np.random.default_rng(1), rgb=False)
        assert draws.jitter.shape == (32, 2, bands)
        assert 0.7 <= draws.jitter.min() < 0.75
        assert 1.25 < draws.jitter.max() <= 1.3
        result = augmentation.apply(images, draws, slice(0, 32), black)
        for before, after, factors in zip(values.astype(np.float64), result, draws.jitter, strict=True):
            for band, changed, brightness, contrast in zip(before, after, *factors, strict=True):
                bright = 50 + (band - 50.0) * brightness
                expected = bright.mean() + (bright - bright.mean()) * contrast
                np.testing.assert_allclose(changed.numpy(), expected, rtol=1e-5, atol=0.01)

    def test_jitter_stays_within_what_the_type_holds(self):
        bright = torch.full((64, 2, 4, 4), 65535, dtype=torch.uint16)
        result, _ = self.apply(bright, OFF.model_copy(update={"jitter": 0.5}))
        assert result.max() == 65535
        assert result.min() < 40000
        result, _ = self.apply(bright.float(), OFF.model_copy(update={"jitter": 0.5}))
        assert result.max() > 80000

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.float32])
    def test_every_type_is_moved_alike(self, dtype):
        images = self.picture()
        expected, draws = self.apply(images, Augment(crop=2))
        moved = augmentation.move(images.to(dtype), draws, slice(0, 64))
        assert moved.dtype == dtype
        assert torch.equal(moved.to(torch.uint8), expected)

    def test_some_images_lose_one_band(self):
        augment = OFF.model_copy(update={"band_dropout": 0.25})
        draws = augmentation.draw(4000, augment, (5, 8, 8), np.random.default_rng(0))
        lost = draws.lost[draws.lost >= 0]
        assert 900 < len(lost) < 1100
        assert set(lost.tolist()) == {0, 1, 2, 3, 4}
        images = torch.ones(20, 5, 2, 2)
        result = augmentation.drop_bands(images, draws, slice(30, 50))
        for image, band in zip(result, draws.lost[30:50].tolist(), strict=True):
            assert [not plane.any() for plane in image] == [number == band for number in range(5)]

    def test_a_lost_band_is_its_mean_in_what_a_network_gets(self, images):
        x, _ = epoch(images, augment=OFF.model_copy(update={"band_dropout": 1.0}))
        assert ((x == 0).all(3).all(2).sum(1) == 1).all()
        plain, _ = epoch(images, augment=OFF)
        kept = (x != 0).any(3).any(2)
        assert torch.equal(x[kept], plain[kept])

    def test_losing_bands_leaves_the_other_changes(self):
        with_loss = self.apply(self.picture(), Augment(crop=2, jitter=0.2, band_dropout=0.5))[1]
        without = self.apply(self.picture(), Augment(crop=2, jitter=0.2))[1]
        assert (without.lost == -1).all()
        for name in ("shift", "flips", "turns", "jitter"):
            assert np.array_equal(getattr(with_loss, name), getattr(without, name))

    def test_images_of_a_batch_differ_from_one_another(self):
        images = self.picture(1).expand(64, -1, -1, -1)
        result, _ = self.apply(images, Augment(crop=2))
        assert len({image.numpy().tobytes() for image in result}) > 40

    def test_switching_one_change_off_leaves_the_others(self):
        images = self.picture()
        _, with_crop = self.apply(images, Augment(crop=2))
        _, with_jitter = self.apply(images, Augment(crop=2, hflip=False, jitter=0.2))
        assert np.array_equal(with_crop.turns, with_jitter.turns)
        assert np.array_equal(with_crop.flips[:, 0], with_jitter.flips[:, 0])

    def test_rows_take_the_draws_of_their_images(self):
        images = self.picture()
        whole, draws = self.apply(images, Augment(crop=2, jitter=0.1))
        part = augmentation.apply(images[10:20], draws, slice(10, 20))
        assert torch.equal(part, whole[10:20])

    def test_impossible_augmentations(self):
        rng = np.random.default_rng(0)
        with pytest.raises(InputError, match=r"augment\.crop: 8 must be less"):
            augmentation.draw(4, Augment(crop=8), (3, 8, 8), rng)
        with pytest.raises(InputError, match=r"augment\.rotate90: needs square"):
            augmentation.draw(4, Augment(), (3, 16, 8), rng)
        with pytest.raises(InputError, match=r"augment\.band_dropout: needs two bands or more"):
            augmentation.draw(4, Augment(band_dropout=0.1), (1, 8, 8), rng)

    def test_oblong_images_flip_and_crop(self):
        images = torch.arange(4 * 3 * 6 * 10, dtype=torch.int32).remainder(251).to(torch.uint8).reshape(4, 3, 6, 10)
        result, draws = self.apply(images, Augment(crop=0, rotate90=False))
        for before, after, (vertical, horizontal) in zip(images, result, draws.flips, strict=True):
            assert torch.equal(after, before.flip([1] * bool(vertical) + [2] * bool(horizontal)))
