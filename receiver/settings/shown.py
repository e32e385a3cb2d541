"""The settings as a log may show them: those that are not default, without secrets."""

import re
from typing import Any

from pydantic import SecretStr

from receiver.settings.loading import Settings, setting_name

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>[^?#]*)")
SET = "set"
"""Stands for the value of a secret."""


def changed_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that are not default, by name: each value as text, a secret's as `set`."""
    fields = type(settings).model_fields
    values = {name: getattr(settings, name) for name in fields}
    default = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return {setting_name(name): _shown(value) for name, value in values.items() if value != default[name]}


def _shown(value: Any) -> str:
    if isinstance(value, dict):  # accounts: of each the names of its fields
        return ", ".join(f"{name} ({', '.join(fields)})" for name, fields in value.items())
    if isinstance(value, SecretStr):
        return SET
    return _without_password(str(value))


def _without_password(url: str) -> str:
    """Return a URL without its password and its query, which may have one too; other text as it is."""
    found = _URL.match(url)
    if found is None:
        return url
    who, at, where = found["rest"].rpartition("@")
    if not at and "@" in url:  # a password with a sign that ends the part of a URL before it
        return SET
    return f"{found['scheme']}{who.partition(':')[0]}{at}{where}"
