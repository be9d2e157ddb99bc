"""What the sections of the YAML's schema have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rssearch.config.scalars import Real

__all__ = ["Section", "Share", "or_a_name"]

Share = Annotated[Real, Field(ge=0, le=1)]


class Section(BaseModel):
    """A mapping of the YAML: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    LATER: ClassVar[frozenset[str]] = frozenset()  # keys that came after the first studies

    def identity(self) -> dict[str, Any]:
        """The section as plain content for keys and checkpoints.

        Keys of the YAML that came later are left out at their defaults: what was computed before they existed is found.
        """
        fields = type(self).model_fields
        plain = {
            name for name in self.LATER if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        }
        return self.model_dump(mode="json", exclude=plain)


def or_a_name(names: Iterable[str]) -> Callable[[dict[str, Any]], None]:
    """Tell the JSON schema of a section that one of these names may stand in its place."""

    def extend(schema: dict[str, Any]) -> None:
        section = dict(schema)
        schema.clear()
        schema |= {"anyOf": [section, {"enum": list(names)}]}

    return extend
