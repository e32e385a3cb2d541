"""The settings: read once, checked together, frozen. Nothing else reads the environment."""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator

from receiver.errors import SettingsError

PREFIX = "RINGBACK_"
_CLIENT_NAMES = frozenset({"RINGBACK_URL"})
"""Read by the command line's client commands, and no fault where the service finds them."""
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SHORTEST_KEY = 16

_LONGEST = 10 * 365 * 86400.0
"""Ten years, in seconds: what is longer is a slip of the keyboard."""

Seconds = Annotated[float, Field(gt=0, le=_LONGEST, allow_inf_nan=False)]


class Settings(BaseModel):
    """Every setting of the service; `contracts` and README name them as `RINGBACK_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str = "sqlite:///ringback.db"
    secret_key: SecretStr | None = Field(default=None, validate_default=True)
    """Master keys, comma-separated, oldest first: the last signs, all verify."""
    api_key: SecretStr | None = None
    public_url: str | None = None
    piapi_base_url: str = "https://api.piapi.ai"
    piapi_api_key: SecretStr | None = None
    piapi_webhook_secret: SecretStr | None = None
    allow_private_targets: bool = False
    allowed_targets: str = ""
    trusted_proxies: str = "127.0.0.1"
    root_path: str = ""
    poll_first_seconds: Seconds = 15
    poll_max_seconds: Seconds = 300
    task_timeout_seconds: Seconds = 86400
    provider_rate: str = "10/s"
    key_rate: str = "1000/s"
    """Requests with one API key that has no limit of its own, to each process; so many may come at once."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    retry_schedule: str = "0,5,300,1800,7200,18000,36000,50400,72000,86400"
    delivery_timeout_seconds: Seconds = 20
    retention_days: Annotated[int, Field(ge=0)] = 90
    submit_wait_seconds: Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False)] = 10
    """How long a create call waits for the provider's own answer."""
    submission_unknown_seconds: Seconds = 600
    """How long a submission with no answer is looked for before it fails."""
    provider_timeout_seconds: Seconds = 30
    """Each phase of a call to a provider; connecting has at most 5."""
    writer_queue: Annotated[int, Field(ge=1)] = 4096
    """How many writes may wait before the answer is 503."""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log records that are written; `debug` has one for each attempt at a delivery."""
    actions_file: Path | None = None
    """What the steps of runs may do, by name; see `receiver.domain.actions`."""

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_keys(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None and not info.data.get("database_url", "sqlite:").startswith("sqlite:"):
            raise ValueError(
                "is required on PostgreSQL, and the same for all processes; make one: openssl rand -hex 32"
            )
        if value is not None:
            keys = _split(value.get_secret_value())
            if not keys or any(len(key) < _SHORTEST_KEY for key in keys):
                raise ValueError(f"each master key needs at least {_SHORTEST_KEY} characters")
        return value

    @field_validator("api_key")
    @classmethod
    def _long_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _SHORTEST_KEY:
            raise ValueError(f"needs at least {_SHORTEST_KEY} characters")
        return value

    @field_validator("public_url", "piapi_base_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        return value.rstrip("/")

    @field_validator("root_path")
    @classmethod
    def _clean_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must start with /")
        return value.rstrip("/")

    @field_validator("provider_rate", "key_rate")
    @classmethod
    def _known_rate(cls, value: str) -> str:
        match = _RATE.fullmatch(value)
        if match is None or float(match[1]) <= 0:
            raise ValueError("must be a number and a period, such as 10/s, 600/m or 1000/h")
        return value

    @field_validator("retry_schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        try:
            delays = [float(part) for part in _split(value)]
        except ValueError:
            delays = []
        if not delays or not all(0 <= delay <= _LONGEST for delay in delays):
            raise ValueError("must be seconds, comma-separated, such as 0,5,300")
        return value

    @field_validator("allowed_targets")
    @classmethod
    def _known_targets(cls, value: str) -> str:
        for part in _split(value):
            if "/" in part:
                ip_network(part, strict=False)
        return value

    @cached_property
    def provider_calls_per_second(self) -> float:
        """`RINGBACK_PROVIDER_RATE` as calls a second."""
        number, seconds = _read_rate(self.provider_rate)
        return number / seconds

    @cached_property
    def key_requests(self) -> tuple[float, float]:
        """`RINGBACK_KEY_RATE` as so many requests in so many seconds."""
        return _read_rate(self.key_rate)

    @cached_property
    def retry_delays(self) -> tuple[float, ...]:
        """Seconds before each delivery attempt, the first one included."""
        return tuple(float(part) for part in _split(self.retry_schedule))

    @cached_property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that the address guard lets through."""
        return tuple(ip_network(part, strict=False) for part in _split(self.allowed_targets) if "/" in part)

    @cached_property
    def allowed_hosts(self) -> frozenset[str]:
        """The host names (and single addresses) that the address guard lets through."""
        return frozenset(part.lower() for part in _split(self.allowed_targets) if "/" not in part)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite:///")

    @property
    def sqlite_path(self) -> Path:
        """The SQLite file; only for a database that is one."""
        assert self.is_sqlite  # noqa: S101 - the caller asked
        return Path(self.database_url.removeprefix("sqlite:///"))


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from the environment and, for what is not there, from the file `.env`.

    Raises `SettingsError` that names every wrong and every unknown setting at once.
    """
    values = {name: value for name, value in _read_file(env_file).items() if name.startswith(PREFIX)}
    source = os.environ if environment is None else environment
    values.update({name: value for name, value in source.items() if name.startswith(PREFIX)})
    fields = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in values.items()
        if name not in _CLIENT_NAMES and value != ""
    }
    try:
        return Settings.model_validate(fields)
    except ValidationError as error:
        raise SettingsError("\n".join(_fault(fault) for fault in error.errors())) from None


def client_settings() -> tuple[str, str | None]:
    """Return (`RINGBACK_URL`, `RINGBACK_API_KEY`) for the client commands, from the environment or `.env`."""
    values = {**_read_file(Path(".env")), **os.environ}
    return values.get("RINGBACK_URL") or "http://127.0.0.1:8080", values.get("RINGBACK_API_KEY") or None


def _read_file(env_file: Path | None) -> dict[str, str]:
    if env_file is None or not env_file.is_file():
        return {}
    return {name: value for name, value in dotenv_values(env_file).items() if value is not None}


def _fault(fault: Any) -> str:
    """Say what is wrong with one setting. Never repeats the value: it may be a secret."""
    name = PREFIX + str(fault["loc"][0]).upper()
    if fault["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"


def _read_rate(value: str) -> tuple[float, float]:
    match = _RATE.fullmatch(value)
    assert match is not None  # noqa: S101 - the validator saw to it
    return float(match[1]), _PERIODS[match[2]]


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
