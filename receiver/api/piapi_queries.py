"""Schemas of the queries of PiAPI's lists. They accept what PiAPI's clients send in several ways.

Source: `receiver/providers/piapi/CONTRACT.md`, "Lists and account".
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from receiver.api.schemas import ShortName, Timestamp

_LATEST_SECONDS = 1e11
"""Unix seconds in the year 5138. A greater number is a time in milliseconds, or in smaller units."""


def _in_seconds(value: Any) -> Any:
    """Return unix milliseconds, microseconds or nanoseconds as seconds; any other value unchanged."""
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return text
    seconds = float(text)
    for _ in range(3):
        if seconds >= _LATEST_SECONDS:
            seconds /= 1000
    return seconds


UnixOrISO = Annotated[Timestamp, BeforeValidator(_in_seconds)]
"""A time as unix seconds, milliseconds and so on, or as ISO 8601."""


class _Query(BaseModel):
    model_config = ConfigDict(defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        """Leave out what is empty: a form sends every field that it has."""
        return {name: value for name, value in values.items() if value != ""} if isinstance(values, Mapping) else values


class HistoryQuery(_Query):
    """The query of `GET /api/open/tasks/histories`. `model` is a family, a model, `all`, or nothing."""

    page: Annotated[int, Field(ge=1, le=100_000)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = Field(
        default=10, validation_alias=AliasChoices("page_size", "size", "pageSize", "limit")
    )
    model: str = ""
    start_time: UnixOrISO | None = None
    end_time: UnixOrISO | None = None


class CancelQuery(_Query):
    """The query of `DELETE /api/v1/tasks`: both are required."""

    created_before: UnixOrISO
    model: ShortName
