"""Schemas of what clients send for runs and jobs."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from models import RunStatus
from receiver.api.schemas import Few, Metadata, Object, Page, ProviderName, RequestFields, Retry, WaitQuery
from receiver.domain.graph import MOST_STEPS, STEP_ATTEMPTS, OnFailure, StepSpec, check_count


class StepRetry(Retry):
    """How a step is retried when the provider fails it."""

    max_attempts: Annotated[int, Field(ge=1, le=5)] = STEP_ATTEMPTS


_AS_A_STEP = StepRetry()


class CreateStep(RequestFields):
    """One step of a run, which is checked within its graph too."""

    model_config = ConfigDict(extra="forbid")

    id: str
    """Its name in the run, at most 64 characters."""
    action: str
    """`model:task_type`, or the name of an action in the service's actions file."""
    provider: ProviderName | None = None
    """Whose task API makes it, if not the one that the action names; `input` has that provider's own form."""
    input: Object = Field(default_factory=dict)
    input_map: Annotated[dict[str, str], Few] = Field(default_factory=dict)
    """Values of the input that are results of other steps: `$steps.<id>.result.<path>`."""
    depends_on: Annotated[list[str], Few] = Field(default_factory=list)
    """The steps that have to complete before."""
    on_failure: OnFailure = OnFailure.STOP
    """Whether steps that do not depend on it still begin when it has failed."""
    # The same for all, for a default itself would be copied for each step.
    retry: StepRetry = Field(default_factory=lambda: _AS_A_STEP, json_schema_extra={"default": _AS_A_STEP.model_dump()})

    @property
    def spec(self) -> StepSpec:
        """The step as the rest of the code represents it."""
        return StepSpec(
            id=self.id,
            action=self.action,
            provider=self.provider,
            input=self.input,
            input_map=self.input_map,
            depends_on=tuple(self.depends_on),
            on_failure=self.on_failure,
            max_attempts=self.retry.max_attempts,
            backoff_seconds=self.retry.backoff_seconds,
        )


class CreateRun(RequestFields):
    """`POST /api/v1/runs`: Pi's create, extended by `on_failure` and `retry` of each step."""

    model_config = ConfigDict(extra="forbid")

    steps: Annotated[list[CreateStep], Field(json_schema_extra={"minItems": 1, "maxItems": MOST_STEPS})]
    metadata: Metadata | None = None

    @field_validator("steps", mode="before")
    @classmethod
    def _countable_steps(cls, value: Any) -> Any:
        if isinstance(value, list):
            check_count(len(value))
        return value


class RunQuery(Page):
    """The query of `GET /api/v1/runs`."""

    status: RunStatus | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    brief: bool = False
    """Whether to leave out what may be large: of each step only how far it is."""


class GetRun(WaitQuery):
    """The query of `GET /api/v1/runs/{id}`."""

    include: Literal["details"] | None = None
    """`details`: each step as it was requested, and the attempts of its task."""


class JobQuery(WaitQuery):
    """The query of `GET /api/v1/jobs/{id}`: names separated by commas; `expand` is an alias of `include`."""

    fields: str | None = None
    """These fields alone."""
    include: str | None = None
    """`diagnostics`: what happened on the way."""
    expand: str | None = None
