"""rssearch.config.reference: the page of all keys, and the JSON schema that editors are given."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from rssearch.config import plain_yaml, shipped
from rssearch.config.loading import parse_study
from rssearch.config.reference import SCHEMA_FILE, json_schema, sections
from rssearch.config.schema import StudyConfig
from rssearch.errors import InputError
from tests.support.commands import study_with

SCHEMA = json_schema()
SHIPPED = shipped.shipped()


@pytest.fixture(scope="module")
def validator() -> jsonschema.protocols.Validator:
    kind = jsonschema.validators.validator_for(SCHEMA)
    kind.check_schema(SCHEMA)
    return kind(SCHEMA)


def test_no_key_is_without_a_description() -> None:
    found = {f"{place}.{name}": key for place, node, _ in sections() for name, key in node["properties"].items()}
    assert len(found) > 80
    assert [name for name, key in found.items() if len(str(key.get("description", ""))) < 10] == []


def test_every_key_of_a_resolved_study_is_on_the_page() -> None:
    listed = {f"{place}.{name}".lstrip(".") for place, node, _ in sections() for name in node["properties"]}

    def keys(value: dict[str, Any], place: str) -> Iterator[str]:
        for name, inner in value.items():
            yield f"{place}{name}"
            if isinstance(inner, dict) and f"{place}{name}" not in ("space", "search.objectives"):
                yield from keys(inner, f"{place}{name}.")

    config = parse_study(study_with({}))
    assert set(keys(config.resolved(), "")) <= listed
    assert {"space.NAME.low", "search.constraints.NAME.max"} <= listed


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_space_keeps_to_the_schema_and_names_it(name: str, validator: jsonschema.protocols.Validator) -> None:
    text = SHIPPED[name].read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(plain_yaml.load(text))] == []
    (path,) = re.findall(r"^# yaml-language-server: \$schema=(\S+)$", text.partition("\n")[0])
    assert (SHIPPED[name].parent / path).resolve() == SCHEMA_FILE.resolve()
    assert SCHEMA_FILE.is_file()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_study_keeps_to_the_schema(name: str, validator: jsonschema.protocols.Validator) -> None:
    config = StudyConfig.model_validate(plain_yaml.load(SHIPPED[name].read_text(encoding="utf-8")))
    assert [error.message for error in validator.iter_errors(config.resolved())] == []


GOOD: dict[str, tuple[str, Any]] = {
    "a published split": ("settings/split", "80/20"),
    "a split in parts": ("settings/split", {"train": 0.6, "val": 0.2, "test": 0.2}),
    "a rule by its name": ("search/early_stopping", "moasha"),
    "a rule with its rungs": ("search/early_stopping", {"rule": "asha", "first": 2}),
    "a fixed value": ("space/rate", 0.5),
    "a choice of kinds": ("space/note", ["a", 1, 0.5, True, None]),
    "a whole range": ("space/seed", {"low": 0, "high": 4}),
    "steps": ("space/rate", {"low": 0.1, "high": 0.9, "step": 0.2}),
    "a log range": ("space/finetune.lr", {"low": 1e-4, "high": 0.1, "log": True, "step": None}),
    "a bound": ("search/constraints", {"macs_ratio": {"max": 0.5}}),
    "a whole number as 1e3": ("search/trials", 1e3),
    "no input size": ("settings/input_size", None),
    "a part of a GPU": ("resources/gpus", 0.5),
    "shared GPUs": ("resources/gpus", "auto"),
    "options": ("settings/model", {"networks": {"unet": {"levels": 3, "rates": [[1, 2]]}}}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_a_study_keeps_to_the_schema(name: str, validator: jsonschema.protocols.Validator) -> None:
    path, value = GOOD[name]
    document = study_with({path: value})
    parse_study(document)
    assert [error.message for error in validator.iter_errors(document)] == []


BAD: dict[str, tuple[str, Any]] = {
    "an unknown key": ("serch", {}),
    "an unknown setting": ("settings/train", {"epoch": 3}),
    "no name": ("study", "a/b"),
    "no function": ("trial", "trials.prune"),
    "an empty space": ("space", {}),
    "an empty choice": ("space/rate", []),
    "a value twice": ("space/rate", [0.5, 0.5]),
    "a list in a choice": ("space/rate", [[0.5]]),
    "a range without its end": ("space/rate", {"low": 0.1}),
    "a range with another key": ("space/rate", {"low": 0.1, "high": 0.5, "steps": 3}),
    "a step of 0": ("space/rate", {"low": 0.1, "high": 0.5, "step": 0}),
    "a log range with a step": ("space/rate", {"low": 0.1, "high": 0.5, "step": 0.1, "log": True}),
    "a log range from 0": ("space/rate", {"low": 0, "high": 0.5, "log": True}),
    "log as a text": ("space/rate", {"low": 0.1, "high": 0.5, "log": "yes"}),
    "a text for a number": ("settings/train", {"epochs": "3"}),
    "a truth for a number": ("settings/train", {"epochs": True}),
    "a part of an epoch": ("settings/train", {"epochs": 2.5}),
    "a share above 1": ("settings/train", {"distill": 1.5}),
    "a learning rate of 0": ("settings/train", {"lr": 0}),
    "no such optimizer": ("settings/train", {"optimizer": "sdg"}),
    "no such split": ("settings/split", "75/25"),
    "a size above the largest": ("settings/input_size", 5000),
    "no objectives": ("search/objectives", {}),
    "a direction": ("search/objectives", {"macs": "down"}),
    "a number for a bound": ("search/constraints", {"macs": 5}),
    "no such rule": ("search/early_stopping", "hyperband"),
    "no such sampler": ("search/sampler", "tpee"),
    "no runtimes": ("settings/latency", {"runtimes": []}),
    "a batch of 0": ("settings/latency", {"batches": [0]}),
    "no section": ("settings", None),
}


@pytest.mark.parametrize("name", BAD)
def test_what_the_schema_refuses_is_no_study(name: str, validator: jsonschema.protocols.Validator) -> None:
    path, value = BAD[name]
    document = study_with({path: value})
    assert not validator.is_valid(copy.deepcopy(document))
    with pytest.raises(InputError):
        parse_study(document)
