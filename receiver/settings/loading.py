"""The settings: read once at the start, checked together, frozen. `receiver/environment.py` alone reads variables."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from receiver.environment import PREFIX, read_values, with_secret_files
from receiver.errors import SettingsError
from receiver.settings.clients import ClientSettings
from receiver.settings.connections import ConnectionSettings
from receiver.settings.dashboard import DashboardSettings
from receiver.settings.database import DatabaseSettings
from receiver.settings.group import CONFIDENTIAL
from receiver.settings.providers import ProviderSettings
from receiver.settings.subscribers import SubscriberSettings
from receiver.settings.watching import WatchingSettings

_CLIENT_NAMES = frozenset({"RINGBACK_URL"})
"""Read by the command line's client commands only; not an unknown setting where the service finds them."""
_ACCOUNT_FIELD = re.compile(r"provider_(?P<provider>[a-z0-9]+)_(?P<field>[a-z][a-z0-9_]*)")
"""A setting of a provider's account, such as `provider_fal_api_key`."""
_MIN_WEBHOOK_SECRET_CHARACTERS = 16
"""Shorter ones still work: the provider's own documentation uses some."""


# pydantic takes the fields, and so names the faults, from the last base to the first.
class Settings(
    WatchingSettings,
    DashboardSettings,
    ConnectionSettings,
    ClientSettings,
    SubscriberSettings,
    ProviderSettings,
    DatabaseSettings,
):
    """Every setting of the service. The environment and README name each one as `RINGBACK_<NAME>`.

    One that has a secret may be in a file instead, which `RINGBACK_<NAME>_FILE` names.
    """

    @property
    def short_webhook_secrets(self) -> list[str]:
        """The names of the settings whose shared webhook secret is so short that it could be guessed."""
        secrets = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_webhook_secret")}
        return [
            setting_name(name)
            for name, secret in secrets.items()
            if secret is not None and len(secret.get_secret_value()) < _MIN_WEBHOOK_SECRET_CHARACTERS
        ]


def secret_settings() -> list[str]:
    """Return the names of the settings that have a secret, so that each may be in a file (`<name>_FILE`)."""
    return [setting_name(field) for field, info in Settings.model_fields.items() if _has_secret(info)]


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from the environment, and those that it does not have from the file `.env`.

    An empty value counts as not set, and blanks around a value are not part of it. Raises `SettingsError`, which names
    every wrong and every unknown setting.
    """
    given = read_values(environment, env_file)
    values, faults = with_secret_files(given, [*secret_settings(), *_account_settings(given)])
    fields: dict[str, Any] = {
        name.removeprefix(PREFIX).lower(): value for name, value in values.items() if name not in _CLIENT_NAMES
    }
    fields |= {"provider_accounts": _take_accounts(fields)}
    settings = None
    try:
        settings = Settings.model_validate(fields)
    except ValidationError as error:
        for fault in error.errors():
            name, message = setting_name(str(fault["loc"][0])), _fault(fault)
            if (file := given.get(f"{name}_FILE")) is not None:
                name, message = f"{name}_FILE", f"{file}: {message}"
            faults.setdefault(name, message)  # of a setting whose file cannot be read, that is the fault
    if settings is None or faults:
        raise SettingsError("\n".join(f"{name}: {fault}" for name, fault in faults.items()))
    return settings


def _account_settings(given: Mapping[str, str]) -> list[str]:
    """Return the names of the settings of providers' accounts that are given, be it as files."""
    names = {name.removesuffix("_FILE") for name in given}
    return [name for name in sorted(names) if _account_field(name.removeprefix(PREFIX).lower()) is not None]


def _take_accounts(fields: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Take the settings of providers' accounts out of all settings; return them by provider and field."""
    accounts: dict[str, dict[str, str]] = {}
    for name in sorted(fields):
        if (found := _account_field(name)) is not None:
            accounts.setdefault(found["provider"], {})[found["field"]] = fields.pop(name)
    return accounts


def _account_field(name: str) -> "re.Match[str] | None":
    return None if name in Settings.model_fields else _ACCOUNT_FIELD.fullmatch(name)


def given_log_format() -> str:
    """Return the format of the log, also where other settings are wrong: for the error that says so."""
    try:
        return read_values(None, Path(".env")).get(setting_name("log_format"), "text")
    except SettingsError:
        return "text"


def client_settings() -> tuple[str, str | None]:
    """Return (`RINGBACK_URL`, `RINGBACK_API_KEY`) for the client commands, from the environment, `.env` or a file.

    Raises `SettingsError`.
    """
    values, faults = with_secret_files(read_values(None, Path(".env")), [setting_name("api_key")])
    if faults:
        raise SettingsError("\n".join(f"{name}: {fault}" for name, fault in faults.items()))
    return values.get("RINGBACK_URL", "http://127.0.0.1:8080"), values.get("RINGBACK_API_KEY")


def setting_name(field: str) -> str:
    """Return the name of a setting in the environment."""
    return PREFIX + field.upper()


def _has_secret(info: FieldInfo) -> bool:
    return CONFIDENTIAL in info.metadata or SecretStr in (info.annotation, *get_args(info.annotation))


def _fault(fault: Any) -> str:
    """Return what is wrong with one setting. The value is never repeated: it may be a secret."""
    if fault["type"] == "extra_forbidden":
        return "unknown setting; correct the name or remove it"
    return str(fault["msg"].removeprefix("Value error, "))
