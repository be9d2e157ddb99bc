"""The search itself, on a few small images."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rssearch import data, models, nas, pruning
from rssearch.config.settings import Augment, Recipe, Split
from rssearch.cost import counting
from rssearch.errors import InputError
from rssearch.nas.search import Run, halves
from tests.support.networks import network

RECIPE = Recipe(epochs=5, batch_size=32, lr=0.05)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("data")
    images = data.load("synthetic_scenes", root, input_size=16, split=Split(train=0.1, val=0.1, test=0.8))
    return images.split("train")


def fresh():
    torch.manual_seed(0)
    return models.create("resnet20", 12)


@pytest.mark.parametrize("kind", ["squared", "log"])
def test_the_cost_loss_alone_leads_to_the_target(kind):
    _, _, graph = network("resnet18")
    gates = nas.Gates(graph)
    optimizer = torch.optim.Adam([gates.scores], lr=1e-2)
    for _ in range(600):
        loss = nas.cost_loss(gates.expected_ratio(gates.soft()), 0.3, kind)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(gates.expected_ratio(gates.soft()).detach()) == pytest.approx(0.3, rel=0.01)


def test_cost_losses():
    ratio = torch.tensor(0.6)
    assert float(nas.cost_loss(ratio, 0.5)) == pytest.approx(0.04)
    assert float(nas.cost_loss(ratio, 0.5, "log")) == pytest.approx(math.log(1.2))
    assert float(nas.cost_loss(torch.tensor(0.5), 0.5)) == 0


def test_temperature_falls_exponentially_and_stays():
    settings = nas.ChannelSearch()
    found = [nas.temperature_at(progress, settings) for progress in (0, 0.3, 0.6, 1)]
    assert found == pytest.approx([1, 0.1**0.5, 0.1, 0.1])
    assert nas.temperature_at(0, nas.ChannelSearch(annealing=0)) == pytest.approx(0.1)


def test_images_of_weights_and_scores_are_divided_by_class(train):
    weights, scores = halves(train, 0.2, 0)
    assert not set(weights.indices) & set(scores.indices)
    assert set(weights.indices) | set(scores.indices) == set(train.indices)
    whole, part = np.bincount(train.labels), np.bincount(scores.labels)
    assert all(abs(part - 0.2 * whole) <= 0.5)
    again, other = halves(train, 0.2, 0)[1], halves(train, 0.2, 1)[1]
    assert list(again.indices) == list(scores.indices)
    assert list(other.indices) != list(scores.indices)
    with pytest.raises(InputError, match="too few"):
        halves(train.part(np.arange(3)), 0.2, 0)


def test_each_step_moves_its_own_parameters_alone(train):
    run = Run(fresh(), train, 0.5, RECIPE, nas.ChannelSearch(), None, 0, torch.device("cpu"))
    x, y = next(run._batches(run.for_weights, 0))
    run.model.train()

    def moved(step):
        weights, scores = copy.deepcopy([*run.model.parameters()]), run.gates.scores.detach().clone()
        with run.gates.attached(run.model):
            step()
        changed = [not torch.equal(a, b) for a, b in zip(weights, run.model.parameters(), strict=True)]
        return any(changed), not torch.equal(scores, run.gates.scores)

    assert moved(lambda: run._weight_step(x, y, 0)) == (True, False)
    assert moved(lambda: run._score_step(x, y)) == (False, True)


def test_search(train):
    model, seen = fresh(), []
    before = copy.deepcopy(model.state_dict())
    found = nas.search(
        model, train, macs_ratio=0.4, recipe=RECIPE, settings=nas.ChannelSearch(score_lr=0.05), augment=Augment(crop=2),
        on_epoch=lambda record, _: seen.append(record), device=torch.device("cpu"),
    )  # fmt: skip
    history = found.report["history"]
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert seen == history
    assert "score_loss" not in history[0]  # open gates
    assert all(record.keys() >= {"score_loss", "cost_loss", "score_p50"} for record in history[1:])
    assert all(sum(record[f"gates/0.{tenth}"] for tenth in range(10)) == pytest.approx(1) for record in history)
    assert {group: len(values) for group, values in found.report["scores"].items()} == {
        group: width for group, (_, width) in found.report["widths"].items()
    }
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["temperature"] == pytest.approx(0.1)
    assert abs(history[-1]["soft_ratio"] - 0.4) < abs(history[0]["soft_ratio"] - 0.4)
    profile = counting.profile(found.model, (3, 16, 16))
    assert abs(profile.macs / counting.profile(model, (3, 16, 16)).macs / 0.4 - 1) <= 0.01
    assert found.report["macs"] == profile.macs
    # The original is untouched, and the result is an ordinary network.
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in [*model.modules(), *found.model.modules()])
    rebuilt = pruning.apply_spec(fresh(), found.spec)
    rebuilt.load_state_dict(found.model.state_dict())


def test_the_same_seed_gives_the_same_network(train):
    two = Recipe(epochs=2, batch_size=32, lr=0.05)
    first, second = (nas.search(fresh(), train, macs_ratio=0.5, recipe=two, device=torch.device("cpu")) for _ in "ab")
    other = nas.search(fresh(), train, macs_ratio=0.5, recipe=two, seed=1, device=torch.device("cpu"))
    assert first.kept == second.kept
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert first.kept != other.kept


def test_a_resumed_search_ends_as_an_uninterrupted_one(train):
    def begin():
        return Run(fresh(), train, 0.5, RECIPE, nas.ChannelSearch(), Augment(crop=2), 0, torch.device("cpu"))

    whole, broken, saved = begin(), begin(), []
    whole.finish()

    def stop(record, checkpoint):
        saved.append(checkpoint())
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.finish(stop)
    again = begin()
    again.restore(saved[-1])
    again.finish()
    assert torch.equal(again.gates.scores, whole.gates.scores)
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True))
    assert [record["train_loss"] for record in again.history] == [record["train_loss"] for record in whole.history]
    other = Run(fresh(), train, 0.3, RECIPE, nas.ChannelSearch(), None, 0, torch.device("cpu"))
    with pytest.raises(InputError, match=r"made with another target: 0.5, not 0.3"):
        other.restore(saved[-1])


def test_mistakes_are_found_before_any_training(train):
    def never(*_):
        raise AssertionError("an epoch was trained")

    for ratio, message in ((0.0, r"must be in \(0, 1\]"), (0.001, "cannot be met within 1%")):
        with pytest.raises(InputError, match=message):
            nas.search(fresh(), train, macs_ratio=ratio, recipe=RECIPE, on_epoch=never)
    with pytest.raises(InputError, match="at least one epoch"):
        nas.search(fresh(), train, macs_ratio=0.5, recipe=Recipe(epochs=0))
    with pytest.raises(ValueError, match="score_share must be above 0"):
        nas.ChannelSearch(score_share=0)
    with pytest.raises(ValueError, match="warmup must be below 1"):
        nas.ChannelSearch(warmup=1)
