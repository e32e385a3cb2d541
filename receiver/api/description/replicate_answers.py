"""What Replicate's paths answer, in its form (`receiver/api/CONTRACTS.md`, "Replicate")."""

from collections.abc import Sequence
from typing import Any, Literal

from receiver.api.description.event_answers import StandardBody
from receiver.api.description.forms import Answered, Free, Id, Passed, Time, absent


class PredictionUrlsAnswer(Answered):
    """Addresses of a prediction; none in a delivery where the service's own address is not known."""

    get: str = absent()
    cancel: str = absent()
    web: str = absent()
    """The task's page in the dashboard."""


class PredictionAnswer(Answered):
    """A task of any provider as a prediction."""

    id: Id
    model: str
    """As it is named in a create: with its provider, unless that is Replicate."""
    version: str
    """`hidden` where there is none."""
    status: Literal["starting", "processing", "succeeded", "failed", "canceled"]
    input: Free | None
    output: Any
    """Of Replicate's models their own; else the URLs of the files, or what the model answered if it made none."""
    error: str | None
    logs: str
    metrics: Free
    """`predict_time` and `total_time` in seconds, and what the provider says besides."""
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    data_removed: Literal[False]
    source: Literal["api"]
    urls: PredictionUrlsAnswer


class PredictionsAnswer(Answered):
    """A page of predictions, newest first."""

    previous: None
    next: str | None
    """The address of the next page."""
    results: Sequence[PredictionAnswer]


class SigningSecretAnswer(Answered):
    """The secret that signs what is sent to the `webhook` of predictions."""

    key: str


class PredictionAccountAnswer(Answered):
    """The organization of the key."""

    type: Literal["organization"]
    username: str
    name: str


class VersionAnswer(Answered):
    """A version of a model, of which nothing but its id is known."""

    id: str
    created_at: Time
    cog_version: str
    openapi_schema: Free


class Problem(Passed):
    """An error in Replicate's form; `detail` begins with the field that is wrong."""

    title: str
    detail: str
    status: int
    """The HTTP status."""
    code: str = absent()
    """For programs. A provider's own problem has none."""
    retry_after: int = absent()
    """Seconds after which the same request may succeed."""


PredictionBody = PredictionAnswer | StandardBody
"""The body of a delivery in the format `replicate`; the second of an event that is not about a task."""
