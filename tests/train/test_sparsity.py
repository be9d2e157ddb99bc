"""The penalty on the scales of batch normalisation: how far it pulls, and what it leaves."""

import pytest
import torch
from torch import nn

from rssearch.config.loading import override_settings
from rssearch.config.settings import Recipe, Settings
from rssearch.errors import InputError
from rssearch.train import loop
from rssearch.train.schedule import learning_rate
from rssearch.train.sparsity import SHRINKAGE, Penalty, reach, sparsity, weight


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=3, lr=0.1, weight_decay=0),
        Recipe(epochs=2, lr=0.05, weight_decay=0, nesterov=True, schedule="step", warmup_epochs=0.5),
        Recipe(epochs=2, lr=0.05, weight_decay=0, momentum=0, schedule="constant"),
        Recipe(epochs=4, lr=1e-3, weight_decay=0, optimizer="adamw"),
    ],
)
def test_auto_pulls_by_one_over_the_whole_training(recipe):
    """With the optimizer's own steps, on a scale that starts so high that it never crosses zero."""
    recipe, steps = recipe.model_copy(update={"bn_l1": "auto"}), 7
    norm = nn.BatchNorm2d(2).double()
    nn.init.constant_(norm.weight, 5.0)
    optimizer = loop.make_optimizer(norm, recipe)
    penalty = Penalty([norm.weight], recipe, steps)
    for step in range(recipe.epochs * steps):
        rate = learning_rate(recipe, step, recipe.epochs * steps, round(recipe.warmup_epochs * steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        norm.weight.grad, norm.bias.grad = torch.zeros(2).double(), torch.zeros(2).double()
        penalty.before_step()
        optimizer.step()
        penalty.after_step(rate)
    assert (5.0 - norm.weight).tolist() == pytest.approx([SHRINKAGE] * 2, rel=1e-9)
    assert norm.bias.tolist() == [0, 0]


def test_its_weight_falls_with_the_length_of_the_training():
    short, long = Recipe(epochs=8, bn_l1="auto"), Recipe(epochs=160, bn_l1="auto")
    assert weight(short, 100) == pytest.approx(20 * weight(long, 100), rel=0.03)
    # about sum(lr) / (1 - momentum): the mean of a cosine is half its height, 0.05 * 800 / 0.1
    assert reach(short, 100) == pytest.approx(400, rel=0.03)
    assert reach(Recipe(epochs=2, momentum=0, schedule="constant"), 5) == pytest.approx(1.0)


def test_a_number_means_what_it_says():
    assert weight(Recipe(epochs=8, bn_l1=1e-4), 100) == 1e-4
    assert weight(Recipe(epochs=8), 100) == 0
    scale = nn.Parameter(torch.tensor([2.0, -1.0, 0.0]))
    scale.grad = torch.zeros(3)
    Penalty([scale], Recipe(epochs=8, bn_l1=0.5, optimizer="adamw"), 10).before_step()
    assert scale.grad.tolist() == [0.5, -0.5, 0]


@pytest.mark.parametrize("value", [-1, True, "often", "1e-4"])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match=r"settings\.train\.bn_l1: .* must be auto, or a number of at least 0"):
        override_settings(Settings(), {"train.bn_l1": value})


def test_sparsity_is_the_share_below_a_hundredth_of_the_largest():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(2), nn.BatchNorm2d(3, affine=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([0.0, -0.019, 0.02, 1.0]))
        model[1].weight.copy_(torch.tensor([-2.0, 0.001]))
    assert sparsity(model) == pytest.approx(3 / 6)  # 0, 0.019 and 0.001; 0.02 is a hundredth
    assert sparsity(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False))) is None
