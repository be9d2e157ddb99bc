"""rssearch.train.micro_batches: the step of a whole batch, some images at a time; what happens when memory runs out."""

from functools import partial

import pytest
import torch
from torch import nn

from rssearch.config.settings import Recipe
from rssearch.data import IGNORE, loader
from rssearch.device import place
from rssearch.errors import OutOfMemory, TrialFailed
from rssearch.train import balance, loop, losses
from rssearch.train import micro_batches as microbatch
from tests.support.training import CPU, fit, image_set, same_weights

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.1)


def plain_network():
    """Nothing in it looks at more than one image: no batch normalisation, no dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


class Limited(nn.Module):
    """Runs out of memory with more than `limit` images while it trains; remembers how many it got."""

    def __init__(self, limit, error):
        super().__init__()
        self.inner, self.limit, self.error, self.seen = plain_network(), limit, error, []

    def forward(self, x):
        if self.training:
            self.seen.append(len(x))
            if len(x) > self.limit:
                raise self.error
        return self.inner(x)


@pytest.mark.parametrize("micro_batches", [2, 3, 8, 100])
def test_gradients_are_those_of_the_whole_batch(micro_batches):
    whole, parts = plain_network().double(), plain_network().double()
    x, y = torch.randn(11, 3, 8, 8, dtype=torch.float64), torch.arange(11) % 3
    expected = nn.functional.cross_entropy(whole(x), y)
    expected.backward()
    loss = microbatch.backward(lambda x, y: nn.functional.cross_entropy(parts(x), y), x, y, micro_batches)
    assert not loss.requires_grad
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=0)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-12, atol=1e-14)


def test_masks_count_by_their_labelled_pixels():
    weight = torch.randn(3, 2, dtype=torch.float64)
    x, y = torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.randint(0, 3, (6, 4, 4))
    y[0] = IGNORE
    y[1, :3] = IGNORE
    y[4:] = IGNORE  # the last part has no label at all

    def gradient(micro_batches):
        w = weight.clone().requires_grad_()
        logits = lambda x: torch.einsum("kc,bchw->bkhw", w, x)  # noqa: E731
        loss = microbatch.backward(lambda x, y: losses.adaptive_mining(logits(x), y), x, y, micro_batches)
        return loss, w.grad

    (loss, grad), (whole_loss, whole_grad) = gradient(3), gradient(1)
    torch.testing.assert_close(loss, whole_loss)
    torch.testing.assert_close(grad, whole_grad)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "loss", ["cross_entropy", "focal", "dice", "lovasz", "dice_cross_entropy", "lovasz_cross_entropy"]
)
def test_every_loss_of_masks_is_that_of_the_whole_batch(loss, weighted):
    recipe = Recipe(loss=loss, label_smoothing=0.0 if loss in ("dice", "lovasz") else 0.1, distill=0.3)
    weight = torch.tensor([0.5, 1.0, 4.0]) if weighted else None
    label_loss, generator = balance.named_loss(recipe, weight), torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 2, 4, 4, generator=generator), torch.randint(0, 3, (7, 4, 4), generator=generator)
    y[0], y[3, :3], y[5:] = IGNORE, IGNORE, IGNORE

    def gradient(micro_batches):
        layer, teacher = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)
        for number, network in enumerate((layer, teacher)):
            nn.init.constant_(network.bias, 0)
            network.weight.data = torch.arange(6.0).sub(3 - number).reshape(3, 2, 1, 1)
        loss_of = partial(loop.training_loss, layer, teacher, recipe, label_loss, 1.0)
        return microbatch.backward(loss_of, x, y, micro_batches), layer.weight.grad

    (found, grad), (expected, whole) = gradient(3), gradient(1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad, whole, rtol=1e-5, atol=1e-7)


def test_no_part_is_a_single_image():
    sizes = []

    def loss_of(x, y):
        sizes.append(len(x))
        return (x * torch.ones(1, requires_grad=True)).mean()

    for images, micro_batches in ((7, 4), (3, 3), (2, 2), (16, 4)):
        microbatch.backward(loss_of, torch.zeros(images, 1), torch.zeros(images, dtype=torch.long), micro_batches)
    assert sizes == [3, 2, 2, 3, 2, 4, 4, 4, 4]


def test_training_in_parts_is_training_on_whole_batches():
    data = image_set()
    whole, parts = plain_network(), plain_network()
    first, second = fit(whole, data, RECIPE), fit(parts, data, RECIPE, micro_batches=4)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)
    for a, b in zip(first, second, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)
        assert "micro_batches" not in a
        assert b["micro_batches"] == 4


def test_one_part_is_plain_training_bit_for_bit():
    data = image_set()
    first, second = plain_network(), place(plain_network(), CPU, data.input_shape)
    fit(first, data, RECIPE, augment=None)
    optimizer = loop.make_optimizer(second, RECIPE)
    step = 0
    for epoch in range(RECIPE.epochs):
        for x, y in loader.batches(data.split("train"), RECIPE.batch_size, device=CPU, train=True, epoch=epoch):
            optimizer.param_groups[0]["lr"] = loop.learning_rate(RECIPE, step, 3 * RECIPE.epochs, 0)
            optimizer.zero_grad()
            losses.cross_entropy(second(x), y).backward()
            optimizer.step()
            step += 1
    assert step == 3 * RECIPE.epochs
    assert same_weights(first, second)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError("Unable to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "python", "cpu", "cublas"])
def test_memory_that_runs_out_is_told_by_its_name(error):
    with pytest.raises(OutOfMemory, match="out of memory with 16 images at a time"):
        fit(Limited(4, error), image_set(), RECIPE)


def test_other_errors_pass_through():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(Limited(4, RuntimeError("mat1 and mat2 shapes cannot be multiplied")), image_set(), RECIPE)


def test_micro_batches_that_fit_are_trained():
    model = Limited(4, ERRORS[0])
    history = fit(model, image_set(), RECIPE, micro_batches=4)
    assert set(model.seen) == {4}
    assert len(model.seen) == 2 * 3 * 4
    assert [epoch["micro_batches"] for epoch in history] == [4, 4]


def test_two_images_cannot_be_halved():
    with pytest.raises(TrialFailed, match="out of memory with 2 images at a time of the batch of 16, which cannot be"):
        fit(Limited(1, ERRORS[0]), image_set(), RECIPE, micro_batches=8)


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert microbatch.is_out_of_memory(caught.value)


@pytest.mark.gpu
def test_a_gpu_that_is_too_small_trains_in_micro_batches():
    device = torch.device("cuda")
    data, recipe = image_set((256, 16, 16), size=64), Recipe(epochs=1, batch_size=256, lr=0.1, precision="fp32")

    def wide():  # its activations take 256 MiB for 256 images, and as much again for their gradients
        return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 3))

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + (200 << 20)) / total)
    try:
        with pytest.raises(OutOfMemory, match="out of memory with 256 images at a time"):
            fit(wide(), data, recipe, device=device)
        torch.cuda.empty_cache()
        (epoch,) = fit(wide(), data, recipe, device=device, micro_batches=16)
        assert epoch["micro_batches"] == 16
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
