"""Of the database and what is kept in it, and of the installation's keys."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from receiver.key_strength import ADVICE, check_newest_master_key, weakness
from receiver.setting_values import check_one_line, split_list, without_driver
from receiver.settings.group import CONFIDENTIAL, HeaderKey, SecondsOrZero, SettingsGroup

_MIN_KEY_CHARACTERS = 16
_MOST_DAYS = 36_500
"""A hundred years; to keep all is 0."""


class DatabaseSettings(SettingsGroup):
    """Of the database and what is kept in it, and of the installation's keys."""

    database_url: Annotated[str, CONFIDENTIAL] = Field(default="sqlite:///ringback.db", repr=False)
    """A SQLite file, or PostgreSQL as `postgresql://user:pass@host/db` (a socket: `...@/db?host=/directory`).

    SQLite by default: it needs no other service. Several processes need PostgreSQL.
    """
    start_wait_seconds: SecondsOrZero = 60
    """How long a start, and `ringback migrate`, wait for a PostgreSQL that is away or has no current schema yet.

    In seconds; 0 does not wait. What does not pass by itself, such as a wrong password, is not waited for.
    """
    secret_key: SecretStr | None = Field(default=None, validate_default=True)
    """Master keys, comma-separated, oldest first: the last one signs and encrypts, all verify and decrypt.

    Without it, the first start makes a key and keeps it beside the SQLite file. Required on PostgreSQL, where all
    processes must have the same one.
    """
    allow_unreadable_secrets: bool = False
    """Whether to start although secrets or headers of webhooks are encrypted with a master key that is missing.

    Only for a key that is lost for good: deliveries to these webhooks fail until they have new secrets and headers.
    """
    api_key: HeaderKey = None
    """An admin key of the organization `default`. Without it, the first start makes one.

    Until that was used, each start prints it on a terminal, or else writes it to a file (`first_key_file`).
    """
    first_key_file: Path | None = None
    """The file, made with mode 0600, that gets the first admin key, also on a terminal.

    By default `<database>.admin-key` beside the SQLite file; with PostgreSQL `ringback.admin-key` in the present
    folder.
    """
    writer_queue: Annotated[int, Field(ge=1)] = 4096
    """How many writes may wait for the database; a further one gets 503 with `Retry-After`.

    The default is about a second of work, so that a write which is accepted is also soon written.
    """
    optimistic_writes: bool = True
    """Whether, on PostgreSQL, creates, webhooks and outcomes of deliveries are first tried without locks.

    A batch of them is one statement. What has changed meanwhile is done again with locks, and with `false` everything
    is at once.
    """
    retention_days: Annotated[int, Field(ge=0, le=_MOST_DAYS)] = 90
    """Finished tasks and runs, events and deliveries older than this many days are purged; 0 keeps all."""
    audit_days: Annotated[int, Field(ge=0, le=_MOST_DAYS)] = 365
    """Entries of the audit log older than this many days are purged; 0 keeps all."""

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

    @field_validator("api_key")
    @classmethod
    def _long_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < _MIN_KEY_CHARACTERS:
            raise ValueError(f"needs at least {_MIN_KEY_CHARACTERS} characters")
        if value is not None and (reason := weakness(value.get_secret_value())):
            raise ValueError(f"could be guessed: {reason}; {ADVICE}")
        return value

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file."""
        return self.database_url.startswith("sqlite:///")

    @property
    def sqlite_path(self) -> Path:
        """The path of the SQLite file. Ask `is_sqlite` first."""
        assert self.is_sqlite  # noqa: S101 - the caller asked
        return Path(self.database_url.removeprefix("sqlite:///"))
