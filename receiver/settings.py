"""The settings: read once at the start, checked together, frozen. `receiver/environment.py` alone reads variables."""

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from receiver.environment import PREFIX, read_values, with_secret_files
from receiver.errors import SettingsError
from receiver.key_strength import ADVICE, check_newest_master_key, weakness
from receiver.organization_limits import OrganizationLimits, default_limits
from receiver.setting_values import (
    ANY_ORIGIN,
    MAX_SECONDS,
    check_one_line,
    is_text,
    read_base_url,
    read_delays,
    read_listen_address,
    read_origin,
    read_rate,
    split_list,
    without_driver,
)

_CLIENT_NAMES = frozenset({"RINGBACK_URL"})
"""Read by the command line's client commands only; not an unknown setting where the service finds them."""
_MIN_KEY_CHARACTERS = 16
_MIN_WEBHOOK_SECRET_CHARACTERS = 16
"""Shorter ones still work: the provider's own documentation uses some."""

_PIAPI_URL = "https://api.piapi.ai"
_PIAPI_UPLOAD_URL = "https://upload.theapi.app"
_UPLOAD_PATH = "/api/ephemeral_resource"

_MOST_DAYS = 36_500
"""A hundred years; to keep all is 0."""

_CONFIDENTIAL = "confidential"
"""Marks a setting that has a secret in it and is a plain text nevertheless; those of the type `SecretStr` have one."""

Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]


class Settings(BaseModel):
    """Every setting of the service. The environment and README name each one as `RINGBACK_<NAME>`.

    One that has a secret may be in a file instead, which `RINGBACK_<NAME>_FILE` names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: Annotated[str, _CONFIDENTIAL] = Field(default="sqlite:///ringback.db", repr=False)
    """A SQLite file, or PostgreSQL as `postgresql://user:pass@host/db` (a socket: `...@/db?host=/directory`).

    SQLite by default: it needs no other service. Several processes need PostgreSQL.
    """
    secret_key: SecretStr | None = Field(default=None, validate_default=True)
    """Master keys, comma-separated, oldest first: the last one signs and encrypts, all verify and decrypt.

    Without it, the first start makes a key and keeps it beside the SQLite file. Required on PostgreSQL, where all
    processes must have the same one.
    """
    api_key: SecretStr | None = None
    """An admin key of the organization `default`. Without it, the first start makes one.

    Until that was used, each start prints it on a terminal, or else writes it to a file (`first_key_file`).
    """
    first_key_file: Path | None = None
    """The file, made with mode 0600, that gets the first admin key, also on a terminal.

    By default `<database>.admin-key` beside the SQLite file; with PostgreSQL `ringback.admin-key` in the present
    folder.
    """
    public_url: str | None = None
    """Where providers can reach the service. Without it, tasks are created with no webhook and only polled."""
    piapi_base_url: str = _PIAPI_URL
    """PiAPI's base URL; another one for a proxy or the sandbox."""
    piapi_upload_url: str | None = None
    """Where PiAPI takes uploaded files. By default PiAPI's own host for that, or the base URL where that is another."""
    piapi_api_key: SecretStr | None = None
    """The API key for PiAPI. Without it, PiAPI refuses every task."""
    piapi_unavailable: Literal["not_made", "unknown"] = "not_made"
    """What a 503 of PiAPI's to a create call means: `not_made`, and it is sent again; or `unknown`, like a 500.

    A 503 with the words of a gateway that lost its connection to the server is always `unknown`.
    """
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
    cors_origins: str = ""
    """Origins of web pages, comma-separated, that may call the API from a browser (CORS); `*` for any. None by default.

    An origin is `scheme://host` or `scheme://host:port`.
    """
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
    """A task about which the provider has said nothing for this many seconds fails with `timed_out`.

    A day: longer than any model takes. The time before it is sent does not count, and a poll that the provider answers
    with "processing" is news.
    """
    task_limit_seconds: Seconds = 2_592_000
    """A task that has not changed for this many seconds fails in any case: not sent, not found, or always processing.

    30 days: no provider keeps a task so long, and no task may be without an end.
    """
    provider_rate: str = "10/s"
    """Calls to one provider, from all processes together: a number and a period (`s`, `m`, `h`)."""
    key_rate: str = "1000/s"
    """Requests with one API key, to all processes together, for a key without its own `rate_limit`.

    A number and a period. As many requests as the number may come at once. The default stops only a client that has
    got out of control.
    """
    wrong_key_rate: str = "20/m"
    """Wrong API keys from one address before its further ones get 429: a number and a period.

    An address is an IPv4 address, or the /64 of an IPv6 address. Keys that are right are never slowed.
    """
    organization_limits: str = ""
    """What each organization may use, where the operator has set nothing else for it: `name=value`, comma-separated.

    Such as `webhooks=500,creates_per_second=unlimited`. The names and defaults are in
    `receiver/organization_limits.py`; they stop only what has got out of control.
    """
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1_048_576
    """The largest body of a provider's webhook, in bytes (1 MiB); a larger one gets 413."""
    max_request_bytes: Annotated[int, Field(ge=1024)] = 16_777_216
    """The largest body of an API request, in bytes (16 MiB); a larger one gets 413.

    Enough for the pictures that clients put into inputs as base64.
    """
    max_head_bytes: Annotated[int, Field(ge=8192)] = 65_536
    """The most bytes of a request before its body: request line, URL and headers; more get 431, a longer URL 414.

    Also of what is not payload in a body in chunks. 64 KiB: as much as common proxies let through.
    """
    max_head_fields: Annotated[int, Field(ge=16)] = 100
    """The most header fields of a request; more get 431."""
    first_byte_seconds: Seconds = 30
    """How long a connection may stay without a first request, in seconds."""
    headers_seconds: Seconds = 10
    """The longest time from the first byte of a request to the end of its headers, in seconds; then 408."""
    body_seconds: Seconds = 30
    """How long a body may take, in seconds, and for as long as it keeps to the least rate; then 408.

    While the service itself is not ready to take the body, the time does not count. A body that waits for room
    (`RINGBACK_BODIES_IN_FLIGHT_BYTES`) gets 503 after this time.
    """
    unread_seconds: Seconds = 30
    """A client that reads less of a waiting response in this many seconds than the least rate asks is disconnected."""
    least_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1000
    """Bytes a second, on average: what a slow body or a slow reader must keep to."""
    keepalive_seconds: Seconds = 135
    """How long a connection stays open without a request, in seconds.

    Longer than common proxies keep theirs (60 to 120 s), so that the proxy is the one that closes it: a request that
    is sent while the service closes the connection would be lost.
    """
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """The most connections of clients to one process; a further one gets 503.

    By default 10,000, or what the limit of open files leaves for them.
    """
    max_connections_per_address: Annotated[int, Field(ge=1)] = 1000
    """The most connections to one process from one address (64 bits of IPv6) that is not a trusted proxy."""
    bodies_in_flight_bytes: Annotated[int, Field(ge=1_048_576)] | None = None
    """The most bytes of large request bodies that one process holds at a time; a quarter is for inbound webhooks.

    A body that finds no room waits. By default 256 MiB, or an eighth of the container's memory where that is less.
    Deliveries about tasks of more than 64 KiB may hold half as many besides, and answers that are being made a quarter.
    """
    retry_schedule: str = "0,5,300,1800,7200,18000,36000,50400,72000,86400"
    """Seconds before each delivery attempt, the first one included; as many attempts as there are numbers.

    The default is the schedule that Standard Webhooks recommends: ten attempts in about three days.
    """
    delivery_timeout_seconds: Seconds = 20
    """The longest time of one delivery attempt, in seconds. Standard Webhooks recommends 15 to 30."""
    retention_days: Annotated[int, Field(ge=0, le=_MOST_DAYS)] = 90
    """Finished tasks and runs, events and deliveries older than this many days are purged; 0 keeps all."""
    audit_days: Annotated[int, Field(ge=0, le=_MOST_DAYS)] = 365
    """Entries of the audit log older than this many days are purged; 0 keeps all."""
    submit_wait_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] = 10
    """How long a create request waits for the provider's response, in seconds; then it returns the queued task."""
    submission_unknown_seconds: Seconds = 600
    """A create call whose response was lost is searched for this many seconds at least; then it fails.

    It fails with `submission_unknown` when the provider's list, read to its end after that time, does not have it. Ten
    minutes leave time for a late webhook and for a list that is behind.
    """
    failed_create_seconds: Seconds = 10
    """A create call that the provider answered with an error (a 500) is searched for this many seconds.

    If the provider's complete list does not have the task then, the attempt failed. Long enough for a list that is a
    little behind, short enough for a client that waits.
    """
    missing_polls: Annotated[int, Field(ge=1)] = 3
    """After this many polls in a row that the provider answers with "not found", that is believed: the task fails.

    The error is `provider_lost_task`. A single such answer may be a gateway's, or the task is not visible yet.
    """
    missing_seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] = 120
    """The first of these answers must be at least this many seconds old."""
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
    metrics_address: str | None = None
    """Where metrics and health have a listener of their own: `host:port`, or the path of a Unix socket.

    Then `/metrics` is there alone. Without it, `/metrics` is on the public port.
    """
    metrics_token: SecretStr | None = None
    """The token that `/metrics` requires, as `Authorization: Bearer <token>`. Without it, everybody may read them."""
    actions_file: Path | None = None
    """A TOML file with what the steps of runs may do, by name (`deploy/actions.toml` is an example).

    Without it, a step's action is `model:task_type`.
    """

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

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        check_one_line(value)
        value = without_driver(value)
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
            keys = split_list(value.get_secret_value())
            if not keys or any(len(key) < _MIN_KEY_CHARACTERS for key in keys):
                raise ValueError(f"each master key needs at least {_MIN_KEY_CHARACTERS} characters")
            check_newest_master_key(keys)
        return value

    @field_validator("api_key", "piapi_api_key", "metrics_token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        key = "" if value is None else value.get_secret_value()
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("has a blank or another character that no key in an HTTP header can have; copy it again")
        return value

    @field_validator("api_key")
    @classmethod
    def _long_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_KEY_CHARACTERS:
            raise ValueError(f"needs at least {_MIN_KEY_CHARACTERS} characters")
        if value is not None and (reason := weakness(value.get_secret_value())):
            raise ValueError(f"could be guessed: {reason}; {ADVICE}")
        return value

    @field_validator("public_url", "piapi_base_url", "piapi_upload_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        return None if value is None else read_base_url(value)

    @field_validator("metrics_address")
    @classmethod
    def _known_address(cls, value: str | None) -> str | None:
        if value is not None:
            read_listen_address(value)
        return value

    @field_validator("root_path")
    @classmethod
    def _clean_path(cls, value: str) -> str:
        if value and not value.startswith("/"):
            raise ValueError("must start with /")
        return value.rstrip("/")

    @field_validator("provider_rate", "key_rate", "wrong_key_rate")
    @classmethod
    def _known_rate(cls, value: str) -> str:
        read_rate(value)
        return value

    @field_validator("organization_limits")
    @classmethod
    def _known_limits(cls, value: str) -> str:
        default_limits(value)
        return value

    @field_validator("retry_schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        read_delays(value)
        return value

    @field_validator("allowed_targets")
    @classmethod
    def _known_targets(cls, value: str) -> str:
        for part in split_list(value):
            if "/" in part:
                ip_network(part, strict=False)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, value: str) -> str:
        for part in split_list(value):
            read_origin(part)
        return value

    @cached_property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins of web pages that may call the API, as browsers write them; `("*",)` for any."""
        origins = tuple(map(read_origin, split_list(self.cors_origins)))
        return (ANY_ORIGIN,) if ANY_ORIGIN in origins else origins

    @cached_property
    def provider_calls_per_second(self) -> float:
        """`RINGBACK_PROVIDER_RATE` as calls per second."""
        number, seconds = read_rate(self.provider_rate)
        return number / seconds

    @cached_property
    def key_requests(self) -> tuple[float, float]:
        """`RINGBACK_KEY_RATE` as (number of requests, period in seconds)."""
        return read_rate(self.key_rate)

    @cached_property
    def wrong_key_tries(self) -> tuple[float, float]:
        """`RINGBACK_WRONG_KEY_RATE` as (number of wrong keys, period in seconds)."""
        return read_rate(self.wrong_key_rate)

    @cached_property
    def retry_delays(self) -> tuple[float, ...]:
        """Seconds before each delivery attempt, the first one included."""
        return read_delays(self.retry_schedule)

    @cached_property
    def default_limits(self) -> OrganizationLimits:
        """The limits of an organization for which none are set."""
        return default_limits(self.organization_limits)

    @cached_property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks that the address guard lets through."""
        return tuple(ip_network(part, strict=False) for part in split_list(self.allowed_targets) if "/" in part)

    @cached_property
    def allowed_hosts(self) -> frozenset[str]:
        """The host names (and single addresses) that the address guard lets through."""
        return frozenset(part.lower() for part in split_list(self.allowed_targets) if "/" not in part)

    @property
    def short_webhook_secrets(self) -> list[str]:
        """The names of the settings whose shared webhook secret is so short that it could be guessed."""
        secrets = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_webhook_secret")}
        return [
            _name(name)
            for name, secret in secrets.items()
            if secret is not None and len(secret.get_secret_value()) < _MIN_WEBHOOK_SECRET_CHARACTERS
        ]

    @property
    def metrics_secret(self) -> str | None:
        """The token that `/metrics` requires; None if there is none."""
        return None if self.metrics_token is None else self.metrics_token.get_secret_value()

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


def secret_settings() -> list[str]:
    """Return the names of the settings that have a secret, so that each may be in a file (`<name>_FILE`)."""
    return [_name(field) for field, info in Settings.model_fields.items() if _has_secret(info)]


def load_settings(environment: Mapping[str, str] | None = None, env_file: Path | None = Path(".env")) -> Settings:
    """Read the settings from the environment, and those that it does not have from the file `.env`.

    An empty value counts as not set, and blanks around a value are not part of it. Raises `SettingsError`, which names
    every wrong and every unknown setting.
    """
    given = read_values(environment, env_file)
    values, faults = with_secret_files(given, secret_settings())
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in values.items() if name not in _CLIENT_NAMES}
    settings = None
    try:
        settings = Settings.model_validate(fields)
    except ValidationError as error:
        for fault in error.errors():
            name, message = _name(str(fault["loc"][0])), _fault(fault)
            if (file := given.get(f"{name}_FILE")) is not None:
                name, message = f"{name}_FILE", f"{file}: {message}"
            faults.setdefault(name, message)  # of a setting whose file cannot be read, that is the fault
    if settings is None or faults:
        raise SettingsError("\n".join(f"{name}: {fault}" for name, fault in faults.items()))
    return settings


def client_settings() -> tuple[str, str | None]:
    """Return (`RINGBACK_URL`, `RINGBACK_API_KEY`) for the client commands, from the environment, `.env` or a file.

    Raises `SettingsError`.
    """
    values, faults = with_secret_files(read_values(None, Path(".env")), [_name("api_key")])
    if faults:
        raise SettingsError("\n".join(f"{name}: {fault}" for name, fault in faults.items()))
    return values.get("RINGBACK_URL", "http://127.0.0.1:8080"), values.get("RINGBACK_API_KEY")


def _name(field: str) -> str:
    return PREFIX + field.upper()


def _has_secret(info: FieldInfo) -> bool:
    return _CONFIDENTIAL in info.metadata or SecretStr in (info.annotation, *get_args(info.annotation))


def _fault(fault: Any) -> str:
    """Return what is wrong with one setting. The value is never repeated: it may be a secret."""
    if fault["type"] == "extra_forbidden":
        return "unknown setting; correct the name or remove it"
    return str(fault["msg"].removeprefix("Value error, "))
