"""rssearch.train.data_parallel: several workers learn what one learns."""

from __future__ import annotations

import multiprocessing
import traceback
from io import StringIO

import numpy as np
import pytest
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from rssearch.backend.worker_group import _cause
from rssearch.config.loading import parse_study
from rssearch.config.settings import Augment, Recipe
from rssearch.data import loader
from rssearch.errors import InputError, PeerLostError
from rssearch.pruning import Elasticity
from rssearch.storage.journal import Journal
from rssearch.study import run as study
from rssearch.train.data_parallel import ALONE, DistributedWorkerGroup, WorkerGroup, _behind
from tests.support.databases import put_into
from tests.support.scenes import scene_set, tiny
from tests.support.training import CPU, fit, image_set, network, without_times

# 45 images in batches of 16: the last batch has 13, which two workers share as 6 and 7.
IMAGES = image_set((45, 16, 16))
FEW = image_set((45, 16, 16))
FEW.labels[:30] = 0  # two thirds of the training images
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, weight_decay=1e-3)


def plain(seed=0):
    """A network without batch normalisation and dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )


def normalised():
    model = network()
    model[3] = nn.Identity()  # instead of the dropout
    return model


def learn(worker_group: WorkerGroup, model, recipe=RECIPE, images=IMAGES, **more):
    """Weights, history and elasticity after a training."""
    elasticity, epochs = Elasticity(model), []
    if worker_group.is_main:
        more |= {"elasticity": elasticity, "on_epoch": lambda record, checkpoint: epochs.append(checkpoint())}
    history = fit(model, images, recipe, worker_group=worker_group, **more)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return weights, without_times(history), elasticity.values(), epochs


def changed(**changes):
    return RECIPE.model_copy(update=changes)


def activated():
    """With timm's normalisation, which holds the activation behind it."""
    from timm.layers import BatchNormAct2d

    model = normalised()
    norm = BatchNormAct2d(6)
    norm.load_state_dict(model[1].state_dict())
    return nn.Sequential(model[0], norm, *model[3:])


CASE_MODELS = {
    "distilled": plain,
    "normalised": normalised,
    "activated": activated,
    "two micro-batches": plain,
    "masks": tiny,
    "balanced": plain,
    "balanced masks": tiny,
}
CASES = {
    "distilled": lambda worker_group: learn(worker_group, plain(), changed(distill=0.5), teacher=plain(7)),
    "normalised": lambda worker_group: learn(
        worker_group, normalised(), changed(bn_l1=1e-2, recalibrate_batches=2), augment=Augment(crop=2, jitter=0.3)
    ),
    "activated": lambda worker_group: learn(worker_group, activated()),
    "two micro-batches": lambda worker_group: learn(worker_group, plain(), micro_batches=2),
    "masks": lambda worker_group: learn(worker_group, tiny(), changed(batch_size=5), scene_set((3, 1, 1))),
    "balanced": lambda worker_group: learn(
        worker_group, plain(), changed(loss="focal", sampling="balanced", class_weights={"c": 3.0}), FEW
    ),
    "balanced masks": lambda worker_group: learn(
        worker_group,
        tiny(),
        changed(batch_size=5, loss="lovasz_cross_entropy", class_weights="balanced", label_smoothing=0.1),
        scene_set((3, 1, 1)),
    ),
}
SHORT = {"a last batch of two": lambda worker_group: learn(worker_group, normalised(), images=image_set((34, 16, 16)))}


def work(rank, size, folder, function, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    try:
        results.put((rank, function(DistributedWorkerGroup())))
    except BaseException:
        results.put((rank, traceback.format_exc()))
        raise
    finally:
        dist.destroy_process_group()


def together(size, folder, function):
    """What a function returns on each worker of a group."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # importing torch takes each worker longer than its work
    results = context.SimpleQueue()
    workers = [context.Process(target=work, args=(rank, size, folder, function, results)) for rank in range(size)]
    for worker in workers:
        worker.start()
    try:
        found = dict(results.get() for _ in workers)
    finally:
        for worker in workers:
            worker.join(60)
            worker.kill()
    return [found[rank] for rank in range(size)]


def run(cases, worker_group):
    # Plain NumPy arrays, because a tensor in a queue lives no longer than the process that made it.
    def kept(case):
        weights, history, elasticity, checkpoints = case(worker_group)
        arrays = [{name: tensor.numpy() for name, tensor in tensors.items()} for tensors in (weights, elasticity)]
        return arrays[0], history, arrays[1], checkpoints

    return {name: kept(case) for name, case in cases.items()}


def run_cases(worker_group):
    return run(CASES, worker_group)


def run_short(worker_group):
    return run(SHORT, worker_group)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return together(2, tmp_path_factory.mktemp("group"), run_cases)


@pytest.mark.parametrize("name", CASES)
def test_two_workers_learn_what_one_learns(name, pair):
    weights, history, elasticity, _ = run({name: CASES[name]}, ALONE)[name]
    (found, log, stretched, checkpoints), (other, *nothing) = (results[name] for results in pair)
    for key, value in weights.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-6, err_msg=key)
    for record, expected in zip(log, history, strict=True):
        assert record.keys() == expected.keys()
        np.testing.assert_allclose(list(record.values()), list(expected.values()), rtol=1e-4)
    assert stretched.keys() == elasticity.keys() != set()
    for key, value in elasticity.items():
        np.testing.assert_allclose(stretched[key], value, rtol=1e-3, err_msg=key)
    assert len(checkpoints) == 2
    assert nothing == [[], {}, []]  # the leader alone keeps a record
    learned = [key for key, _ in CASE_MODELS[name]().named_parameters()]
    assert all(np.array_equal(found[key], other[key]) for key in learned)  # bit for bit


def test_fewer_images_than_workers_are_read_by_all(tmp_path):
    weights, history, _, _ = run(SHORT, ALONE)["a last batch of two"]
    for results in together(3, tmp_path, run_short):
        found, log, _, _ = results["a last batch of two"]
        for key, value in weights.items():
            # Each image counts three times, of which only the correction of the running variance knows.
            tolerance = 1e-3 if "running_var" in key else 2e-4
            np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=2e-6, err_msg=key)
        assert len(log) in (len(history), 0)


@pytest.mark.parametrize(("images", "workers"), [(16, 1), (16, 2), (13, 2), (13, 3), (4, 4), (129, 8)])
def test_shares_of_a_batch_differ_by_one_image_and_cover_it(images, workers):
    shares = [loader.share(slice(100, 100 + images), rank, workers) for rank in range(workers)]
    assert [i for row in shares for i in range(row.start, row.stop)] == list(range(100, 100 + images))
    sizes = {row.stop - row.start for row in shares}
    assert max(sizes) - min(sizes) <= 1


def test_workers_read_the_images_that_one_reads_changed_likewise():
    train, augment = IMAGES.split("train"), Augment(crop=2, jitter=0.3)
    read = {"device": CPU, "train": True, "augment": augment, "seed": 3, "epoch": 1}
    whole = list(loader.batches(train, 16, **read))
    parts = [list(loader.batches(train, 16, worker=(rank, 2), **read)) for rank in range(2)]
    for (x, y), *shared in zip(whole, *parts, strict=True):
        torch.testing.assert_close(torch.cat([part for part, _ in shared]), x, rtol=0, atol=1e-6)
        assert torch.equal(torch.cat([labels for _, labels in shared]), y)


def test_alone_nothing_is_changed():
    model = normalised()
    loss = torch.tensor(0.5)
    assert (ALONE.rank, ALONE.size, ALONE.is_main) == (0, 1, True)
    assert ALONE.loss_weight(torch.zeros(4)) == 1
    assert ALONE.all_reduce(model, loss) is loss
    with ALONE.synchronised_batch_norm(model):
        assert type(model[1]) is nn.BatchNorm2d


def test_a_normalisation_of_unknown_code_is_refused():
    class Doubled(nn.BatchNorm2d):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(InputError, match=r"^Doubled is a batch normalisation with code of its own.*workers to 1"):
        _behind(Doubled(3))
    assert _behind(nn.BatchNorm1d(3)) == []


# By Ray Train, within Ray Tune


def test_what_ended_a_crew():
    from ray.exceptions import RayActorError

    bug, other, lost = ValueError("of the leader"), KeyError("of another"), PeerLostError("gone")
    ended = RuntimeError("Training failed due to worker errors:\nrank 1 died")
    assert _cause({1: other, 0: bug}, ended) is bug
    assert _cause({1: other}, ended) is other
    assert _cause({0: lost}, ended) is lost
    for failures in ({0: bug, 1: RayActorError()}, {}):
        found = _cause(failures, ended)
        assert isinstance(found, PeerLostError)
        assert str(found) == "a worker of the trial died: rank 1 died"


def search(tmp_path, trial, space, **more):
    """The records of a study by their points, and what the console shows."""
    document = {"study": "s", "trial": trial, "space": space, "storage": str(tmp_path), **more}
    text = StringIO()
    put_into(tmp_path)
    study.search(parse_study(document), console=Console(file=text, width=200))
    records = Journal(tmp_path / "s" / "trials.jsonl").records.values()
    return list(records), text.getvalue()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_workers_run_a_trial_and_its_failures_are_told(tmp_path):
    modes = ["works", "dies", "raises", "raises in the leader"]
    more = {"resources": {"workers": 2}, "settings": {"options": {"mark": str(tmp_path / "mark")}}}
    records, text = search(tmp_path, "tests.support.packed:counted", {"mode": modes}, **more)
    found = {record.point["mode"]: record for record in records}
    for mode in ("works", "dies"):
        assert found[mode].status == "finished", found[mode]
        assert found[mode].metrics == {"val_accuracy": 21.0, "macs": 1.0, "workers": 2}
        assert [epoch["epoch"] for epoch in found[mode].history][-2:] == [1, 2]
    assert text.count("its worker died") == 1  # and the trial was started again
    assert found["raises"].reason == "ValueError: a bug that the second worker meets"
    assert found["raises in the leader"].reason == "ValueError: a bug that the leader meets"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_pruning_trial_on_two_workers_is_the_one_on_one(tmp_path):
    space = {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["l1"], "macs_ratio": [0.5]}
    epochs = {"epochs": 1, "batch_size": 256}
    settings = {"input_size": 16, "augment": {"crop": 1}, "train": epochs, "finetune": {**epochs, "lr": 0.01}}
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        records, _ = search(folder, "trials.prune:run", space, settings=settings, resources={"workers": workers})
        (trial,) = [record for record in records if record.kind == "trial"]
        assert trial.status == "finished", trial
        found.append(trial)
    one, two = found
    assert two.key == one.key  # on how many workers is no part of the question
    for name in ("val_loss", "val_accuracy", "baseline_val_accuracy"):
        assert two.metrics[name] == pytest.approx(one.metrics[name], abs=0.02)
    assert two.metrics["macs"] == one.metrics["macs"]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_more_workers_than_the_cluster_has_are_refused(tmp_path):
    with pytest.raises(
        InputError, match="the nodes together cannot hold a trial of 3 workers, each of 1 CPUs and 0 GPUs"
    ):
        search(tmp_path, "tests.support.packed:counted", {"mode": ["works"]}, resources={"workers": 3})


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_cluster_that_grows_needs_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("rssearch.backend.tune._may_grow", lambda: True)
    with pytest.raises(InputError, match=r"resources.max_concurrent: is needed for trials of several workers"):
        search(tmp_path, "tests.support.packed:counted", {"mode": ["works"]}, resources={"workers": 2})


def test_workers_that_would_have_nothing_to_do_are_refused(tmp_path):
    space = {"dataset": ["synthetic_scenes"], "model": ["resnet20"], "method": ["l1"], "macs_ratio": [0.5]}
    with pytest.raises(InputError, match=r"settings.finetune.batch_size: 4 is less than resources.workers, 8"):
        search(tmp_path, "trials.prune:run", space | {"finetune.batch_size": [16, 4]}, resources={"workers": 8})
    with pytest.raises(InputError, match=r"resources.workers: tests.support.toy:plain takes no session"):
        search(tmp_path, "tests.support.toy:plain", {"rate": [0.5]}, resources={"workers": 2})
