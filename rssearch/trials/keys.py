"""The content keys under which trials share images, baselines, scores and channel searches."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from rssearch import models, pruning
from rssearch.config.settings import Settings, Split
from rssearch.config.space import content_key
from rssearch.data import split_file
from rssearch.trials import normalisation
from rssearch.trials.images import fingerprint
from rssearch.trials.point import SLIMMABLE, PruningPoint

# Where they lie in the store, each by its key.
BASELINES, SCORES, SEARCHES, SENSITIVITIES = "baselines", "scores", "searches", "sensitivities"
SLIMMABLES, STRUCTURES = "slimmables", "structures"
FINETUNED = "finetuned"
# Raise a number when that part computes something else than before: what the old code computed is then not reused.
CODE = {"data": 1, "train": 2, "score": 2, "search": 1, "cut": 2}
_CUT_AS_BEFORE = {"uniform", "joint"}  # what cut 2 changed nothing of: it is about floors and means of rankings
# The same, in the keys of those trials alone that need it.
SENSITIVITY_CODE = 1
SLIMMABLE_CODE = 1
INT8_CODE = 2


_AFTERWARDS = {"qat", "latency", "keep_models", "memory_share", "download"}  # settings that training knows nothing of


class Keys:
    """The keys of one point, and what determines them; each is computed once.

    Args:
        point: resolved.
        data_root: folder of the datasets.
    """

    def __init__(self, point: PruningPoint, data_root: Path) -> None:
        self.point, self.data_root = point, data_root

    @cached_property
    def fingerprint(self) -> str:
        """The content of the dataset."""
        return fingerprint(self.point.dataset, str(self.data_root), self.point.settings.download)

    @cached_property
    def data_inputs(self) -> dict[str, Any]:
        """What determines an image set."""
        point, settings = self.point, self.point.settings
        in_patches = point.task == "segmentation"
        return {
            "dataset": point.dataset,
            "fingerprint": self.fingerprint,
            "input_size": settings.input_size,
            "split": _division(settings.split),
            "on_error": settings.on_error,
            **({"patches": settings.patches.model_dump(mode="json")} if in_patches else {}),
            **_given(settings, ("bands", "band_names", "scale", "nodata")),
            "code": CODE["data"],
        }

    @cached_property
    def data(self) -> str:
        """The name of the image set among a study's shared objects."""
        return content_key(self.data_inputs)

    @cached_property
    def baseline_inputs(self) -> dict[str, Any]:
        """What determines a baseline."""
        return self._training_inputs | {
            "recipe": self.point.train_recipe.identity(),
            "code": CODE["train"],
        }

    @cached_property
    def baseline(self) -> str:
        """The key of the baseline."""
        return content_key(self.baseline_inputs)

    @cached_property
    def baseline_id(self) -> str:
        """The same for the baselines of all seeds."""
        return content_key({name: value for name, value in self.baseline_inputs.items() if name != "seed"})

    @property
    def baseline_member(self) -> str:
        """The name of the baseline among the members of a front."""
        return f"baseline-{self.baseline}"

    @cached_property
    def scores(self) -> str:
        """The key of the baseline's scores by the point's method."""
        point, settings = self.point, self.point.settings.pruning
        needs_data = pruning.get_method(point.method_name).needs_data
        return content_key(
            {
                "baseline": self.baseline,
                "method": point.method_name,
                "options": point.method_options,
                "batches": [settings.score_batches, settings.score_batch_size] if needs_data else None,
                "code": CODE["score"],
                **user_code(method=point.method_name),
            }
        )

    @cached_property
    def sensitivities(self) -> str:
        """The key of the baseline's sensitivities by the ranking of the point's method."""
        settings = self.point.settings.pruning
        batches = [settings.score_batches, settings.score_batch_size]
        return content_key({"scores": self.scores, "batches": batches, "code": SENSITIVITY_CODE})

    @cached_property
    def search_inputs(self) -> dict[str, Any]:
        """What determines a channel search."""
        settings = self.point.settings
        return self._training_inputs | {
            "recipe": settings.train.identity(),
            "nas": settings.nas.model_dump(mode="json") | {"target": self.point.target},
            "code": CODE["search"],
        }

    @cached_property
    def search(self) -> str:
        """The key of the channel search."""
        return content_key(self.search_inputs)

    def slimmable_inputs(self, stage: int) -> dict[str, Any]:
        """What determines a stage of a cascade, counted from 1; or, as stage 0, a sandwich."""
        settings = self.point.settings.slimmable
        names = {"form", "epochs", "lr", "floor", "held_out", "spread"}
        names |= {"images", "population", "generations"} if stage else {"structures", "budgets"}
        return {
            "before": self.slimmable(stage - 1) if stage > 1 else self.baseline,
            "recipe": self.point.settings.train.identity(),
            "slimmable": settings.model_dump(mode="json", include=names) | {"distill": settings.distillation},
            **({"budget": settings.budgets[stage - 1]} if stage else {}),
            "limits": self._limits,
            "code": SLIMMABLE_CODE,
        }

    @property
    def _limits(self) -> dict[str, Any]:
        """What structures keep to."""
        point, limits = self.point, self.point.settings.pruning
        return {
            "round_to": point.round_to,
            "min_channels": limits.min_channels,
            "groups": point.groups,
            "keep": limits.keep,
        }

    def slimmable(self, stage: int) -> str:
        """The key of a stage, or of the sandwich, see `slimmable_inputs`."""
        return content_key(self.slimmable_inputs(stage))

    @property
    def structures(self) -> str:
        """The key of the structures that were judged of a sandwich."""
        names = {"images", "population", "generations"}
        search = self.point.settings.slimmable.model_dump(mode="json", include=names)
        return content_key({"slimmable": self.slimmable(0), **search})

    @cached_property
    def finetuned(self) -> str:
        """Of the fine-tuned network that trials share which differ in their precision alone."""
        values = {name: value for name, value in self.point.values.items() if name != "precision"}
        settings = self.point.settings.model_dump(mode="json", exclude=_AFTERWARDS)
        return content_key({"point": values, "settings": settings, "more": self._before_deployment})

    def identity(self) -> dict[str, Any]:
        """What determines a trial besides its point and settings."""
        rounded = self.point.precision in ("int8", "int8_qat")
        return self._before_deployment | ({"int8_code": INT8_CODE} if rounded else {})

    @property
    def _before_deployment(self) -> dict[str, Any]:
        """The same of the network before it is converted to another precision."""
        own = user_code(self.point.model, self.point.method_name)
        point = self.point
        as_before = point.method is None or point.allocation in _CUT_AS_BEFORE
        code = CODE | ({"cut": 1} if as_before else {})
        if point.needs_sensitivities:
            own |= {"sensitivity": SENSITIVITY_CODE}
        if point.method_name == SLIMMABLE:
            own |= {"slimmable_code": SLIMMABLE_CODE}
        return {"data": self.fingerprint, "code": code, **self._weights, **self._normalisation, **own}

    @cached_property
    def _training_inputs(self) -> dict[str, Any]:
        return {
            "data": self.data_inputs,
            "model": self.point.model,
            "options": self._options,
            "augment": self.point.settings.augment.identity(),
            "seed": self.point.seed,
            **self._normalisation,
            **user_code(self.point.model),
        }

    @property
    def _options(self) -> dict[str, Any]:
        """Those of the network, with the content of a file of weights in place of its name."""
        return self.point.options | self._weights

    @property
    def _weights(self) -> dict[str, Any]:
        digest = self.point.weights_sha256
        return {} if digest is None else {"weights": f"sha256:{digest}"}

    @property
    def _normalisation(self) -> dict[str, Any]:
        """What images are normalised by, where it is not the dataset's own mean and deviation."""
        by = normalisation.of_point(self.point)
        return {} if by is None else {"normalize": by.key()}


def _given(settings: Settings, names: Iterable[str]) -> dict[str, Any]:
    """Those of some settings that are not at their default: the keys of before they existed stay."""
    values = settings.model_dump(mode="json", include=set(names))
    return {name: value for name, value in values.items() if value is not None}


def _division(split: Split) -> dict[str, Any]:
    """The settings of a division, with what a file of it says in place of its name."""
    settings = split.model_dump(mode="json", exclude={"file", "sha256"})
    digest = split_file.digest_of(split)
    return settings if digest is None else settings | {"file": f"sha256:{digest}"}


def user_code(model: str | None = None, method: str | None = None) -> dict[str, Any]:
    """What a key holds of user-defined code: nothing where networks and methods are those of the registries."""
    sources = {"model": model and models.code_of(model), "method": method and pruning.code_of(method)}
    given = {name: code for name, code in sources.items() if code}
    return {"own_code": given} if given else {}  # the name is part of the keys on disk
