"""Training with masks: what is recorded, what is left out, and everything that reads batches of data."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rssearch import nas, pruning
from rssearch.config.settings import Augment, ChannelSearch, Recipe
from rssearch.data import IGNORE, SceneSet, loader
from rssearch.errors import InputError
from rssearch.models import attention
from rssearch.models.resnet_cifar import CifarResNet, cifar_resnet
from rssearch.pruning import Elasticity
from rssearch.scores import MACRO
from rssearch.train import loop, losses
from tests.support import training
from tests.support.scenes import TinyUNet, scene_set, tiny
from tests.support.training import CPU, KilledError, killed_after, same_weights, without_times

RECIPE = Recipe(epochs=4, batch_size=8, lr=0.1)


@pytest.fixture(scope="module")
def data() -> SceneSet:
    return scene_set()


def fit(model: nn.Module, data: SceneSet, recipe: Recipe, **options: Any) -> list[dict[str, float]]:
    return training.fit(model, data, recipe, **{"augment": Augment(crop=2), **options})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"label_smoothing": 0.1, "schedule": "step"},
        {"loss": "adaptive_mining"},
        {"precision": "bf16"},
        {"optimizer": "adamw", "lr": 0.02},
    ],
    ids=lambda change: "-".join(map(str, change.values())) or "plain",
)
def test_learns_what_is_easy(data: SceneSet, change: dict[str, Any]) -> None:
    model = tiny()
    history = fit(model, data, RECIPE.model_copy(update={"epochs": 8, **change}))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["val_miou"] > 0.8
    assert history[-1]["val_pixel_accuracy"] > 0.9


def test_history_reports_what_evaluate_measures(data: SceneSet) -> None:
    model = tiny()
    record = fit(model, data, Recipe(epochs=1, batch_size=8))[0]
    names = ("loss", *MACRO["segmentation"])
    assert {name for name in record if name.startswith("val")} == {f"val_{name}" for name in names}
    measured = loop.evaluate(model, data.split("val"), batch_size=5, device=CPU)
    assert {f"val_{name}": value for name, value in measured.items()} == {
        name: pytest.approx(record[name], rel=1e-6) for name in record if name.startswith("val")
    }


def test_evaluate_by_hand(data: SceneSet) -> None:
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([2.0, 0.0, 0.0])[None, :, None, None].expand(len(x), 3, *x.shape[2:])

    val = data.split("val")
    masks = val.targets(np.arange(len(val)))
    counts = torch.bincount(masks[masks != IGNORE], minlength=3)
    share = (counts[0] / counts.sum()).item()
    result = loop.evaluate(Always(), val, batch_size=5, device=CPU)
    assert result["pixel_accuracy"] == pytest.approx(share)
    assert result["miou"] == pytest.approx(share / 3)
    assert result["loss"] == pytest.approx(math.log(math.exp(2) + 2) - 2 * share, rel=1e-6)


def test_ignored_pixels_teach_nothing(data: SceneSet) -> None:
    """The gradients are those of the same masks without the ignored pixels; two masks of nothing but them give none."""
    model = tiny().eval()
    x, y = next(loader.batches(data.split("train"), 4, device=CPU, train=False))
    for loss in (losses.cross_entropy, losses.adaptive_mining, losses.focal):
        for smoothing in (0.0, 0.1):
            (plain,) = torch.autograd.grad(loss(model(x), y, smoothing), [model.head.weight])
            logits = model(x).permute(0, 2, 3, 1)[y != IGNORE]
            (alone,) = torch.autograd.grad(loss(logits, y[y != IGNORE], smoothing), [model.head.weight])
            assert torch.allclose(plain, alone, atol=1e-6)
        nothing = loss(model(x), torch.full_like(y, IGNORE), 0.1)
        assert nothing.item() == 0
        (none,) = torch.autograd.grad(nothing, [model.head.weight])
        assert not none.any()


def test_distillation_leaves_ignored_pixels_out(data: SceneSet) -> None:
    teacher, student = tiny(3), tiny(4)
    fit(teacher, data, RECIPE)
    history = fit(student, data, RECIPE.model_copy(update={"distill": 1.0, "temperature": 2.0}), teacher=teacher)
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    x, y = next(loader.batches(data.split("train"), 4, device=CPU, train=False))
    with torch.no_grad():
        taught, logits = teacher.eval()(x), student.eval()(x)
        counted = losses.distillation(logits, taught, 2.0, y)
        changed = torch.where((y == IGNORE)[:, None], 7.0, logits)
        assert losses.distillation(changed, taught, 2.0, y) == counted
        assert losses.distillation(changed, taught, 2.0) != counted


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data: SceneSet, stop: int) -> None:
    whole, interrupted, resumed, kept = tiny(), tiny(), tiny(9), list[bytes]()
    expected, record = Elasticity(whole), Elasticity(resumed)
    recipe = RECIPE.model_copy(update={"epochs": 3, "recalibrate_batches": 2})
    history = fit(whole, data, recipe, elasticity=expected)
    with pytest.raises(KilledError):
        fit(interrupted, data, recipe, elasticity=Elasticity(interrupted), on_epoch=killed_after(stop, kept))
    again = fit(resumed, data, recipe, elasticity=record, resume=kept[0])
    assert same_weights(whole, resumed)
    assert without_times(again) == without_times(history)
    assert record.values().keys() == {"down.0", "bottom.0", "up", "fuse.0", "head"}
    assert all(torch.equal(value, expected.values()[name]) for name, value in record.values().items())


def test_recalibration_gives_the_exact_statistics_of_one_batch(data: SceneSet) -> None:
    model, split = tiny().train(), data.split("train")
    loop.recalibrate(model, split, 1, batch_size=16, device=CPU, seed=4)
    x, _ = next(loader.batches(split, 16, device=CPU, train=True, seed=4))
    activations = model.down[0](x).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(model.down[1].running_mean, activations.mean(1), atol=1e-5)
    assert torch.allclose(model.down[1].running_var, activations.var(1), atol=1e-5)


def dense(model: CifarResNet) -> CifarResNet:
    """The network with its class scores at each pixel, in place of one for the image."""

    def forward(x: Tensor) -> Tensor:
        maps = model.layer3(model.layer2(model.layer1(torch.relu(model.bn1(model.conv1(x))))))
        scores = model.fc(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.interpolate(scores, size=x.shape[2:])

    model.forward = forward  # type: ignore[method-assign]
    return model


def test_attention_is_trained_on_masks_and_folded(data: SceneSet) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = dense(cifar_resnet(20, 3))
    names = list(model.state_dict())
    history = fit(model, data, RECIPE.model_copy(update={"epochs": 1, "attention": True}))
    assert 0 <= history[0]["val_miou"] <= 1
    assert not attention.is_in(model)
    assert list(model.state_dict()) == names


def test_attention_refuses_an_encoder_decoder_by_name(data: SceneSet) -> None:
    with pytest.raises(InputError, match="but not into TinyUNet"):
        fit(tiny(), data, RECIPE.model_copy(update={"attention": True}))


@pytest.mark.parametrize("method", pruning.list_methods())
def test_every_method_scores_and_prunes_an_encoder_decoder_on_masks(data: SceneSet, method: str) -> None:
    model = tiny()
    record = Elasticity(model)
    fit(model, data, RECIPE.model_copy(update={"epochs": 1}), elasticity=record, augment=None)
    graph = pruning.trace(model.eval(), torch.zeros(1, *data.input_shape))
    batches = list(itertools.islice(loader.batches(data.split("train"), 8, device=CPU, train=False), 2))
    found = pruning.score(model, graph, method, data=batches, seed=0, elasticity=record.values())
    assert found
    assert all(value.isfinite().all() for value in found.values())
    allocation = pruning.METHODS[method].allocation
    kept = pruning.allocate(graph, found, allocation=allocation, rate=0.5)
    small, _ = pruning.cut(model, graph, kept)
    assert isinstance(small, TinyUNet)
    assert small(batches[0][0]).shape == (8, 3, 8, 8)
    assert graph.macs(kept) < graph.macs()


def test_taylor_does_not_see_ignored_pixels(data: SceneSet) -> None:
    model = tiny().eval()
    graph = pruning.trace(model, torch.zeros(1, *data.input_shape))
    x, y = next(loader.batches(data.split("train"), 8, device=CPU, train=False))
    found = pruning.score(model, graph, "taylor", data=[(x, y)])
    where = y != IGNORE
    logits = model(x).permute(0, 2, 3, 1)[where]
    # by hand for the channels that the head reads: dL/dg = sum over pixels and classes of dL/dz_k * w_kc * x_c
    read: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(x)
    handle.remove()
    slope = (logits.softmax(1) - nn.functional.one_hot(y[where], 3)) / where.sum()
    maps = read[0].permute(0, 2, 3, 1)[where]
    expected = ((slope @ model.head.weight[:, :, 0, 0]) * maps).sum(0).abs()
    group = next(name for name, g in graph.groups.items() if any(m.layer == "head" for m in g.readers))
    assert torch.allclose(found[group], expected.detach(), rtol=1e-4, atol=1e-7)


def test_the_channel_search_runs_on_masks(data: SceneSet) -> None:
    settings = ChannelSearch(score_share=0.4)
    found = nas.search(tiny(), data.split("train"), macs_ratio=0.6, recipe=RECIPE, settings=settings, device=CPU)
    assert abs(found.report["macs_ratio"] / 0.6 - 1) <= 0.1  # six and eight channels cannot be met within 1 %
    assert all(math.isfinite(epoch["train_loss"]) for epoch in found.report["history"])


@pytest.mark.gpu
def test_gpu_learns_repeats_itself_and_resumes(data: SceneSet) -> None:
    device = torch.device("cuda")
    first, second, resumed, kept = tiny(), tiny(), tiny(9), list[bytes]()
    recipe = RECIPE.model_copy(update={"epochs": 8})
    history = fit(first, data, recipe, device=device, on_epoch=lambda _, checkpoint: kept.append(checkpoint()))
    assert without_times(fit(second, data, recipe, device=device)) == without_times(history)
    assert without_times(fit(resumed, data, recipe, device=device, resume=kept[3])) == without_times(history)
    assert same_weights(first, second)
    assert same_weights(first, resumed)
    assert history[-1]["val_miou"] > 0.8
