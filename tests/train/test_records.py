"""What a training keeps track of or puts into the network: attention and elasticity."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from rssearch import models, pruning
from rssearch.config.settings import Recipe
from rssearch.data import loader
from rssearch.errors import InputError
from rssearch.models import attention
from rssearch.models.attention import AttendedNorm
from rssearch.pruning import Elasticity
from rssearch.train import loop
from tests.support.training import CPU, KilledError, fit, image_set, killed_after, network, same_weights, without_times


@pytest.fixture(scope="module")
def data():
    return image_set()


def residual(seed=0):
    """A network that takes attention, with few channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return pruning.prune(models.create("resnet20", 3), torch.zeros(1, 3, 8, 8), "l1", rate=0.8).model


ATTENTION = Recipe(epochs=3, batch_size=20, lr=0.05, attention=True)  # 48 images: 20, 20, 8


def test_attention_is_there_while_training_and_folded_at_the_end(data, monkeypatch):
    model, plain = residual(), residual()
    seen, outputs, folded = [], {}, {}
    x = data.split("val").source.take(np.arange(48)).float() / 255

    def on_epoch(record, checkpoint):
        seen.append(sum(isinstance(module, AttendedNorm) for module in model.modules()))
        measured = loop.evaluate(model, data.split("val"), batch_size=20, device=CPU)
        assert {f"val_{name}": value for name, value in measured.items()}.items() <= record.items()

    fold = attention.fold

    def watch(network, values):
        folded.update(values)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        outputs.update(mean=attention.mean_attention(network, one_by_one(data.split("train"))), before=before)
        fold(network, values)

    monkeypatch.setattr(attention, "fold", watch)
    norm = model.bn1
    history = fit(model, data, ATTENTION, on_epoch=on_epoch)
    assert seen == [19] * 3
    assert len(history) == 3
    assert str(model) == str(plain)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model.bn1 is norm
    for name, value in folded.items():  # the mean over the training split, image by image
        assert torch.allclose(value, outputs["mean"][name], rtol=1e-5)
        for kind in ("weight", "bias"):
            expected = outputs["before"][f"{name}.norm.{kind}"] * value
            assert torch.allclose(model.state_dict()[f"{name}.{kind}"], expected.float(), rtol=1e-6)
    assert len(folded) == 19
    assert model.eval()(x).isfinite().all()


def one_by_one(split):
    """Each image of a split once, in batches of one."""
    return loader.batches(split, 1, device=CPU, train=False)


def test_attention_is_repeatable_and_a_function_of_the_seed(data):
    models_ = [residual() for _ in range(3)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    histories = [fit(model, data, ATTENTION, seed=seed) for model, seed in zip(models_, (0, 0, 1), strict=True)]
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(models_[0], models_[1])
    assert without_times(histories[0]) == without_times(histories[1])
    assert not same_weights(models_[0], models_[2])


@pytest.mark.parametrize("stop", [1, 3])
def test_attention_resumes(data, stop):
    whole, interrupted, resumed, kept = residual(), residual(), residual(seed=9), []
    history = fit(whole, data, ATTENTION)
    with pytest.raises(KilledError):
        fit(interrupted, data, ATTENTION, on_epoch=killed_after(stop, kept))
    assert str(interrupted) == str(residual())  # it is out again
    assert without_times(fit(resumed, data, ATTENTION, resume=kept[0])) == without_times(history)
    assert same_weights(whole, resumed)


def test_attention_needs_a_network_that_takes_it_and_epochs(data):
    with pytest.raises(InputError, match="but not into Sequential"):
        fit(network(), data, ATTENTION)
    with pytest.raises(ValueError, match="attention needs epochs above 0"):
        Recipe(epochs=0, attention=True)


class Spy:
    """An elasticity that tells what it was called with."""

    def __init__(self, model):
        self.inner, self.model, self.log = Elasticity(model), model, []

    def reset(self):
        self.log.append("reset")
        self.inner.reset()

    def update(self, loss):
        weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        gradients = {name: p.grad.clone() for name, p in self.model.named_parameters()}
        self.log.append((loss.item(), weights, gradients))
        self.inner.update(loss)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)


def test_elasticity_sees_the_steps_of_the_last_epoch_and_plain_gradients(data):
    recipe = Recipe(epochs=2, batch_size=20, lr=0.05, momentum=0, weight_decay=0.5, bn_l1=0.25, schedule="constant")
    model = network()
    spy = Spy(model)
    history = fit(model, data, recipe, elasticity=spy)
    assert spy.log[0] == "reset"
    steps = spy.log[1:]
    assert len(steps) == 3  # 20 + 20 + 8 images
    mean = sum(loss * size for (loss, _, _), size in zip(steps, (20, 20, 8), strict=True)) / 48
    assert mean == pytest.approx(history[-1]["train_loss"], rel=1e-6)
    # from one step to the next, the optimizer adds decay and penalty, which the record has not seen
    for (_, weights, gradients), (_, later, _) in itertools.pairwise(steps):
        for name, value in weights.items():
            penalty = 0.25 * value.sign() if name == "1.weight" else 0
            assert torch.allclose(later[name], value - 0.05 * (gradients[name] + 0.5 * value + penalty), atol=1e-7)
    expected = sum((g["0.weight"] * w["0.weight"]).abs().flatten(1).mean(1) / abs(loss) for loss, w, g in steps)
    assert torch.allclose(spy.inner.values()["0"], expected, rtol=1e-5)


def test_elasticity_does_not_change_the_training(data):
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05, bn_l1=0.01)
    models_ = [network(), network()]
    fit(models_[0], data, recipe)
    fit(models_[1], data, recipe, elasticity=Elasticity(models_[1]))
    assert same_weights(*models_)


@pytest.mark.parametrize("stop", [1, 3])
def test_elasticity_survives_a_resumption(data, stop):
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05)
    whole, interrupted, resumed = network(), network(), network(seed=9)
    expected, record, kept = Elasticity(whole), Elasticity(resumed), []
    fit(whole, data, recipe, elasticity=expected)
    with pytest.raises(KilledError):
        fit(interrupted, data, recipe, elasticity=Elasticity(interrupted), on_epoch=killed_after(stop, kept))
    fit(resumed, data, recipe, elasticity=record, resume=kept[0])
    assert torch.equal(record.values()["0"], expected.values()["0"])
    assert expected.values()["0"].min() > 0


def test_a_finished_training_without_a_record_cannot_give_one(data):
    kept = []
    recipe = Recipe(epochs=1, batch_size=8)
    fit(network(), data, recipe, on_epoch=lambda _, checkpoint: kept.append(checkpoint()))
    model = network()
    with pytest.raises(InputError, match="elasticity was not recorded"):
        fit(model, data, recipe, elasticity=Elasticity(model), resume=kept[0])
    assert same_weights(model, network())


def test_attention_and_elasticity_go_together(data):
    model = residual()
    record = Elasticity(model)
    fit(model, data, ATTENTION, elasticity=record)
    assert record.values().keys() == {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert all(value.sum() > 0 for value in record.values().values())
