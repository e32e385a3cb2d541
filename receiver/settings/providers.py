"""Of providers: how they are reached, and when a task is polled, searched for and given up."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from receiver.setting_values import read_base_url, read_rate
from receiver.settings.group import HeaderKey, Rate, Seconds, SecondsOrZero, SettingsGroup

_PIAPI_URL = "https://api.piapi.ai"
_PIAPI_UPLOAD_URL = "https://upload.theapi.app"
_UPLOAD_PATH = "/api/ephemeral_resource"


class ProviderSettings(SettingsGroup):
    """Of providers: how they are reached, and when a task is polled, searched for and given up."""

    public_url: str | None = None
    """Where providers can reach the service. Without it, tasks are created with no webhook and only polled."""
    piapi_base_url: str = _PIAPI_URL
    """PiAPI's base URL; another one for a proxy or the sandbox."""
    piapi_upload_url: str | None = None
    """Where PiAPI takes uploaded files. By default PiAPI's own host for that, or the base URL where that is another."""
    piapi_api_key: HeaderKey = None
    """The API key for PiAPI. Without it, PiAPI refuses every task."""
    piapi_unavailable: Literal["not_made", "unknown"] = "not_made"
    """What a 503 of PiAPI's to a create call means: `not_made`, and it is sent again; or `unknown`, like a 500.

    A 503 with the words of a gateway that lost its connection to the server is always `unknown`.
    """
    piapi_webhook_secret: SecretStr | None = None
    """The shared secret for webhooks (to `/hooks/piapi`) of tasks that were created elsewhere.

    Without it, such webhooks are refused.
    """
    provider_accounts: dict[str, dict[str, SecretStr]] = Field(default_factory=dict)
    """The accounts at other providers: for each provider its credentials, and `base_url` where it is another.

    The environment names them one by one: `RINGBACK_PROVIDER_FAL_API_KEY`.
    """
    providers_dir: Path | None = None
    """A folder with TOML files that describe further providers, or others in place of those that ship.

    `ringback provider check FILE` says what is wrong with one; a fault stops the start.
    """
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
    stuck_seconds: SecondsOrZero = 21_600
    """A task that has not changed for this many seconds is told by a `task.stuck` event; 0 tells of none.

    Six hours: longer than a busy provider lets a task wait, and long before the task is given up.
    """
    provider_rate: Rate = "10/s"
    """Calls to one provider, from all processes together: a number and a period (`s`, `m`, `h`)."""
    submit_wait_seconds: SecondsOrZero = 10
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
    missing_seconds: SecondsOrZero = 120
    """The first of these answers must be at least this many seconds old."""
    provider_timeout_seconds: Seconds = 30
    """The time limit of each phase of a call to a provider, in seconds; connecting has 5 at most."""
    forward_timeout_seconds: Seconds = 300
    """How long a request that is passed on to a provider (chat, pictures, speech) may go without a byte of the answer.

    Five minutes: a picture can take that long, and a provider sends nothing before it is made.
    """
    actions_file: Path | None = None
    """A TOML file with what the steps of runs may do, by name (`deploy/actions.toml` is an example).

    Without it, a step's action is `model:task_type`.
    """

    @field_validator("public_url", "piapi_base_url", "piapi_upload_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        return None if value is None else read_base_url(value)

    @cached_property
    def provider_calls_per_second(self) -> float:
        """`RINGBACK_PROVIDER_RATE` as calls per second."""
        number, seconds = read_rate(self.provider_rate)
        return number / seconds

    @property
    def upload_url(self) -> str:
        """The base URL of the provider's file uploads."""
        default = _PIAPI_UPLOAD_URL if self.piapi_base_url == _PIAPI_URL else self.piapi_base_url
        return (self.piapi_upload_url or default).removesuffix(_UPLOAD_PATH)
