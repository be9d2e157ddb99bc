"""The training loop on a few tiny images."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from rssearch.config.settings import Recipe
from rssearch.data import loader
from rssearch.device import pick_device, place
from rssearch.errors import InputError, TrialFailed
from rssearch.scores import MACRO
from rssearch.train import loop
from tests.support.training import CPU, KilledError, fit, image_set, killed_after, network, same_weights, without_times


@pytest.fixture(scope="module")
def data():
    return image_set()


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=12, batch_size=8, lr=0.1),
        Recipe(epochs=12, batch_size=8, lr=0.05, nesterov=True, schedule="step", label_smoothing=0.1),
        Recipe(epochs=12, batch_size=8, lr=0.02, optimizer="adamw", schedule="constant", warmup_epochs=1),
        Recipe(epochs=12, batch_size=8, lr=0.1, loss="adaptive_mining"),
        Recipe(epochs=12, batch_size=8, lr=0.1, precision="bf16"),
    ],
    ids=lambda recipe: f"{recipe.optimizer}-{recipe.schedule}-{recipe.loss}-{recipe.precision}",
)
def test_learns_what_is_easy(data, recipe):
    model = network()
    history = fit(model, data, recipe)
    assert [record["epoch"] for record in history] == list(range(1, 13))
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["val_accuracy"] > 0.95
    test = loop.evaluate(model, data.split("test"), batch_size=5, device=CPU)
    assert test["accuracy"] > 0.95
    assert all(record["seconds"] > 0 and record["images_per_second"] > 0 for record in history)


def test_history_reports_what_evaluate_measures(data):
    model = network()
    record = fit(model, data, Recipe(epochs=1, batch_size=8))[0]
    measured = loop.evaluate(model, data.split("val"), batch_size=16, device=CPU)
    expected = {name.removeprefix("val_"): value for name, value in record.items() if name.startswith("val_")}
    assert measured == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    assert measured.keys() == {"loss", *MACRO["classification"]}


def test_train_loss_is_the_mean_over_images(data):
    # lr so small that the weights stay: the epoch's loss is then that of the fixed network, whatever the batches
    model = network().eval()
    model[3].p = 0.0
    reference = network()
    reference[3].p = 0.0
    history = fit(model, data, Recipe(epochs=1, batch_size=20, lr=1e-12, schedule="constant"), augment=None)
    reference.train()
    batches = loader.batches(data.split("train"), 20, device=CPU, train=True, seed=0, epoch=0)
    with torch.no_grad():
        total = sum(nn.functional.cross_entropy(reference(x), y).item() * len(y) for x, y in batches)
    assert history[0]["train_loss"] == pytest.approx(total / 48, rel=1e-5)  # batches of 20, 20 and 8


def test_evaluate_by_hand(data):
    class Always(nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0.0, 0.0]]).expand(len(x), 3)

    val = data.split("val")  # 16 images, labels 48 % 3 = 0, 1, 2, 0, ...: six of class 0
    result = loop.evaluate(Always(), val, batch_size=5, device=CPU)
    log_sum = math.log(math.exp(2) + 2)
    assert result["accuracy"] == 6 / 16
    assert result["loss"] == pytest.approx(log_sum - 2 * 6 / 16, rel=1e-6)


def test_evaluate_leaves_every_mode_as_it_was(data):
    model = network().train()
    model[1].eval()
    loop.evaluate(model, data.split("val"), batch_size=8, device=CPU)
    assert model.training
    assert model[3].training
    assert not model[1].training


def test_evaluate_refuses_an_empty_split():
    with pytest.raises(InputError, match="no images"):
        loop.evaluate(network(), image_set((8, 8, 0)).split("test"), batch_size=8, device=CPU)


def test_learning_rates_are_exact():
    cosine = Recipe(lr=0.4, schedule="cosine")
    assert [loop.learning_rate(cosine, s, 4, 0) for s in range(4)] == pytest.approx(
        [0.4, 0.2 * (1 + math.sqrt(0.5)), 0.2, 0.2 * (1 - math.sqrt(0.5))]
    )
    step = Recipe(lr=0.4, schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    assert [loop.learning_rate(step, s, 8, 0) for s in range(8)] == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2)
    assert loop.learning_rate(Recipe(lr=0.4, schedule="constant"), 7, 8, 0) == 0.4


def test_warm_up_is_linear_and_the_schedule_starts_at_the_full_rate():
    recipe = Recipe(lr=0.4, schedule="cosine")
    rates = [loop.learning_rate(recipe, s, 12, 4) for s in range(12)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[8] == pytest.approx(0.2)
    assert all(rate > 0 for rate in rates)
    # a warm-up longer than the training is only a warm-up
    assert [loop.learning_rate(recipe, s, 2, 4) for s in range(2)] == pytest.approx([0.1, 0.2])


def test_the_optimizer_gets_the_schedule(data):
    recipe = Recipe(epochs=4, batch_size=8, lr=0.1, schedule="step", warmup_epochs=1)
    rates = [record["lr"] for record in fit(network(), data, recipe)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_weight_decay_takes_every_parameter(data):
    model = network()
    recipe = Recipe(epochs=1, batch_size=48, lr=0.1, momentum=0, weight_decay=1.0, schedule="constant")
    plain, decayed = network(), network()
    fit(plain, data, recipe.model_copy(update={"weight_decay": 0.0}))
    fit(decayed, data, recipe)
    for (name, start), a, b in zip(model.named_parameters(), plain.parameters(), decayed.parameters(), strict=True):
        assert torch.allclose(a - b, 0.1 * start, atol=1e-6), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_same_seed_same_weights_and_other_seed_other_weights(data, optimizer):
    recipe = Recipe(epochs=2, batch_size=8, lr=0.05, optimizer=optimizer)
    models = [network() for _ in range(3)]
    torch.manual_seed(1)
    first = fit(models[0], data, recipe)
    torch.manual_seed(2)  # the caller's random state does not matter
    second = fit(models[1], data, recipe)
    fit(models[2], data, recipe, seed=1)
    assert same_weights(models[0], models[1])
    assert without_times(first) == without_times(second)
    assert not same_weights(models[0], models[2])


def test_the_callers_random_state_is_left_alone(data):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    deterministic = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fit(network(), data, Recipe(epochs=1, batch_size=8, recalibrate_batches=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == deterministic


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, optimizer, stop):
    recipe = Recipe(epochs=4, batch_size=8, lr=0.05, optimizer=optimizer, warmup_epochs=1.5, recalibrate_batches=2)
    whole, interrupted, resumed = network(), network(), network(seed=9)
    history = fit(whole, data, recipe)
    kept = []

    with pytest.raises(KilledError):
        fit(interrupted, data, recipe, on_epoch=killed_after(stop, kept))
    torch.manual_seed(123)  # another process has another random state
    again = fit(resumed, data, recipe, resume=kept[0])
    assert same_weights(whole, resumed)
    assert without_times(again) == without_times(history)
    assert again[:stop] != history[:stop]  # the times show that the first epochs were not trained again


def test_a_checkpoint_is_loaded_without_pickles_and_belongs_to_one_recipe_and_seed(data):
    kept = []
    recipe = Recipe(epochs=2, batch_size=8)
    fit(network(), data, recipe, on_epoch=lambda _, checkpoint: kept.append(checkpoint()))
    assert len(kept) == 2
    with pytest.raises(InputError, match="another recipe"):
        fit(network(), data, recipe.model_copy(update={"lr": 0.2}), resume=kept[0])
    with pytest.raises(InputError, match="another seed: 0, not 1"):
        fit(network(), data, recipe, seed=1, resume=kept[0])


def test_on_epoch_cannot_change_the_history(data):
    history = fit(network(), data, Recipe(epochs=1, batch_size=8), on_epoch=lambda record, _: record.clear())
    assert history[0]["epoch"] == 1


def test_distillation_moves_the_student_towards_the_teacher(data):
    teacher = network(seed=3)
    fit(teacher, data, Recipe(epochs=8, batch_size=8))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    x = data.split("val").source.take(np.arange(16)).float() / 255
    recipe = Recipe(epochs=10, batch_size=8, lr=0.05, distill=1.0, temperature=2.0)

    def distance(student):
        with torch.no_grad():
            p, q = (model.eval()(x).log_softmax(1) for model in (teacher, student))
        return (p.exp() * (p - q)).sum(1).mean().item()

    student = network(seed=4)
    start = distance(student)
    teacher.zero_grad()
    teacher.train()  # fit puts it into evaluation mode
    fit(student, data, recipe, teacher=teacher)
    assert distance(student) < 0.2 * start
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_needs_a_teacher(data):
    with pytest.raises(InputError, match="needs a teacher"):
        fit(network(), data, Recipe(distill=0.5))


class FailsAt(nn.Module):
    """Gives a NaN in one of its forward passes in training mode."""

    def __init__(self, call, value=math.nan, training=True):
        super().__init__()
        self.inner, self.calls, self.at, self.value, self.mode = network(), 0, call, value, training

    def forward(self, x):
        self.calls += self.training == self.mode
        return self.inner(x) * (self.value if self.calls == self.at and self.training == self.mode else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial_before_a_checkpoint(data, value):
    kept = []
    recipe = Recipe(epochs=3, batch_size=8, lr=0.05, schedule="constant")
    with pytest.raises(TrialFailed, match=r"loss is (nan|inf) in epoch 2, step 3 of 6, learning rate 0\.05"):
        fit(FailsAt(9, value), data, recipe, on_epoch=lambda record, _: kept.append(record["epoch"]))
    assert kept == [1]


def test_a_diverged_loss_is_found_within_an_epoch_of_many_steps(monkeypatch):
    monkeypatch.setattr(loop, "LOOK_EVERY", 5)
    model = FailsAt(3)
    with pytest.raises(TrialFailed, match="epoch 1, step 3 of 24"):
        fit(model, image_set(), Recipe(epochs=1, batch_size=2, lr=0.05))
    assert model.calls == 5


def test_a_network_that_is_broken_after_the_last_step_fails_too(data):
    kept = []
    with pytest.raises(TrialFailed, match=r"outside the training is nan, after epoch 1, learning rate 0\.05"):
        fit(
            FailsAt(2, training=False),  # the first such pass is that of `place`
            data,
            Recipe(epochs=1, batch_size=8, lr=0.05, schedule="constant"),
            on_epoch=lambda record, _: kept.append(record),
        )
    assert not kept


def test_real_divergence_is_reported(data):
    with pytest.raises(TrialFailed, match=r"learning rate 1e\+30"):
        fit(network(), data, Recipe(epochs=3, batch_size=8, lr=1e30, schedule="constant"))


def test_recalibration_gives_the_exact_statistics_of_one_batch(data):
    model = network().train()
    model[1].running_mean.fill_(7.0)
    model[1].running_var.fill_(7.0)
    split = data.split("train")
    loop.recalibrate(model, split, 1, batch_size=16, device=CPU, seed=4)
    x, _ = next(loader.batches(split, 16, device=CPU, train=True, seed=4))
    activations = model[0](x).detach().transpose(0, 1).flatten(1)
    assert torch.allclose(model[1].running_mean, activations.mean(1), atol=1e-6)
    assert torch.allclose(model[1].running_var, activations.var(1), atol=1e-6)  # unbiased, as BN keeps it


def test_recalibration_averages_over_batches_and_changes_nothing_else(data):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    split = data.split("train")
    loop.recalibrate(model, split, 100, batch_size=16, device=CPU, seed=4)  # there are 3 batches
    means = [
        model[0](x).detach().transpose(0, 1).flatten(1).mean(1)
        for x, _ in loader.batches(split, 16, device=CPU, train=True, seed=4)
    ]
    assert torch.allclose(model[1].running_mean, torch.stack(means).mean(0), atol=1e-6)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert model[1].momentum == 0.1
    assert model.training


def test_recalibration_without_batch_normalisation_does_nothing(data):
    loop.recalibrate(nn.Flatten(), data.split("train"), 2, batch_size=8, device=CPU, seed=0)


def test_no_epochs_means_recalibration_alone(data):
    model, expected = network(), place(network(), CPU, data.input_shape)
    assert fit(model, data, Recipe(epochs=0, batch_size=8, recalibrate_batches=2)) == []
    loop.recalibrate(expected, data.split("train"), 2, batch_size=8, device=CPU, seed=0)
    assert same_weights(model, expected)
    assert not same_weights(model, network())


def test_a_last_batch_of_one_image_is_left_out():
    data = image_set((17, 8, 8))
    history = fit(network(), data, Recipe(epochs=2, batch_size=8, lr=0.1))  # 8 + 8 + 1
    # two steps an epoch, cosine over four: the last rate is that of step 3
    assert history[-1]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 3 / 4)))


def test_frozen_parameters_stay(data):
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, data, Recipe(epochs=1, batch_size=8))
    assert torch.equal(model[0].weight, before)


def test_pick_device():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.gpu
def test_gpu_learns_repeats_itself_and_resumes(data):
    device = torch.device("cuda")
    recipe = Recipe(epochs=12, batch_size=8, lr=0.1)
    first, second, resumed, kept = network(), network(), network(), []
    history = fit(first, data, recipe, device=device, on_epoch=lambda _, checkpoint: kept.append(checkpoint()))
    assert without_times(fit(second, data, recipe, device=device)) == without_times(history)
    assert without_times(fit(resumed, data, recipe, device=device, resume=kept[5])) == without_times(history)
    assert same_weights(first, second)
    assert same_weights(first, resumed)
    assert history[-1]["val_accuracy"] > 0.95
    assert first[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_the_penalty_on_scales_is_added_to_their_gradients_alone(data):
    # one step of plain SGD: the difference is lr * bn_l1 * sign(scale)
    plain, penalised, start = network(), network(), network()
    for model in (plain, penalised, start):
        with torch.no_grad():
            model[1].weight.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0, -3.0, 0.5]))
    recipe = Recipe(epochs=1, batch_size=48, lr=0.1, momentum=0, weight_decay=0.5, schedule="constant")
    fit(plain, data, recipe)
    fit(penalised, data, recipe.model_copy(update={"bn_l1": 0.25}))
    for name, value in plain.named_parameters():
        expected = torch.tensor([1.0, -1, 0, 1, -1, 1]) * 0.1 * 0.25 if name == "1.weight" else torch.zeros(())
        assert torch.allclose(value - penalised.get_parameter(name), expected, atol=1e-7), name


def test_the_penalty_drives_scales_towards_zero(data):
    plain, penalised = network(), network()
    recipe = Recipe(epochs=6, batch_size=8, lr=0.05, weight_decay=0)
    fit(plain, data, recipe)
    fit(penalised, data, recipe.model_copy(update={"bn_l1": 0.1}))
    assert penalised[1].weight.abs().sum() < 0.8 * plain[1].weight.abs().sum()


def test_frozen_scales_are_not_penalised(data):
    model = network()
    model[1].weight.requires_grad_(False)
    fit(model, data, Recipe(epochs=1, batch_size=8, bn_l1=0.5))
    assert torch.equal(model[1].weight, torch.ones(6))


def test_after_epoch_comes_before_the_validation_and_the_checkpoint(data):
    model, order, kept = network(), [], []

    def zero(epoch):
        order.append(epoch)
        with torch.no_grad():
            model[0].weight[:3] = 0

    def on_epoch(record, checkpoint):
        order.append("validated")
        assert model[0].weight[:3].eq(0).all()
        assert model[0].weight[3:].ne(0).all()
        measured = loop.evaluate(model, data.split("val"), batch_size=8, device=CPU)
        assert measured["loss"] == record["val_loss"]
        kept.append(checkpoint())

    recipe = Recipe(epochs=2, batch_size=8, lr=0.05)
    fit(model, data, recipe, after_epoch=zero, on_epoch=on_epoch)
    assert order == [0, "validated", 1, "validated"]
    resumed = network(seed=9)
    fit(resumed, data, recipe, resume=kept[1])
    assert same_weights(model, resumed)
