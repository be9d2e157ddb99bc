"""The schema of a study's YAML.

Every default stands here and is shown by ``rssearch plan --verbose``; every error names file, key, value and what is
allowed. The descriptions are the reference of the documentation (`rssearch.config.reference`): each says what a value
means, and its unit. Nothing heavy is imported, so that the command line starts fast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from rssearch.agent.protocol import NAME
from rssearch.config.devices import Device
from rssearch.config.scalars import Integer, Real, meant
from rssearch.config.settings import Section, Settings, or_a_name
from rssearch.config.space import JSON_SCHEMA, Dimension, parse_dimension
from rssearch.errors import shown
from rssearch.storage import uris

__all__ = [
    "Bound",
    "Direction",
    "EarlyStopping",
    "Resources",
    "SamplerName",
    "Search",
    "StudyConfig",
]

Direction = Literal["max", "min"]

_TAKEN = ("store", "mlartifacts")  # beside the studies in a storage; so are mlflow.db and its neighbours
_SEEDS = 2**32 - 1  # the largest seed that all random number generators take


class Bound(Section):
    """Limits of a metric: max, min or both."""

    max: Real | None = Field(None, description="largest value that is allowed, in the unit of the metric; null: any")
    min: Real | None = Field(None, description="smallest value that is allowed, in the unit of the metric; null: any")

    @model_validator(mode="before")
    @classmethod
    def _is_a_mapping(cls, value: Any) -> Any:
        if isinstance(value, Mapping | Bound):
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        limit = shown(value) if number else "5"
        raise ValueError(
            f"{shown(value)} is not allowed: a bound is a mapping, {{max: {limit}}} for at most {limit} or "
            f"{{min: {limit}}} for at least {limit}"
        )

    @model_validator(mode="after")
    def _one_is_given(self) -> Bound:
        if self.max is None and self.min is None:
            raise ValueError("give max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


SamplerName = Literal["grid", "random", "qmc", "tpe", "nsga2", "nsga3", "gp", "cmaes"]


Rule = Literal["none", "asha", "moasha", "front"]


class EarlyStopping(Section):
    """Which trials end before their last epoch. In the YAML also the rule's name alone."""

    model_config = ConfigDict(json_schema_extra=or_a_name(get_args(Rule)))

    rule: Rule = Field(
        "none",
        description="none; asha compares trials by one objective, moasha by all of them; front ends those that could "
        "add next to nothing to the front",
    )
    first: Integer = Field(
        1,
        ge=1,
        description="epochs of the first rung, each further one has `factor` times as many; no trial ends before",
    )
    factor: Integer = Field(3, ge=2, description="at a rung of asha or moasha one in so many trials continues")

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"rule": value} if isinstance(value, str) else value


class Search(Section):
    """How points of the space are proposed and judged."""

    sampler: SamplerName = Field("grid", description="how points are proposed: all of them, or see `rssearch samplers`")
    trials: Integer = Field(60, ge=1, description="number of trials of every sampler but grid")
    seed: Integer = Field(0, ge=0, le=_SEEDS, description="random seed of the sampler")
    objectives: dict[str, Direction] = Field(
        default={"val_accuracy": "max", "macs": "min"},
        min_length=1,
        description="metrics that the front is made of: each is to be large (max) or small (min)",
    )
    constraints: dict[str, Bound] = Field(
        default_factory=dict,
        description="limits of metrics, such as {macs_ratio: {max: 0.6}, val_recall_water: {min: 0.9}}; a trial that "
        "breaks one is infeasible",
    )
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="which trials end before their last epoch")


def _gpus(value: Any) -> Any:
    if value is None:
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "auto" and not (number and (0 <= value < 1 or value == int(value) > 0)):
        raise ValueError(
            f"must be a whole number, a part of one GPU such as 0.5, or auto, not {shown(value)}{meant(value)}"
        )
    return value


class Resources(Section):
    """What one trial takes of the cluster."""

    cpus: Real = Field(1.0, gt=0, description="CPUs of each worker: threads, and readers of images")
    gpus: Annotated[float | Literal["auto"] | None, BeforeValidator(_gpus)] = Field(
        None,
        description="GPUs of each worker: a whole number, or a part of one as 0.5 (two trials share a GPU); "
        "auto: as many trials as its memory holds; null: one where the cluster has any when the study starts, else 0",
    )
    workers: Integer = Field(
        1, ge=1, description="processes that train one trial together, each on its share of every batch"
    )
    max_concurrent: Integer | None = Field(
        None, ge=1, description="trials that run at once, at most; null: as many as the cluster has room for"
    )
    max_failures: Integer = Field(3, ge=0, description="restarts of a trial whose worker died; lost nodes do not count")

    @model_validator(mode="after")
    def _workers_have_whole_gpus(self) -> Resources:
        if self.workers > 1 and (self.gpus == "auto" or 0 < self.share < 1):
            raise ValueError(
                f"workers: {self.workers} need gpus: 0 or a whole number, not {self.gpus}: trials that share a GPU "
                "have one worker"
            )
        return self

    @property
    def share(self) -> float:
        """The GPUs of a worker; those of null and ``auto`` are not known before the study starts, and 0 until then."""
        return 0.0 if self.gpus is None or self.gpus == "auto" else self.gpus


def _dimensions(value: Any) -> Any:
    if not isinstance(value, Mapping) or not value:
        raise ValueError("must be a mapping from a name to a list of choices or a range")
    return {str(name): parse_dimension(str(name), spec) for name, spec in value.items()}


class StudyConfig(Section):
    """A study: one YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    study: str = Field(
        description="name of the study and of its results: 1 to 100 letters, digits, '-', '_' and '.'",
        json_schema_extra={"pattern": "^[A-Za-z0-9_.-]{1,100}$"},
    )
    trial: str = Field(
        description="what one trial does, as package.module:function: trials.prune:run, trials.channel_nas:run, "
        "trials.micronet:run, or a function of your own",
        json_schema_extra={"pattern": "^[^:\\s]+:[^:\\s]+$"},
    )
    space: Annotated[dict[str, Dimension], BeforeValidator(_dimensions), WithJsonSchema(JSON_SCHEMA)] = Field(
        description="what varies between trials: a list of values or a range for each dimension"
    )
    settings: Settings = Field(Settings(), description="what all trials share")
    search: Search = Field(Search(), description="how points of the space are proposed and judged")
    resources: Resources = Field(Resources(), description="what one trial takes of the cluster")
    devices: dict[str, Device] = Field(
        default_factory=dict,
        description="machines that measure trained networks, by name: objectives and constraints may name "
        "latency_ms@NAME, latency_p95_ms@NAME, peak_rss_bytes@NAME and energy_mj@NAME",
    )
    data_root: str = Field("data", description="folder of the datasets")
    storage: str = Field(
        "results",
        description="where results, baselines and checkpoints go: a folder, or a URL such as s3://bucket/results",
    )
    tracking_uri: str | None = Field(
        None, description="MLflow server or database that records the study; null: mlflow.db in the storage"
    )

    @field_validator("study")
    @classmethod
    def _name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value) or value.strip(".") == "":
            raise ValueError(f"a study's name has 1 to 100 letters, digits, '-', '_' and '.', not {shown(value)}")
        if value.lower() in _TAKEN or value.lower().startswith("mlflow.db"):
            raise ValueError(f"{value!r} is the name of something that every storage holds beside its studies")
        return value

    @field_validator("devices")
    @classmethod
    def _device_names(cls, value: dict[str, Device]) -> dict[str, Device]:
        for name in value:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"a device's name has 1 to 32 letters, digits, '-' and '_', not {shown(name)}")
        return value

    @field_validator("trial")
    @classmethod
    def _import_string(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError(f"a trial is named as package.module:function, not {shown(value)}")
        return value

    @field_validator("storage")
    @classmethod
    def _folder_or_url(cls, value: str) -> str:
        if not value or ("://" in value and not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", value)):
            place = shown(uris.masked(value))
            raise ValueError(f"a storage is a folder, or a URL such as s3://bucket/results, not {place}")
        return value

    def resolved(self) -> dict[str, Any]:
        """The whole study with every default, as plain YAML values."""
        plain: dict[str, Any] = self.model_dump(mode="json", exclude={"space"})
        space = {name: dimension.to_yaml() for name, dimension in self.space.items()}
        return {"study": plain.pop("study"), "trial": plain.pop("trial"), "space": space, **plain}

    def masked(self) -> dict[str, Any]:
        """`resolved` without the secrets of URIs, to be shown and written; what they reach cannot be reached by it."""
        known = {name: uris.masked(uri) for name in ("storage", "tracking_uri") if (uri := getattr(self, name))}
        return uris.hidden_in(self.resolved()) | known
