"""Schemas of what Replicate's clients send. Source: `receiver/api/CONTRACTS.md`, "Replicate"."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, StringConstraints

from receiver.api.schemas import Few, Object, RequestFields, Timestamp

_FIRST = datetime.min.replace(tzinfo=UTC)


def _not_streamed(value: Any) -> Any:
    if value is True:  # the client would find no stream of what it pays for by then
        raise ValueError("nothing is streamed: leave it out, and read the output at the end")
    return value


class CreatePrediction(RequestFields):
    """`POST /v1/models/{owner}/{name}/predictions`: the model is in the path."""

    model_config = ConfigDict(extra="forbid")

    input: Object
    """What the model takes, in its provider's own form."""
    webhook: str | None = None
    """A URL that is called with the prediction; "" for none."""
    webhook_completed: str | None = None
    """The same, for the end alone: an older name of Replicate's."""
    webhook_events_filter: Annotated[list[Literal["start", "output", "logs", "completed"]], Few] | None = None
    """When `webhook` is called; by default when there is an output and at the end."""
    stream: Annotated[Literal[False] | None, BeforeValidator(_not_streamed)] = None
    """Nothing is streamed."""


class CreateVersionPrediction(CreatePrediction):
    """`POST /v1/predictions`: `version` names the model, and its provider where that is not Replicate."""

    version: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400)]
    """A version's id, `owner/name`, `owner/name:version`, or `provider:model@task_type`."""


class PredictionQuery(RequestFields):
    """The query of `GET /v1/predictions`."""

    cursor: str | None = None
    """Where the page begins, from the `next` of the page before."""
    created_after: Timestamp | None = None
    """This time too, as at Replicate."""
    created_before: Timestamp | None = None

    @property
    def from_then(self) -> datetime | None:
        """The last moment before `created_after`."""
        given = self.created_after
        return given if given is None or given <= _FIRST else given - _FIRST.resolution
