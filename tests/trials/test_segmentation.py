"""Pruning studies on segmentation sets: what a trial measures, and what is refused before it starts."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from rssearch import bundle
from rssearch.config.loading import override_settings, parse_study
from rssearch.config.settings import Settings
from rssearch.errors import InputError
from rssearch.report.recorded import Recorded
from rssearch.study.definition import StudyDefinition
from rssearch.study.run import search
from rssearch.trial.interface import PREDICTIONS
from rssearch.trial.session import Context, Session
from rssearch.trials import baselines, keys, prune, tasks
from rssearch.trials.pruning_trial import PruningTrial

POINT = {"dataset": "segmentation_folder:scenes", "model": "unet", "method": "l1", "macs_ratio": 0.5, "seed": 0}
RECIPE = {"epochs": 2, "batch_size": 8, "lr": 0.05}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes of bright blocks on dark ground, not all of them a multiple of the patches."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "scenes" / kind).mkdir(parents=True)
    for number in range(8):
        mask = rng.integers(0, 2, (9, 9), dtype=np.uint8).repeat(4, 0).repeat(4, 1)[:32, : 32 + number % 3]
        pixels = 60 + 120 * mask[..., None] + rng.integers(0, 40, (*mask.shape, 3))
        mask[:2] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(root / "scenes" / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "scenes" / "masks" / f"{number}.png")
    (root / "scenes" / "classes.json").write_text(json.dumps(["ground", "roof"]))
    return root


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(
        {
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
            "patches": {"size": 16},
            "model": {
                "networks": {
                    "unet": {"base": 8, "levels": 2, "batch_norm": True},
                    "micronet": {"base": 16, "rates": [1, 2], "levels": 2},
                }
            },
            "train": RECIPE,
            "finetune": RECIPE | {"lr": 0.01},
            "augment": {"crop": 2},
            "pruning": {"score_batches": 2, "score_batch_size": 8},
        }
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


def session(storage: Path, root: Path, local: Settings, point: dict[str, Any], key: str) -> Session:
    return Session(Context("s", str(storage), str(root), local), key, point)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"method": "lfp"},
        {"method": "bn_scale"},
        {"method": "none"},
        {"method": "channel_nas"},
        {"method": "sfp"},
        {"model": "micronet", "method": "taylor"},
        {"model": "micronet", "finetune.distill": 0.5},
        {"pruning.steps": 2},
    ],
    ids=lambda change: "-".join(map(str, change.values())) or "plain",
)
def test_a_trial_measures_miou_and_keeps_its_promise_of_cost(
    storage: Path, data_root: Path, settings: Settings, change: dict[str, Any]
) -> None:
    point = POINT | change
    prune.check(point, settings)
    run_in = session(storage, data_root, settings, point, "-".join(map(str, change.values())) or "plain")
    before = prune.cost(point, run_in)
    result = prune.run(point, run_in)
    assert set(tasks.metrics("segmentation")) - {"val_miou_foreground"} <= set(result)  # there is no background
    assert not [name for name in result if name.endswith("val_accuracy")]
    assert {"baseline_val_miou", "baseline_val_pixel_accuracy"} <= set(result)
    assert before == {name: result[name] for name in before}
    if point["method"] != "none":
        assert result["macs_ratio"] == pytest.approx(0.5, rel=0.01)
    assert {"val_miou", "val_pixel_accuracy", "val_loss"} <= set(result["history"][-1])
    measured = prune.measure(point, run_in)
    picture = run_in.store.get(PREDICTIONS, run_in.key)
    assert picture is not None
    assert Image.open(io.BytesIO(picture["predictions.png"])).format == "PNG"
    assert {"test_miou", "test_pixel_accuracy", "latency_ms"} <= set(measured)
    assert 0 <= measured["test_miou"] <= measured["test_pixel_accuracy"] <= 1
    again = prune.measure(point, run_in)
    assert again["test_miou"] == measured["test_miou"]


def test_without_a_test_split_the_picture_is_of_the_validation_split(
    tmp_path: Path, data_root: Path, settings: Settings
) -> None:
    local = override_settings(settings, {"split.train": 0.75, "split.test": 0.0})
    run_in = session(tmp_path, data_root, local, POINT, "k")
    trial = PruningTrial.open(POINT, run_in)
    picture = tasks.picture(trial.build_model(), trial.images, 8, run_in.device)
    assert picture is not None
    assert len(trial.images.indices["test"]) == 0


def test_the_costs_are_those_of_a_patch(storage: Path, data_root: Path, settings: Settings) -> None:
    small = prune.cost(POINT, session(storage, data_root, settings, POINT, "k"))
    large_settings = override_settings(settings, {"patches.size": 32})
    large = prune.cost(POINT, session(storage, data_root, large_settings, POINT, "k"))
    assert large["baseline_macs"] == 4 * small["baseline_macs"]
    assert large["baseline_params"] == small["baseline_params"]


def test_the_plan_probes_a_step_on_masks(storage: Path, data_root: Path, settings: Settings) -> None:
    assert prune.estimate(POINT, session(storage, data_root, settings, POINT, "k"), 3) > 0


def test_the_baseline_records_the_metrics_of_segmentation(storage: Path, data_root: Path, settings: Settings) -> None:
    _, metrics, _ = baselines.baseline(PruningTrial.open(POINT, session(storage, data_root, settings, POINT, "k")))
    assert {"val_miou", "val_pixel_accuracy", "val_loss"} <= set(metrics)
    assert "val_accuracy" not in metrics


def test_the_bundle_predicts_a_scene(
    storage: Path,
    data_root: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_in = session(storage, data_root, settings, POINT, "plain")
    result = prune.run(POINT, run_in) | prune.measure(POINT, run_in)
    folder = tmp_path / "results" / "scenes"
    folder.mkdir(parents=True)
    document = {
        "study": "scenes",
        "trial": "trials.prune:run",
        "space": {name: [value] for name, value in POINT.items()},
        "settings": settings.model_dump(mode="json"),
        "data_root": str(data_root),
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    found = Recorded("scenes", folder, storage, {"val_miou": "max"}, {}, [], [])
    row = {**POINT, **{n: v for n, v in result.items() if n != "history"}, "key": run_in.key}
    path = bundle.export(found, row, tmp_path / "net", int8=True)

    measured = json.loads((path / "measured.json").read_text())
    assert (measured["parity"]["source"], measured["split"]) == ("images of segmentation_folder:scenes", "test")
    assert (measured["images"], measured["unit"]) == (result["test_images"], "scenes") == (2, "scenes")
    quality = measured["quality"]
    assert quality["recorded"] == {name: result[f"test_{name}"] for name in ("miou", "pixel_accuracy")}
    assert quality["model.onnx"] == pytest.approx(quality["recorded"], abs=1e-3)  # a pixel on the border of two classes
    assert quality["model.int8.onnx"] == pytest.approx(quality["recorded"], abs=0.1)
    card = (path / "model_card.md").read_text()
    for text in (
        "A network that gives each pixel of an RGB scene one of 2 classes",
        f"| Test mIoU | {100 * result['test_miou']:.1f} % |",
        "of 16 x 16",
        "[batch, 2, 16, 16]",
    ):
        assert text in card
    about = json.loads((path / "preprocessing.json").read_text())
    assert about["tiles"] == {"size": 16, "overlap": 4}
    codes = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(codes) == 2
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(data_root / "scenes" / "images" / "1.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "image.png", "JPEG", exif=turned)
    monkeypatch.chdir(tmp_path)
    labels = []
    for code in codes:
        names: dict[str, Any] = {}
        exec(compile(code.replace("PATH/OF/THIS/FOLDER", str(path)), "card", "exec"), names)
        labels.append(np.asarray(names["labels"]))
        assert labels[-1].shape == (32, 33)
        shares = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
        assert sum(shares) == pytest.approx(1)
    assert (labels[0] == labels[1]).mean() > 0.999  # a pixel on the border of two classes
    with torch.inference_mode():
        assert bundle.load(path)(torch.zeros(1, 3, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": "resnet20"},
            "space.model: 'resnet20' is a network for classification, but 'segmentation_folder:scenes' needs one for "
            "segmentation: micronet, miniaturized_net, unet",
        ),
        ({"dataset": "eurosat"}, "space.model: 'unet' is a network for segmentation, but 'eurosat' needs one for"),
        (
            {"dataset": "synthetic_building"},
            "unknown dataset 'synthetic_building'. Did you mean 'synthetic_buildings'?",
        ),
        ({"dataset": "eurosat", "model": "resnet20"}, "settings.patches: 'eurosat' is a dataset for classification"),
        ({"augment.crop": 16}, "settings.augment.crop: 16 must be less than settings.patches.size, 16"),
        ({"patches.overlap": 16}, "settings.patches: overlap 16 must be less than size 16"),
        ({"model.networks.unet.base": 0}, "space.model: unet: base is 0, but must be a whole number of at least 1"),
        ({"model.networks.unet.bass": 8}, "model 'unet' has no option 'bass' (8); it has: base,"),
        ({"model.networks.unett": {"base": 8}}, "settings.model.networks: unknown model 'unett'. Did you mean 'unet'?"),
        ({"model.networks.micronet.rates": []}, "settings.model.networks: micronet:"),
        ({"model.stem": "small"}, "space.model: model 'unet' has no option 'stem' ('small')"),
        (
            {"model": "micronet", "method": "bn_scale"},
            "'bn_scale' reads the scales of batch normalisation, and 'micronet'",
        ),
        (
            {"model": "smp:fpn/resnet18"},
            "space.model, with settings.patches.size: 16: smp:fpn/resnet18 does not run on an image of 3x16x16: ",
        ),
        ({"method": "cap"}, "space.method: attention can be inserted into"),
    ],
)
def test_check_refuses(change: dict[str, Any], message: str, settings: Settings) -> None:
    with pytest.raises(InputError) as caught:
        prune.check(POINT | change, settings)
    assert message in str(caught.value)


def test_check_refuses_to_scale_scenes(settings: Settings) -> None:
    scaled = settings.model_copy(update={"input_size": 64})
    with pytest.raises(
        InputError, match=r"^settings\.input_size: must be null for dataset '.*:scenes', not 64: scenes"
    ):
        prune.check(POINT, scaled)


def study(point: dict[str, Any], search: dict[str, Any], settings: dict[str, Any] | None = None) -> StudyDefinition:
    space = {name: [value] for name, value in point.items()}
    document = {"study": "s", "trial": "trials.prune:run", "space": space, "search": search, "settings": settings or {}}
    return StudyDefinition(parse_study(document))


@pytest.mark.parametrize(
    ("point", "search", "message"),
    [
        (
            POINT,
            {},
            "search.objectives.val_accuracy: 'segmentation_folder:scenes' is a dataset for segmentation, whose trials "
            "report val_miou, val_pixel_accuracy, val_macro_f1, .*; "
            "set search.objectives: {val_miou: max, macs: min}",
        ),
        (
            POINT,
            {"objectives": {"val_miou": "max"}, "constraints": {"val_accuracy": {"min": 0.5}}},
            "search.constraints.val_accuracy: ",
        ),
        (
            POINT | {"dataset": "synthetic_scenes", "model": "resnet20"},
            {"objectives": {"val_miou": "max", "macs": "min"}},
            "search.objectives.val_miou: 'synthetic_scenes' is a dataset for classification, whose trials report "
            "val_accuracy, .*; set search.objectives: {val_accuracy: max, macs: min}",
        ),
        (
            POINT,
            {"objectives": {"val_mio": "max"}},
            "search.objectives.val_mio: unknown metric 'val_mio'. Did you mean",
        ),
    ],
)
def test_objectives_of_another_task_are_refused(point: dict[str, Any], search: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(point, search)


def test_objectives_of_the_task_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "fingerprint", lambda *_: "f")
    objectives = {"val_miou": "max", "val_pixel_accuracy": "max", "macs": "min"}
    assert len(study(POINT, {"objectives": objectives}).points) == 1


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_of_networks_and_methods_from_end_to_end(tmp_path: Path) -> None:
    recipe = {"epochs": 1, "batch_size": 16}
    config = parse_study(
        {
            "study": "s",
            "trial": "trials.prune:run",
            "space": {
                "dataset": ["synthetic_buildings"],
                "model": ["unet", "micronet"],
                "method": ["none", "l1", "lfp", "channel_nas"],
                "macs_ratio": [0.5],
            },
            "settings": {
                "patches": {"size": 64},
                "model": {
                    "networks": {
                        "unet": {"base": 8, "levels": 2, "batch_norm": True},
                        "micronet": {"base": 16, "rates": [1, 2], "levels": 2, "batch_norm": True},
                    }
                },
                "train": recipe,
                "finetune": recipe,
            },
            "search": {"objectives": {"val_miou": "max", "macs": "min"}},
            "storage": str(tmp_path),
        }
    )
    text = io.StringIO()
    assert search(config, address="local", console=Console(file=text, width=200)) == 0, text.getvalue()
    with (tmp_path / "s" / "trials.csv").open() as file:
        trials = {(row["model"], row["method"]): row for row in csv.DictReader(file)}
    assert len(trials) == 8
    assert {row["status"] for row in trials.values()} == {"finished"}
    for (_, method), row in trials.items():
        assert 0 < float(row["val_miou"]) <= float(row["val_pixel_accuracy"]) <= 1
        expected = 1 if method == "none" else pytest.approx(0.5, rel=0.01)
        assert float(row["macs_ratio"]) == expected
    assert len({row["baseline_val_miou"] for row in trials.values()}) == 2  # one baseline for each network
    (front,) = json.loads((tmp_path / "s" / "front.json").read_text())["fronts"]
    pictures = {path.stem for path in (tmp_path / "s" / "predictions").iterdir()}
    assert pictures == {member["key"] for member in front["members"]}
    assert {baseline["model"] for baseline in front["baselines"]} == {"unet", "micronet"}
