"""What clients may send of runs and jobs, checked before it comes near a table."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from models import RunStatus
from receiver.api.schemas import Metadata, Object, Page, Retry, WaitQuery
from receiver.domain.graph import STEP_ATTEMPTS, OnFailure, StepSpec, check_count

MOST_NAMES = 100
"""Of one step's `input_map` and `depends_on`."""


def _few(value: Any) -> Any:
    """Count before anybody looks at each: the body may hold a hundred thousand."""
    if isinstance(value, dict | list) and len(value) > MOST_NAMES:
        raise ValueError(f"has at most {MOST_NAMES} members")
    return value


class StepRetry(Retry):
    """How a provider's failure of a step is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=5)] = STEP_ATTEMPTS


class CreateStep(BaseModel):
    """One step of `POST /api/v1/runs`; what it may not be within its graph is said by `receiver.domain.graph`."""

    model_config = ConfigDict(extra="forbid")

    id: str
    action: str
    input: Object = {}
    input_map: Annotated[dict[str, str], BeforeValidator(_few)] = {}
    depends_on: Annotated[list[str], BeforeValidator(_few)] = []
    on_failure: OnFailure = OnFailure.STOP
    retry: StepRetry = StepRetry()

    @property
    def spec(self) -> StepSpec:
        """The step as everything else knows it."""
        return StepSpec(
            id=self.id,
            action=self.action,
            input=self.input,
            input_map=self.input_map,
            depends_on=tuple(self.depends_on),
            on_failure=self.on_failure,
            max_attempts=self.retry.max_attempts,
            backoff_seconds=self.retry.backoff_seconds,
        )


class CreateRun(BaseModel):
    """`POST /api/v1/runs`: Pi's create, with `on_failure` and `retry` of each step besides."""

    model_config = ConfigDict(extra="forbid")

    steps: list[CreateStep]
    metadata: Metadata | None = None

    @field_validator("steps", mode="before")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        if isinstance(value, list):
            check_count(len(value))
        return value


class RunQuery(Page):
    """The query of `GET /api/v1/runs`."""

    status: RunStatus | None = None
    metadata: dict[str, str] = Field(default_factory=dict)


class JobQuery(WaitQuery):
    """The query of `GET /api/v1/jobs/{id}`: names with commas between them; `expand` is another word for `include`."""

    fields: str | None = None
    include: str | None = None
    expand: str | None = None
