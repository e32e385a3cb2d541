"""What a task is asked to do: the knobs, their defaults, and what is wrong with a set of them. Pure."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

Outcome = Literal["completed", "failed", "cancelled", "never", "completed_with_error", "failed_then_completed"]
Shape = Literal[
    "flux",
    "hailuo",
    "kling",
    "kling_works",
    "luma",
    "audio",
    "midjourney",
    "old_envelope",
    "wan",
    "brand",
    "campaign",
]
WebhookConduct = Literal[
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
]
SubmitConduct = Literal[
    "ok",
    "refuse",
    "unauthorized",
    "rate_limited",
    "unavailable",
    "error",
    "bad_gateway",
    "cut",
    "hang",
    "nonsense",
]
PollConduct = Literal["ok", "not_found", "error", "rate_limited", "nonsense", "hang"]

Seconds = Annotated[float, Field(strict=True, ge=0, le=86400, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Flag = Annotated[bool, Field(strict=True)]
ErrorStatus = Annotated[int, Field(strict=True, ge=400, le=599)]

_STRICT = ConfigDict(extra="forbid")

# These excuse themselves once and are then well, unless the script says how often.
_PASSING_REFUSALS = frozenset({"rate_limited", "unavailable"})

# The first word that is found in a model's name decides; whatever else there is makes images.
_SHAPE_BY_WORD: tuple[tuple[str, Shape], ...] = (
    ("midjourney", "midjourney"),
    ("hailuo", "hailuo"),
    ("luma", "luma"),
    ("kling", "kling"),
    ("veo3", "kling"),
    ("sora2", "kling"),
    ("seedance", "kling"),
    ("wan", "wan"),
    ("skyreels", "wan"),
    ("hunyuan", "wan"),
    ("ace-step", "audio"),
    ("diffrhythm", "audio"),
    ("mmaudio", "audio"),
    ("tts", "audio"),
    ("sandbox/brands", "brand"),
    ("sandbox/campaigns", "campaign"),
)


class KnobRefused(ValueError):
    """A knob that does not exist, or a value that it cannot have. The message names it."""


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ScriptedError:
    """What a failed task's `error` says."""

    code: Annotated[int, Field(strict=True, ge=1)] = 10000
    raw_message: str = "the model gave up"
    message: str = "task failed"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Script:
    """The life of one task, as its `input.sandbox` asks for it. Times are in seconds."""

    key: str | None = None
    """What counts as the same work for `fail_attempts` and `submit_failures`; None: the webhook's endpoint,
    and without one the model and the input."""

    pending_seconds: Seconds = 0.02
    duration: Seconds = 0.2
    """From `processing` to the terminal state."""
    outcome: Outcome = "completed"
    """`never` stays `processing`; `completed_with_error` has an error and no output; `failed_then_completed`
    corrects itself after another `duration`."""
    fail_attempts: Count = 0
    """So many creates of the same work fail, the next ends in `outcome`."""
    error: ScriptedError = dataclasses.field(default_factory=ScriptedError)
    cancellable: Flag = True

    shape: Shape | None = None
    """Where the output has its URLs; None: as the model's name suggests."""
    status_case: Literal["lower", "title", "upper"] = "lower"
    success_word: str | None = None
    """Said in place of `completed`."""
    code: Literal[200, 0] | None = None
    """The envelope's code for success; None: 0 in the older envelope, else 200."""
    extra_status: str | None = None
    """A status word for one more notice, half-way through `processing`."""
    progress: Annotated[Count, Field(le=1000)] = 0
    """How many notices of rising progress come in between."""
    logs: Annotated[Count, Field(le=1000)] = 0
    """How many log lines appear, each with a notice (the same one as the progress, if there is any)."""
    timestamps: Literal["nano", "offset", "zero"] = "nano"
    """Nanoseconds and `Z`; `+08:00`; or `0001-01-01T00:00:00Z` in every field, for ever."""
    input_as_string: Flag = False

    webhook: WebhookConduct | None = None
    """What becomes of the notices; None: sent, but for the options' shares. `sent` is sent for certain."""
    late_seconds: Seconds = 1.0

    submit: SubmitConduct = "ok"
    """What becomes of the create call. `bad_gateway`, `cut` and `hang` make a task; the other faults make
    none."""
    submit_failures: Count | None = None
    """How many creates of the same work meet that fault before one is well; None: 1 for `rate_limited` and
    `unavailable`, all of them for the others."""
    poll: PollConduct = "ok"
    poll_failures: Count = 1
    """How many polls of the task meet that fault before one is well."""
    retry_after: Count = 1
    """`Retry-After` of a 429."""
    hang_seconds: Seconds = 30.0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SandboxOptions(Script):
    """The defaults for every script, and what holds for the whole provider."""

    api_key: str | None = None
    """None: any key will do, but there must be one."""
    public_base_url: str = "http://127.0.0.1/files"
    """What the URLs in outputs begin with."""
    concurrency: Annotated[int, Field(strict=True, ge=1)] | None = None
    """How many tasks may be pending or processing; more are `staged`."""
    submit_status: ErrorStatus | None = None
    """An outage: every create is answered so and makes nothing."""
    poll_status: ErrorStatus | None = None
    """An outage: every poll is answered so."""

    webhook_attempts: Annotated[Count, Field(ge=1)] = 3
    webhook_retry_seconds: Seconds = 5.0
    webhook_timeout_seconds: Seconds = 10.0

    seed: Annotated[int, Field(strict=True)] = 0
    """All chance comes from it. Setting it at runtime starts it again."""
    lose_share: Share = 0.0
    """The share of notices that are never sent."""
    duplicate_share: Share = 0.0
    """The share of notices that are sent twice."""
    reorder_share: Share = 0.0
    """The share of tasks whose last notice is sent first."""


KnobsT = TypeVar("KnobsT", Script, SandboxOptions)


def read_script(given: object, defaults: SandboxOptions) -> Script:
    """Return the script that `input.sandbox` asks for; raises `KnobRefused`."""
    if not isinstance(given, Mapping):
        raise KnobRefused("input.sandbox: must be an object")
    return _read(Script, {**_values(Script, defaults), **given}, "input.sandbox.")


def patch_options(options: SandboxOptions, patch: object) -> SandboxOptions:
    """Return the options with some of them changed; raises `KnobRefused`."""
    if not isinstance(patch, Mapping):
        raise KnobRefused("options: must be an object")
    return _read(SandboxOptions, {**_values(SandboxOptions, options), **patch}, "")


def shape_for(script: Script, model: str) -> Shape:
    """Return the form of the output: the script's, or the one of the model's family."""
    if script.shape is not None:
        return script.shape
    name = model.lower()
    return next((shape for word, shape in _SHAPE_BY_WORD if word in name), "flux")


def submit_conduct(script: Script, failures_so_far: int) -> SubmitConduct:
    """Return what becomes of a create, when so many of the same work have met the script's fault."""
    limit = script.submit_failures
    if limit is None and script.submit in _PASSING_REFUSALS:
        limit = 1
    return "ok" if limit is not None and failures_so_far >= limit else script.submit


def poll_conduct(script: Script, polls_so_far: int) -> PollConduct:
    """Return what becomes of a poll, when the task was polled so often before."""
    return "ok" if polls_so_far >= script.poll_failures else script.poll


def outcome_of(script: Script, creates_so_far: int) -> Outcome:
    """Return how a task ends, when so many of the same work were made before."""
    return "failed" if creates_so_far < script.fail_attempts else script.outcome


@dataclasses.dataclass(frozen=True)
class Moment:
    """Something that happens while a task is processing, `at` seconds after it began."""

    at: float
    percent: int | None = None
    log: str | None = None
    word: str | None = None


def moments(script: Script) -> list[Moment]:
    """Return what happens while the task is processing, in order."""
    steps = max(script.progress, script.logs)
    between = [
        Moment(
            at=script.duration * step / (steps + 1),
            percent=100 * step // (script.progress + 1) if step <= script.progress else None,
            log=f"step {step} of {script.logs}" if step <= script.logs else None,
        )
        for step in range(1, steps + 1)
    ]
    if script.extra_status is not None:
        between.append(Moment(at=script.duration / 2, word=script.extra_status))
    return sorted(between, key=lambda moment: moment.at)


def _values(kind: type[Script], knobs: Script) -> dict[str, Any]:
    return {field.name: getattr(knobs, field.name) for field in dataclasses.fields(kind)}


def _read(kind: type[KnobsT], values: dict[str, Any], prefix: str) -> KnobsT:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise KnobRefused(prefix + fault_of(error)) from None


def fault_of(error: ValidationError) -> str:
    """Return the first fault, as `name: what is wrong with it`."""
    fault = error.errors(include_url=False, include_context=False)[0]
    unknown = fault["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    name = ".".join(str(part) for part in fault["loc"]) or "body"
    return f"{name}: {'there is no such thing' if unknown else fault['msg']}"
