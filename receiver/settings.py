"""The settings: read once at the start, checked together, frozen. No other module reads `RINGBACK_*` variables."""

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
"""Read by the command line's client commands only; not an unknown setting where the service finds them."""
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MIN_KEY_CHARACTERS = 16

_PIAPI_URL = "https://api.piapi.ai"
_PIAPI_UPLOAD_URL = "https://upload.theapi.app"
_UPLOAD_PATH = "/api/ephemeral_resource"

_MAX_SECONDS = 10 * 365 * 86400.0
"""Ten years: a longer time is a typing error."""

Seconds = Annotated[float, Field(gt=0, le=_MAX_SECONDS, allow_inf_nan=False)]


class Settings(BaseModel):
    """Every setting of the service. The environment and README name each one as `RINGBACK_<NAME>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str = "sqlite:///ringback.db"
    """A SQLite file, or PostgreSQL as `postgresql://user:pass@host/db` (a socket: `...@/db?host=/directory`).

    SQLite by default: it needs no other service. Several processes need PostgreSQL.
    """
    secret_key: SecretStr | None = Field(default=None, validate_default=True)
    """Master keys, comma-separated, oldest first: the last one signs and encrypts, all verify and decrypt.

    Without it, the first start makes a key and keeps it beside the SQLite file. Required on PostgreSQL, where all
    processes must have the same one.
    """
    api_key: SecretStr | None = None
    """An admin key of the organization `default`. Without it, the first start makes one and prints it once."""
    public_url: str | None = None
    """Where providers can reach the service. Without it, tasks are created with no webhook and only polled."""
    piapi_base_url: str = _PIAPI_URL
    """PiAPI's base URL; another one for a proxy or the sandbox."""
    piapi_upload_url: str | None = None
    """Where PiAPI takes uploaded files. By default PiAPI's own host for that, or the base URL where that is another."""
    piapi_api_key: SecretStr | None = None
    """The API key for PiAPI. Without it, PiAPI refuses every task."""
    piapi_webhook_secret: SecretStr | None = None
    """The shared secret for webhooks (to `/hooks/piapi`) of tasks that were created elsewhere.

    Without it, such webhooks are refused.
    """
    allow_private_targets: bool = False
    """Whether subscribers may be http and on private or loopback addresses.

    `false` by default: an API client could otherwise make the service call addresses inside its network.
    """
    allowed_targets: str = ""
    """Networks (CIDR) and host names, comma-separated, that the address guard lets through. None by default."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses, comma-separated, whose `X-Forwarded-*` headers are trusted. By default a proxy on this machine."""
    root_path: str = ""
    """The path prefix under which a reverse proxy serves the service, such as `/ringback`. None by default."""
    poll_first_seconds: Seconds = 15
    """Seconds from the last update of a task to its first poll. Each further wait is half as long again.

    15 s, so that a task whose webhooks arrive is rarely polled.
    """
    poll_max_seconds: Seconds = 300
    """The longest wait between two polls of a task, in seconds: how late a lost webhook is noticed at most."""
    task_timeout_seconds: Seconds = 86400
    """A task with no update for this many seconds fails with `timed_out`. A day: longer than any model takes."""
    provider_rate: str = "10/s"
    """Calls to one provider, from all processes together: a number and a period (`s`, `m`, `h`)."""
    key_rate: str = "1000/s"
    """Requests with one API key to each process, for a key without its own `rate_limit`.

    A number and a period. As many requests as the number may come at once. The default stops only a client that has
    got out of control.
    """
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    """The largest body that is accepted, in bytes (1 MiB); a larger one gets 413."""
    retry_schedule: str = "0,5,300,1800,7200,18000,36000,50400,72000,86400"
    """Seconds before each delivery attempt, the first one included; as many attempts as there are numbers.

    The default is the schedule that Standard Webhooks recommends: ten attempts in about three days.
    """
    delivery_timeout_seconds: Seconds = 20
    """The longest time of one delivery attempt, in seconds. Standard Webhooks recommends 15 to 30."""
    retention_days: Annotated[int, Field(ge=0)] = 90
    """Finished tasks and runs, events and deliveries older than this many days are purged; 0 keeps all."""
    submit_wait_seconds: Annotated[float, Field(ge=0, le=_MAX_SECONDS, allow_inf_nan=False)] = 10
    """How long a create request waits for the provider's response, in seconds; then it returns the queued task."""
    submission_unknown_seconds: Seconds = 600
    """A create call whose response was lost is searched for this many seconds; then it fails.

    The error is `submission_unknown`. Ten minutes leave time for a late webhook and for a slow provider history.
    """
    provider_timeout_seconds: Seconds = 30
    """The time limit of each phase of a call to a provider, in seconds; connecting has 5 at most."""
    forward_timeout_seconds: Seconds = 300
    """How long a request that is passed on to a provider (chat, pictures, speech) may go without a byte of the answer.

    Five minutes: a picture can take that long, and a provider sends nothing before it is made.
    """
    writer_queue: Annotated[int, Field(ge=1)] = 4096
    """How many writes may wait for the database; a further one gets 503 with `Retry-After`.

    The default is about a second of work, so that a write which is accepted is also soon written.
    """
    log_format: Literal["text", "json"] = "text"
    """The form of the log records on standard error: `text` for people, `json` for programs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log records that are written; `debug` has one for each delivery attempt."""
    actions_file: Path | None = None
    """A TOML file with what the steps of runs may do, by name (`deploy/actions.toml` is an example).

    Without it, a step's action is `model:task_type`.
    """

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
                "is required on PostgreSQL, and must be the same for all processes; make one: openssl rand -hex 32"
            )
        if value is not None:
            keys = _split(value.get_secret_value())
            if not keys or any(len(key) < _MIN_KEY_CHARACTERS for key in keys):
                raise ValueError(f"each master key needs at least {_MIN_KEY_CHARACTERS} characters")
        return value

    @field_validator("api_key")
    @classmethod
    def _long_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_KEY_CHARACTERS:
            raise ValueError(f"needs at least {_MIN_KEY_CHARACTERS} characters")
        return value

    @field_validator("public_url", "piapi_base_url", "piapi_upload_url")
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
        if not delays or not all(0 <= delay <= _MAX_SECONDS for delay in delays):
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
        """`RINGBACK_PROVIDER_RATE` as calls per second."""
        number, seconds = _read_rate(self.provider_rate)
        return number / seconds

    @cached_property
    def key_requests(self) -> tuple[float, float]:
        """`RINGBACK_KEY_RATE` as (number of requests, period in seconds)."""
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
    def upload_url(self) -> str:
        """The base URL of the provider's file uploads."""
        default = _PIAPI_UPLOAD_URL if self.piapi_base_url == _PIAPI_URL else self.piapi_base_url
        return (self.piapi_upload_url or default).removesuffix(_UPLOAD_PATH)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite:///")

    @property
    def sqlite_path(self) -> Path:
        """The path of the SQLite file. Ask `is_sqlite` first."""
        assert self.is_sqlite  # noqa: S101 - the caller asked
        return Path(self.database_url.removeprefix("sqlite:///"))


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from the environment, and those that it does not have from the file `.env`.

    An empty value counts as not set. Raises `SettingsError`, which names every wrong and every unknown setting.
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
    """Return what is wrong with one setting. The value is never repeated: it may be a secret."""
    name = PREFIX + str(fault["loc"][0]).upper()
    if fault["type"] == "extra_forbidden":
        return f"{name}: unknown setting; correct the name or remove it"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"


def _read_rate(value: str) -> tuple[float, float]:
    match = _RATE.fullmatch(value)
    assert match is not None  # noqa: S101 - the validator has checked it
    return float(match[1]), _PERIODS[match[2]]


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]
