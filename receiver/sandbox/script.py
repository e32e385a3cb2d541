"""Scripts and options: the knobs that set what a task does, their defaults, and their validation. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from receiver.sandbox.families import Shape, StatusCase, SuccessCode, shape_of

Outcome = Literal[
    "completed", "failed", "cancelled", "never", "completed_with_error", "failed_then_completed", "output_later"
]
WebhookBehaviour = Literal[
    "sent",
    "lost",
    "twice",
    "reordered",
    "before_answer",
    "wrong_secret",
    "late",
    "terminal_only",
    "not_json",
    "too_large",
    "thin",
]
SubmitBehaviour = Literal[
    "ok",
    "refuse",
    "refuse_in_200",
    "unauthorized",
    "rate_limited",
    "unavailable",
    "error",
    "bad_gateway",
    "cut",
    "hang",
    "nonsense",
]
BodyForm = Literal["plain", "bom", "nan", "surrogate", "bad_byte", "utf16", "gzip"]
PollBehaviour = Literal["ok", "not_found", "error", "rate_limited", "nonsense", "hang"]

ScriptSeconds = Annotated[float, Field(strict=True, ge=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
ErrorStatus = Annotated[int, Field(strict=True, ge=400, le=599)]

_STRICT = ConfigDict(extra="forbid")

# Temporary refusals: only the first create fails unless the script says how many.
_PASSING_REFUSALS = frozenset({"rate_limited", "unavailable"})


class KnobRefused(ValueError):
    """A knob does not exist or has an invalid value. The message names the knob."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScriptedError:
    """The `error` of a failed task."""

    code: Annotated[int, Field(strict=True, ge=1)] = 10000
    raw_message: str = "the model failed"
    message: str = "task failed"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Script:
    """What one task does, as its `input.sandbox` sets it. Times are in seconds."""

    key: str | None = None
    """Creates with the same key are the same work, for `fail_attempts` and `submit_failures`. None: the webhook's
    endpoint is the key, or without an endpoint the model and the input."""

    pending_seconds: ScriptSeconds = 0.02
    """From `pending` to `processing`."""
    duration: ScriptSeconds = 0.2
    """From `processing` to the terminal state."""
    outcome: Outcome = "completed"
    """How the task ends. `never`: it stays `processing`. `completed_with_error`: completed, with an error and without
    an output. `failed_then_completed`: failed, and corrected to completed after another `duration`. `output_later`:
    completed with an empty output, and with the whole one after another `duration`."""
    fail_attempts: Count = 0
    """How many tasks of the same work end as failed before one ends with `outcome`."""
    error: ScriptedError = dataclasses.field(default_factory=ScriptedError)
    cancellable: Flag = True
    """Whether a pending task can be cancelled."""

    shape: Shape | None = None
    """Where the output has its URLs. None: the shape of the model's family."""
    status_case: StatusCase | None = None
    """The letter case of status words. None: the case of the model's family."""
    success_word: str | None = None
    """The status word that replaces `completed`. None: the word of the model's family."""
    code: SuccessCode | None = None
    """The envelope's code for success. None: 0 in the older envelope, otherwise that of the model's family."""
    body: BodyForm = "plain"
    """How JSON about the task is written, in answers and notices: with a byte order mark, with a NaN, with a lone
    surrogate, with a byte that is not UTF-8, in UTF-16, or compressed with gzip."""
    extra_status: str | None = None
    """The status word of one additional notice, half-way through `processing`."""
    progress: Annotated[Count, Field(le=1000)] = 0
    """How many notices with rising progress are sent while the task is processing."""
    logs: Annotated[Count, Field(le=1000)] = 0
    """How many log lines are added while the task is processing. Each has a notice, shared with the progress if any."""
    timestamps: Literal["nano", "offset", "zero"] = "nano"
    """Nanoseconds and `Z`; seconds and `+08:00`; or `0001-01-01T00:00:00Z` in every field at all times."""
    input_as_string: Flag = False
    """Whether `input` is returned as a string of JSON instead of an object."""

    webhook: WebhookBehaviour | None = None
    """The fault of the notices. None: chosen at random by the options' shares. `sent`: no fault."""
    late_seconds: ScriptSeconds = 1.0
    """With `late`: the delay of the notice of the end."""

    submit: SubmitBehaviour = "ok"
    """The fault of the create call. `bad_gateway`, `cut` and `hang` make a task; the other faults make none."""
    submit_failures: Count | None = None
    """How many creates of the same work have that fault before one succeeds. None: 1 for `rate_limited` and
    `unavailable`, all for the other faults."""
    poll: PollBehaviour = "ok"
    """The fault of a poll."""
    poll_failures: Count = 1
    """How many polls of the task have that fault before one succeeds."""
    retry_after: Count = 1
    """The `Retry-After` of a 429."""
    hang_seconds: ScriptSeconds = 30.0
    """With `hang`: the delay of the response."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SandboxOptions(Script):
    """The defaults of all scripts, and the options of the whole provider."""

    api_key: str | None = None
    """The accepted API key. None: a request needs a key, and any key is accepted."""
    public_base_url: str | None = None
    """The beginning of the URLs in outputs. None: `/files` at the address that the request was sent to."""
    concurrency: Annotated[int, Field(strict=True, ge=1)] | None = None
    """How many tasks may be pending or processing; the others are `staged`. None: no limit."""
    submit_status: ErrorStatus | None = None
    """During an outage: the HTTP status of every create. No task is made."""
    poll_status: ErrorStatus | None = None
    """During an outage: the HTTP status of every poll."""
    cancel_status: ErrorStatus | None = None
    """During an outage: the HTTP status of every request to cancel a task. Nothing is cancelled."""

    webhook_attempts: Annotated[Count, Field(ge=1)] = 3
    """How many attempts to send a notice."""
    webhook_retry_seconds: ScriptSeconds = 5.0
    """Between two attempts."""
    webhook_timeout_seconds: ScriptSeconds = 10.0
    """Of one attempt."""

    seed: Annotated[int, Field(strict=True)] = 0
    """The seed of all random choices. Setting it at runtime restarts their sequence."""
    lose_share: Share = 0.0
    """The share of notices that are never sent."""
    duplicate_share: Share = 0.0
    """The share of notices that are sent twice."""
    reorder_share: Share = 0.0
    """The share of tasks whose notices are sent in reverse order, when the script has ended."""


KnobsT = TypeVar("KnobsT", Script, SandboxOptions)


def read_script(given: object, defaults: SandboxOptions) -> Script:
    """Return the script that `input.sandbox` sets, completed by the defaults. Raises `KnobRefused`."""
    if not isinstance(given, Mapping):
        raise KnobRefused("input.sandbox: must be an object")
    return _read(Script, {**_values(Script, defaults), **given}, "input.sandbox.")


def patch_options(options: SandboxOptions, patch: object) -> SandboxOptions:
    """Return the options with those in `patch` changed. Raises `KnobRefused`."""
    if not isinstance(patch, Mapping):
        raise KnobRefused("options: must be an object")
    return _read(SandboxOptions, {**_values(SandboxOptions, options), **patch}, "")


def shape_for(script: Script, model: str, task_type: str = "") -> Shape:
    """Return the output's shape: the script's, or that of the model's family."""
    return script.shape or shape_of(model, task_type)


def submit_behaviour(script: Script, earlier_failures: int) -> SubmitBehaviour:
    """Return what a create does, after `earlier_failures` creates of the same work had the script's fault."""
    limit = script.submit_failures
    if limit is None and script.submit in _PASSING_REFUSALS:
        limit = 1
    return "ok" if limit is not None and earlier_failures >= limit else script.submit


def poll_behaviour(script: Script, earlier_polls: int) -> PollBehaviour:
    """Return what a poll does, after `earlier_polls` polls of the task."""
    return "ok" if earlier_polls >= script.poll_failures else script.poll


def outcome_of(script: Script, earlier_creates: int) -> Outcome:
    """Return how a task ends, after `earlier_creates` tasks of the same work."""
    return "failed" if earlier_creates < script.fail_attempts else script.outcome


@dataclasses.dataclass(frozen=True)
class TimelineEntry:
    """A change of a task, and its notice, `at` seconds after `processing` began."""

    at: float
    percent: int | None = None
    log: str | None = None
    word: str | None = None


def timeline(script: Script) -> list[TimelineEntry]:
    """Return the changes while the task is processing, in order of time."""
    steps = max(script.progress, script.logs)
    between = [
        TimelineEntry(
            at=script.duration * step / (steps + 1),
            percent=100 * step // (script.progress + 1) if step <= script.progress else None,
            log=f"step {step} of {script.logs}" if step <= script.logs else None,
        )
        for step in range(1, steps + 1)
    ]
    if script.extra_status is not None:
        between.append(TimelineEntry(at=script.duration / 2, word=script.extra_status))
    return sorted(between, key=lambda entry: entry.at)


def _values(kind: type[Script], knobs: Script) -> dict[str, Any]:
    return {field.name: getattr(knobs, field.name) for field in dataclasses.fields(kind)}


def _read(kind: type[KnobsT], values: dict[str, Any], prefix: str) -> KnobsT:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise KnobRefused(prefix + fault_of(error)) from None


def fault_of(error: ValidationError) -> str:
    """Return the first error, as `name: what is wrong`."""
    fault = error.errors(include_url=False, include_context=False)[0]
    unknown = fault["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    name = ".".join(str(part) for part in fault["loc"]) or "body"
    return f"{name}: {'unknown name' if unknown else fault['msg']}"
