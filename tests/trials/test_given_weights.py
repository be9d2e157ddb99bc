"""Baselines from a file of weights: measured as they are, with the images normalised as they were trained."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rssearch import data, models
from rssearch.bundle import checks
from rssearch.config.loading import parse_study
from rssearch.data.imageset import ImageSet
from rssearch.errors import InputError
from rssearch.storage.artifacts import Store
from rssearch.study import weight_files
from rssearch.study.checking import check_baselines
from rssearch.study.definition import StudyDefinition
from rssearch.trial.interface import WEIGHTS
from rssearch.trial.session import Session
from rssearch.trials import baseline_check, baselines, prune, results, tasks
from rssearch.trials.normalisation import IMAGENET
from rssearch.trials.pruning_trial import PruningTrial

DATASET = "folder:scenes"
RECIPE = {"batch_size": 16, "lr": 0.01}


def normalised(images: ImageSet, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As torchvision's ToTensor and Normalize do, by the numbers of ImageNet."""
    chosen = images.indices[split]
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (images.take(chosen) / 255 - mean) / std, torch.from_numpy(images.labels[chosen])


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A checkpoint as a plain script writes it, and the validation accuracy that the script measures."""
    images = data.load(DATASET, data_root, split=parse_study(document("x.pt")).settings.split)
    assert isinstance(images, ImageSet)
    torch.manual_seed(0)
    model = models.create("resnet20", 3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    x, y = normalised(images, "train")
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    model.eval()
    x, y = normalised(images, "val")
    with torch.no_grad():
        accuracy = float((model(x).argmax(1) == y).double().mean())
    path = tmp_path_factory.mktemp("weights") / "my.pt"
    torch.save({"epoch": 1, "state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, path)
    return path, accuracy


def document(weights: Path | str, **settings: Any) -> dict[str, Any]:
    return {
        "study": "own",
        "trial": "trials.prune:run",
        "space": {"dataset": [DATASET], "model": ["resnet20"], "method": ["l1"], "macs_ratio": [0.5]},
        "settings": {
            "split": {"train": 0.6, "val": 0.2, "test": 0.2},
            "augment": {"crop": 2},
            "model": {"weights": str(weights)},
            "normalize": "imagenet",
            "train": RECIPE | {"epochs": 0},
            "finetune": RECIPE | {"epochs": 1},
            **settings,
        },
    }


def defined(weights: Path | str, data_root: Path, storage: Path, **settings: Any) -> StudyDefinition:
    places = {"data_root": str(data_root), "storage": str(storage)}
    return StudyDefinition(parse_study(document(weights, **settings) | places))


def opened(definition: StudyDefinition, key: str = "k") -> PruningTrial:
    (point,) = definition.points
    return PruningTrial.open(point, Session(definition.context(), key, point))


def test_the_baseline_is_the_network_as_it_was_trained(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    path, accuracy = trained
    found = opened(defined(path, data_root, tmp_path)).baseline
    assert found.metrics["val_accuracy"] == accuracy > 0.9
    assert found.metrics["history"] == []
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(torch.equal(t, weights[f"module.{n}"]) for n, t in found.model.state_dict().items())


def test_a_trial_keeps_what_its_images_were_normalised_by(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    trial = opened(defined(trained[0], data_root, tmp_path))
    metrics = prune.run(trial.point.values, trial.session)
    assert metrics["baseline_val_accuracy"] == trained[1]
    files = trial.session.store.get(results.MODELS, "k")
    assert files is not None
    about = json.loads(files["about.json"])
    assert about["normalize"] == "imagenet"
    assert about["mean"] == pytest.approx(IMAGENET[0])
    assert about["std"] == pytest.approx(IMAGENET[1])


def test_another_content_gives_other_keys_and_another_place_none(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(trained[0].read_bytes())
    second.write_bytes(trained[0].read_bytes())
    before = opened(defined(first, data_root, tmp_path))
    assert opened(defined(second, data_root, tmp_path)).keys.baseline == before.keys.baseline
    key = before.keys.baseline, before.keys.scores, defined(first, data_root, tmp_path).key(before.point.values)
    torch.save(models.create("resnet20", 3).state_dict(), first)
    definition = defined(first, data_root, tmp_path)
    after = opened(definition)
    new = after.keys.baseline, after.keys.scores, definition.key(after.point.values)
    assert not set(key) & set(new)


def test_a_normalisation_gives_other_keys(trained: tuple[Path, float], data_root: Path, tmp_path: Path) -> None:
    keys = {
        opened(defined(trained[0], data_root, tmp_path, normalize=by)).keys.baseline
        for by in ("imagenet", "dataset", None, "none", {"mean": [0.5], "std": [0.5]})
    }
    assert len(keys) == 4  # dataset is the default of a file


def test_a_worker_needs_no_file(trained: tuple[Path, float], data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.pt"
    path.write_bytes(trained[0].read_bytes())
    definition = defined(path, data_root, tmp_path)
    weight_files.keep(definition.config, definition.store)
    path.unlink()
    assert opened(definition).baseline.metrics["val_accuracy"] == trained[1]


def test_a_file_that_is_replaced_while_the_study_starts(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.pt"
    path.write_bytes(trained[0].read_bytes())
    definition = defined(path, data_root, tmp_path)
    torch.save(models.create("resnet20", 3).state_dict(), path)
    with pytest.raises(InputError, match="was replaced while the study started"):
        weight_files.keep(definition.config, definition.store)
    assert not Store(tmp_path).keys(WEIGHTS)


def test_the_digest_is_compared_where_it_is_given(trained: tuple[Path, float], data_root: Path, tmp_path: Path) -> None:
    model = {"weights": str(trained[0]), "sha256": {str(trained[0]): "0" * 64}}
    with pytest.raises(InputError, match=r"settings.model.sha256: the file .*my.pt has [0-9a-f]{64}, not 000"):
        defined(trained[0], data_root, tmp_path, model=model)


def test_what_does_not_fit_is_refused_before_anything_starts(data_root: Path, tmp_path: Path) -> None:
    torch.save(models.create("resnet20", 7).state_dict(), tmp_path / "my.pt")
    with pytest.raises(InputError, match=r"settings.model: weights .* do not fit .*They fit 7 classes"):
        defined(tmp_path / "my.pt", data_root, tmp_path)


def test_weights_of_single_networks_and_of_a_dimension(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    path = str(trained[0])
    single = defined(path, data_root, tmp_path, model={"networks": {"resnet20": {"weights": path}}})
    assert opened(single).baseline.metrics["val_accuracy"] == trained[1]
    (tmp_path / "b.pt").write_bytes(trained[0].read_bytes())
    text = document(path) | {"data_root": str(data_root), "storage": str(tmp_path)}
    text["space"] |= {"model.weights": [path, str(tmp_path / "b.pt")]}
    definition = StudyDefinition(parse_study(text))
    assert set(definition.config.settings.model.sha256) == {path, str(tmp_path / "b.pt")}
    assert len({definition.key(point) for point in definition.points}) == 2


def test_what_the_weights_do_not_say_is_not_guessed(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"normalize: weights: .*my.pt does not say what it was trained with"):
        defined(trained[0], data_root, tmp_path, normalize="weights")
    with pytest.raises(InputError, match=r"has 2 bands, and the images of 'folder:scenes' have 3"):
        defined(trained[0], data_root, tmp_path, normalize={"mean": [0, 0], "std": [1, 1]})


def test_named_weights_bring_their_normalisation(data_root: Path, tmp_path: Path) -> None:
    text = document("IMAGENET1K_V1", normalize=None) | {"data_root": str(data_root), "storage": str(tmp_path)}
    text["space"] |= {"model": ["resnet18"]}
    trial = opened(StudyDefinition(parse_study(text)))
    assert trial.images.mean.tolist() == pytest.approx(IMAGENET[0])
    assert trial.plain_images.mean.tolist() != pytest.approx(IMAGENET[0])


def test_a_baseline_that_measures_too_low_names_the_suspects(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shuffled = torch.load(trained[0], weights_only=True)["state_dict"]
    for name in ("module.fc.weight", "module.fc.bias"):
        shuffled[name] = shuffled[name].roll(1, 0)
    torch.save(shuffled, tmp_path / "shuffled.pt")
    with caplog.at_level(logging.WARNING, "rssearch"):
        baselines.baseline(opened(defined(tmp_path / "shuffled.pt", data_root, tmp_path)))
    order = "rows [1, 2, 0] of the last layer (its classes seem to be town, forest, river)"
    assert f"What explains it: class order: with {order} it is {trained[1]:.1%}" in caplog.text


def test_a_good_baseline_is_not_warned_about(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rssearch"):
        baselines.baseline(opened(defined(trained[0], data_root, tmp_path)))
    assert not caplog.text


def test_a_check_measures_the_study_first_and_then_the_suspects(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    text = document(trained[0], normalize="none") | {"data_root": str(data_root), "storage": str(tmp_path / "none")}
    rows = check_baselines(parse_study(text))
    assert [row["normalize"] for row in rows][:3] == ["none", "dataset", "imagenet"]
    assert rows[2]["accuracy"] == trained[1]
    assert all(0 <= row["accuracy"] <= row["reordered"] <= 1 for row in rows)
    assert not (tmp_path / "none").exists()


def test_a_check_needs_weights(data_root: Path, tmp_path: Path) -> None:
    text = document("x.pt", model={}) | {"data_root": str(data_root), "storage": str(tmp_path)}
    with pytest.raises(InputError, match=r"settings.model.weights: no network of the study begins with"):
        check_baselines(parse_study(text))


def test_of_a_large_split_every_class_is_looked_at(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_check, "_MOST", 6)
    trial = opened(defined(trained[0], data_root, tmp_path))
    found = baseline_check.reached(trial.initial_model(), trial.plain_images, "dataset", None, trial.device)
    assert found.measured == 6
    assert found.chance == pytest.approx(1 / 3)


def test_an_export_measures_with_the_normalisation_of_the_training(
    trained: tuple[Path, float], data_root: Path, tmp_path: Path
) -> None:
    trial = opened(defined(trained[0], data_root, tmp_path))
    about, split = tasks.deployment(trial.images), trial.images.split_hash
    found = checks.load(checks.Images(DATASET, data_root, trial.settings, about, split))
    assert found.mean.tolist() == pytest.approx(IMAGENET[0])
    assert found.std.tolist() == pytest.approx(IMAGENET[1])
