"""What all groups of settings have in common: their base class, types and validators."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

from receiver.setting_values import MAX_SECONDS, check_one_line, is_text, read_rate

CONFIDENTIAL = "confidential"
"""Marks a setting that has a secret in it and is a plain text nevertheless; those of the type `SecretStr` have one."""

Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


def checked_by(read: Callable[[str], object]) -> AfterValidator:
    """Return a validator that refuses a value for which `read` raises `ValueError`, and keeps the text as it is."""

    def check(value: str) -> str:
        read(value)
        return value

    return AfterValidator(check)


def _check_sendable(value: SecretStr | None) -> SecretStr | None:
    """Return a key that an HTTP header can have. Raises `ValueError`."""
    key = "" if value is None else value.get_secret_value()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("has a blank or another character that no key in an HTTP header can have; copy it again")
    return value


HeaderKey = Annotated[SecretStr | None, AfterValidator(_check_sendable)]
Rate = Annotated[str, checked_by(read_rate)]
"""A number and a period, such as `10/s`."""


class SettingsGroup(BaseModel):
    """The base of the classes that `Settings` is made of, each a group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # built once, with the whole

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        if isinstance(value, str) and not is_text(value):
            raise ValueError("must be a text in UTF-8")
        return value

    @field_validator("*")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        if isinstance(value, SecretStr):
            check_one_line(value.get_secret_value())
        return value
