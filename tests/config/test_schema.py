"""rssearch.config: the schema of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rssearch.config import plain_yaml
from rssearch.config.loading import load_study, override_settings, parse_assignment, parse_study
from rssearch.config.settings import SPLITS, Settings
from rssearch.errors import InputError

MINIMAL: dict[str, Any] = {"study": "s", "trial": "trials.prune:run", "space": {"rate": [0.3]}}


def test_only_three_keys_are_required() -> None:
    study = parse_study(MINIMAL)
    assert study.search.sampler == "grid"
    assert study.search.objectives == {"val_accuracy": "max", "macs": "min"}
    assert study.storage == "results"


def test_resolved_holds_every_default_and_reads_back_equal() -> None:
    study = parse_study(MINIMAL)
    again = parse_study(yaml.safe_load(yaml.safe_dump(study.resolved())))
    assert again == study
    assert study.resolved()["settings"]["train"]["momentum"] == 0.9


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_published_splits(name: str) -> None:
    split = parse_study(MINIMAL | {"settings": {"split": name}}).settings.split
    train = int(name.split("/", maxsplit=1)[0]) / 100
    assert split.train + split.val == pytest.approx(train)
    assert split.test == pytest.approx(1 - train)
    assert split.val == pytest.approx(train / 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"serch": {}}, "serch: unknown key. Did you mean 'search'?"),
        ({"study": "a/b"}, "study: a study's name has"),
        ({"trial": "trials.prune"}, "trial: a trial is named as package.module:function"),
        ({"space": {}}, "space: must be a mapping"),
        ({"space": {"rate": []}}, "space: rate: the list is empty"),
        ({"settings": {"train": {"epoch": 3}}}, "settings.train.epoch: unknown key. Did you mean 'epochs'?"),
        ({"settings": {"train": {"epochs": "many"}}}, "settings.train.epochs: 'many' is not allowed"),
        ({"settings": {"train": {"lr": 0}}}, "settings.train.lr: 0 is not allowed: input should be greater than 0"),
        ({"settings": {"train": {"optimizer": "sdg"}}}, "'sdg' is not allowed. Did you mean 'sgd'?"),
        ({"settings": {"split": "75/25"}}, "settings.split: no published split is called '75/25'"),
        ({"settings": {"split": {"train": 0.9}}}, "train + val + test must be 1, not 1.2"),
        ({"settings": {"split": {"train": 0.8, "val": 0.0, "test": 0.2}}}, "train and val must be above 0"),
        ({"search": {"sampler": "tpee"}}, "Did you mean 'tpe'?"),
        ({"search": {"objectives": {}}}, "search.objectives"),
        ({"search": {"objectives": {"macs": "down"}}}, "Allowed: max, min."),
        ({"search": {"constraints": {"macs": {}}}}, "search.constraints.macs: give max, min or both"),
        ({"search": {"constraints": {"macs": {"min": 2, "max": 1}}}}, "min 2 is above max 1"),
        (
            {"search": {"constraints": {"macs_ratio": 0.5}}},
            "search.constraints.macs_ratio: 0.5 is not allowed: a bound is a mapping, {max: 0.5} for at most 0.5 or "
            "{min: 0.5} for at least 0.5",
        ),
        ({"search": {"constraints": {"macs": 5}}}, "5 is not allowed: a bound is a mapping, {max: 5} for at most 5"),
        ({"search": {"constraints": {"macs": "<= 5"}}}, "'<= 5' is not allowed: a bound is a mapping, {max: 5}"),
        ({"search": {"constraints": {"macs": True}}}, "True is not allowed: a bound is a mapping"),
        ({"resources": {"cpus": 0}}, "resources.cpus: 0 is not allowed"),
        ({"storage": "s3://"}, "storage: a storage is a folder, or a URL such as s3://bucket/results, not 's3://'"),
        ({"settings": {"train": {"nesterov": True, "momentum": 0}}}, "nesterov needs optimizer: sgd"),
        (
            {"settings": {"train": {"class_weights": "balance"}}},
            "settings.train.class_weights: 'balance' is not allowed: must be balanced, or numbers above 0 as a list or "
            "by the classes' names",
        ),
        ({"settings": {"train": {"class_weights": {}}}}, "settings.train.class_weights: {} is not allowed: must be"),
        (
            {"settings": {"train": {"class_weights": {"a": "2"}}}},
            "settings.train.class_weights: '2' is not allowed: the weight of a class must be a number above 0; write 2 "
            "without quotes",
        ),
        ({"settings": {"finetune": {"class_weights": [1, 0]}}}, "finetune.class_weights: 0 is not allowed: the weight"),
        (
            {"settings": {"train": {"class_weights": "balanced", "sampling": "balanced"}}},
            "settings.train: class_weights and sampling would both balance the classes, so twice: choose one of them",
        ),
        (
            {"settings": {"train": {"loss": "dice", "label_smoothing": 0.1}}},
            "settings.train: label_smoothing is a part of the cross entropy, which loss: dice has not; take "
            "dice_cross_entropy",
        ),
        ({"settings": {"train": {"loss": "dise"}}}, "settings.train.loss: 'dise' is not allowed. Did you mean 'dice'?"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_study(MINIMAL | change, "my.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.yaml: ")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        parse_study({"study": "a b", "space": {"rate": []}})
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["study", "trial", "space"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "imagenett",
            "'imagenett' is not allowed. Did you mean 'imagenet'? Allowed: dataset, imagenet, weights, none or ",
        ),
        (0.5, ": 0.5 is not allowed. Allowed: dataset, imagenet, weights, none or {mean, std}."),
        ([0.5], ": [0.5] is not allowed. Allowed: dataset, imagenet, weights, none or {mean, std}."),
        ({"mean": [0.5]}, ".std: is required"),
        ({"mean": 0.5, "std": [0.5]}, ".mean: 0.5 is not allowed: must be a list"),
        ({"mean": ["a"], "std": [0.5]}, ".mean.0: 'a' is not allowed: must be a number"),
        ({"mean": [0, 0], "std": [1]}, ": mean has 2 numbers, and std 1"),
        ({"means": [0], "mean": [0], "std": [1]}, ".means: unknown key. Did you mean 'mean'? Allowed here: mean, std."),
    ],
)
def test_a_name_or_a_section_is_refused_in_one_line(value: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_study(MINIMAL | {"settings": {"normalize": value}})
    (line,) = str(error.value).splitlines()
    assert line.startswith("study: settings.normalize")
    assert message in line
    with pytest.raises(InputError) as error:
        override_settings(Settings(), {"normalize": value})
    assert str(error.value) == line.removeprefix("study: ")


def test_a_mistake_beside_a_name_or_a_section_stays() -> None:
    with pytest.raises(InputError) as error:
        parse_study(MINIMAL | {"settings": {"normalize": "a", "literal[": 1, "input_size": 2}})
    assert len(str(error.value).splitlines()) == 3


def test_files_that_are_no_study(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    with pytest.raises(InputError, match="cannot be read"):
        load_study(path)
    path.write_text("a: [1")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_study(path)
    path.write_text("- 1")
    with pytest.raises(InputError, match="must be a mapping"):
        load_study(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="cannot be read"):
        load_study(path)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("study: s\ntrial: a:b\nspace: {train.lr: [1e-3, 2E+2, '1e-3']}\n")
    assert load_study(path).space["train.lr"].to_yaml() == [0.001, 200.0, "1e-3"]


def test_set_replaces_values_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | {"space": {"finetune.lr": [0.1], "rate": [0.5]}}))
    texts = ["settings.train.epochs=2", "space.rate=[0.1, 0.2]", "space.finetune.lr=[1e-2]", "data_root=/d"]
    study = load_study(path, dict(parse_assignment(text) for text in texts))
    assert study.settings.train.epochs == 2
    assert study.space["rate"].to_yaml() == [0.1, 0.2]
    assert study.space["finetune.lr"].to_yaml() == [0.01]
    assert study.data_root == "/d"


@pytest.mark.parametrize("text", ["epochs", "=3", "a..b=1", "a b=1", "a=[1"])
def test_bad_assignments(text: str) -> None:
    with pytest.raises(InputError, match="--set"):
        parse_assignment(text)


def test_set_below_a_value_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    with pytest.raises(InputError, match="'study' is no mapping"):
        load_study(path, {"study.name": "x"})


def test_dotted_dimensions_override_settings() -> None:
    settings = override_settings(Settings(), {"finetune.lr": 0.5, "pruning.round_to": 8})
    assert (settings.finetune.lr, settings.pruning.round_to) == (0.5, 8)
    assert settings.train == Settings().train
    with pytest.raises(InputError, match=r"settings.finetune.lrr: unknown key. Did you mean 'lr'"):
        override_settings(Settings(), {"finetune.lrr": 0.5})


def test_options_of_single_networks_come_before_those_of_all() -> None:
    model = {"shortcut": "A", "networks": {"resnet56": {"shortcut": "B"}, "micronet": {"rates": [[1, 2], [1, 1]]}}}
    options = parse_study(MINIMAL | {"settings": {"model": model}}).settings.model
    assert options.given("resnet20") == {"shortcut": "A"}
    assert options.given("resnet56") == {"shortcut": "B"}
    assert options.given("micronet") == {"shortcut": "A", "rates": [[1, 2], [1, 1]]}
    silent = parse_study(MINIMAL | {"settings": {"model": model | {"networks": {"resnet20": {"shortcut": None}}}}})
    assert silent.settings.model.given("resnet20") == {}  # its own default


def test_a_dimension_may_be_an_option_of_one_network() -> None:
    settings = parse_study(MINIMAL | {"settings": {"model": {"networks": {"unet": {"levels": 3}}}}}).settings
    changed = override_settings(settings, {"model.networks.unet.base": 16})
    assert changed.model.given("unet") == {"levels": 3, "base": 16}


def test_options_of_networks_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(InputError, match=r"settings\.model\.networks\.unet: 16 is not allowed"):
        parse_study(MINIMAL | {"settings": {"model": {"networks": {"unet": 16}}}})


@pytest.mark.parametrize(
    "value",
    ["010", "1:30", "1e-3", "yes", "2020-01-01", "=", "1_000", "0x10", ".inf", "", "~", "12", "é", "<<", "!x", "a: b"],
)
def test_texts_are_written_so_that_every_reader_takes_them_for_texts(value: str) -> None:
    text = plain_yaml.dump({"a": value})
    assert plain_yaml.load(text) == yaml.safe_load(text) == {"a": value}


@pytest.mark.parametrize("value", [1e-3, 1e5, 1.5, 1e-300, 1e300, 3, 1 - 2**63, True, None, [], {}])
def test_other_values_are_read_as_they_were_written(value: Any) -> None:
    text = plain_yaml.dump({"a": value})
    assert plain_yaml.load(text) == yaml.safe_load(text) == {"a": value}


def test_numbers_are_plain_decimals() -> None:
    text = "[1e-3, 2E+2, .5, 1., -3, +4, 0, 12e03, 08, 1:30, 1_0, 0x1, 1e3, ! 5]"
    expected = [0.001, 200.0, 0.5, 1.0, -3, 4, 0, 12000.0, "08", "1:30", "1_0", "0x1", 1000.0, 5]
    assert plain_yaml.load(text) == expected


def test_a_whole_number_may_be_written_as_1e3() -> None:
    assert parse_study(MINIMAL | {"search": {"trials": 1e3}}).search.trials == 1000


def test_merged_keys_are_read() -> None:
    assert plain_yaml.load("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}
