"""What all models of answers are made of.

They check nothing while the service runs: they describe what is answered, and the tests check each answer against them.
So a model has every field, and none that is not answered: an answer with another field is a fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

ISO_PATTERN = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"
_SAMPLE_TIME = "2026-01-31T09:30:00.000000Z"


class Answered(BaseModel):
    """The base of the models. A field with the default `absent()` may be missing; all others are always there."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Passed(BaseModel):
    """The base of models of what comes from a provider in part: further fields are possible."""

    model_config = ConfigDict(extra="allow", defer_build=True)


def absent() -> Any:
    """Return the default of a field that may be missing."""
    return Field(default_factory=lambda: None)


Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
"""A UUIDv7."""
Time = Annotated[str, Field(pattern=ISO_PATTERN, json_schema_extra={"format": "date-time", "examples": [_SAMPLE_TIME]})]
"""ISO 8601 in UTC with microseconds."""
UnixSeconds = Annotated[int, Field(examples=[1769851800])]
"""Whole unix seconds."""
Free = dict[str, Any]
"""An object whose form is a client's or a provider's."""


@dataclass(frozen=True, slots=True)
class PageOf:
    """A page of a list, newest first, of items of this model; `more` are fields that it may have besides."""

    item: Any
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Plain(Struct, frozen=True):
    """A JSON body without an envelope."""

    model: Any


class Other(Struct, frozen=True):
    """A body that is no JSON, or not ours, by its media types. `schema` is what is known of it."""

    media_types: tuple[str, ...]
    description: str
    schema: Any = None
