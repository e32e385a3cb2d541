"""The tools for runs: several tasks, each of which may use the results of others."""

from typing import Annotated, Any, Literal

from pydantic import Field

from receiver.mcp.calls import ApiCalls, ApiData, new_key, one
from receiver.mcp.pages import PageArguments, listing, page_at
from receiver.mcp.task_tools import PurchaseKey, WaitSeconds, bought
from receiver.mcp.tool import CUT, RUN_STATUS, TEXT, ReportProgress, Tool, ToolArguments, ToolResult, cut_note, schema
from receiver.mcp.waiting import wait_at

RunId = Annotated[str, Field(min_length=1, max_length=300)]


class StepArguments(ToolArguments):
    """One step of a run."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """Your name for the step."""
    action: Annotated[str, Field(min_length=1, max_length=200)]
    """<model>:<task_type>, such as Qubico/flux1-schnell:txt2img; or an action that the operator has named."""
    provider: Annotated[str, Field(max_length=200)] | None = None
    """Whose model it is, such as fal or replicate; by default the one of the action, else piapi."""
    input: dict[str, Any] = Field(default_factory=dict)
    """The model's input."""
    input_map: dict[str, str] = Field(default_factory=dict)
    """Members of the input that come from earlier steps: {"image_url": "$steps.<id>.result.image_url"}."""
    depends_on: list[str] = Field(default_factory=list)
    """The ids of the steps that must complete before; every step that input_map names is one."""
    on_failure: Literal["stop", "continue"] = "stop"
    """Whether the steps that do not depend on it go on when it fails."""


class CreateRunArguments(ToolArguments):
    """Of `create_run`."""

    steps: Annotated[list[StepArguments], Field(min_length=1, max_length=10)]
    metadata: dict[str, Any] | None = None
    """Words of your own to find the run again."""
    idempotency_key: PurchaseKey | None = None
    """Your own text that names this one purchase. A second call with the same key and steps returns the run of the
    first, and buys nothing."""


class OneRunArguments(ToolArguments):
    """Of a tool for one run."""

    run_id: RunId


class WaitForRunArguments(OneRunArguments):
    """Of `wait_for_run`."""

    timeout_seconds: WaitSeconds = 50
    """How long to wait at most. When the time is over the run goes on: call again."""


class RetryRunArguments(OneRunArguments):
    """Of `retry_run`."""

    idempotency_key: PurchaseKey | None = None
    """Your own text that names this one retry: a second call with it begins nothing again."""


class ListRunsArguments(PageArguments):
    """Of `list_runs`: runs that match all that is given."""

    status: Literal["pending", "in_progress", "completed", "failed", "cancelled"] | None = None
    metadata: dict[str, str] | None = None
    """Only runs whose metadata has these members."""


RUN = schema(
    {"id": TEXT, "status": RUN_STATUS},
    {
        "steps": {"description": "Each with its status, its job_id (the id of its task), result and error."},
        "shortened": CUT,
    },
)
_CREATED = schema(
    {
        "run_id": TEXT,
        "idempotency_key": {**TEXT, "description": "Call again with it if this answer is in doubt: nothing is bought."},
        "was_created_before": {"type": "boolean", "description": "An earlier call with the key created it."},
        "next": TEXT,
    }
)
_WAITED = schema({"has_ended": {"type": "boolean"}, "waited_seconds": {"type": "number"}, "run": RUN}, {"next": TEXT})


async def create_run(calls: ApiCalls, wanted: CreateRunArguments, _progress: ReportProgress) -> ToolResult:
    """Create a run; a call that is repeated with the same idempotency key buys nothing."""
    key = wanted.idempotency_key or new_key()
    body = wanted.model_dump(exclude_none=True, exclude={"idempotency_key"})
    found = await bought(calls, "/api/v1/runs", body, key, "create_run")
    run_id = str(found.data["run_id"])
    return ToolResult(
        {
            "run_id": run_id,
            "idempotency_key": key,
            "was_created_before": found.is_replayed,
            "next": f"wait_for_run with run_id {run_id}",
        },
        (run_uri(run_id),),
    )


async def get_run(calls: ApiCalls, wanted: OneRunArguments, _progress: ReportProgress) -> ToolResult:
    """Return a run as it is now."""
    return _result(await calls.get(one("runs", wanted.run_id)))


async def wait_for_run(calls: ApiCalls, wanted: WaitForRunArguments, progress: ReportProgress) -> ToolResult:
    """Return a run when it has ended, or when the time is over."""
    waited = await wait_at(calls, one("runs", wanted.run_id), wanted.timeout_seconds, progress)
    run = _result(waited.found)
    data = {"has_ended": waited.has_ended, "waited_seconds": waited.seconds, "run": run.data}
    if not waited.has_ended:
        data["next"] = "It has not ended yet, and goes on: call wait_for_run again."
    return ToolResult(data, run.links)


async def list_runs(calls: ApiCalls, wanted: ListRunsArguments, _progress: ReportProgress) -> ToolResult:
    """Return a page of runs, with the statuses of their steps."""
    return await page_at(calls, "/api/v1/runs", wanted)


async def cancel_run(calls: ApiCalls, wanted: OneRunArguments, _progress: ReportProgress) -> ToolResult:
    """Cancel a run and its tasks."""
    return _result(await calls.post(one("runs", wanted.run_id, "/cancel")))


async def retry_run(calls: ApiCalls, wanted: RetryRunArguments, _progress: ReportProgress) -> ToolResult:
    """Do what failed, was skipped or cancelled again."""
    key = wanted.idempotency_key or new_key()
    return _result(await bought(calls, one("runs", wanted.run_id, "/retry"), None, key, "retry_run"))


def run_uri(run_id: str) -> str:
    """Return the URI of a run as a resource."""
    return f"ringback://runs/{run_id}"


def _result(found: ApiData) -> ToolResult:
    run = dict(found.data)
    if not found.is_cut:
        return ToolResult(run)
    uri = run_uri(str(run["id"]))
    return ToolResult({**run, "shortened": cut_note(found.size, f"GET /api/v1/runs/{run['id']}", uri)}, (uri,))


RUN_TOOLS = (
    Tool(
        name="create_run",
        title="Create a run",
        description=(
            "COSTS MONEY. Buys up to 10 generations that build on each other, such as a picture and then a video of "
            "it: each step is a task, and starts when the steps that it depends on have completed. A step that the "
            "provider fails is tried 3 times, and each try may cost. Returns the run_id at once; then call "
            "wait_for_run. Give an idempotency_key of your own, so that a repeated call does not buy it again."
        ),
        arguments=CreateRunArguments,
        output=_CREATED,
        run=create_run,
        changes=True,
        reaches_out=True,
    ),
    Tool(
        name="wait_for_run",
        title="Wait for a run",
        description=(
            "Waits until a run has ended (completed, failed or cancelled) and returns it with its steps' results. "
            "Costs nothing. If has_ended is false the time was over: call it again."
        ),
        arguments=WaitForRunArguments,
        output=_WAITED,
        run=wait_for_run,
    ),
    Tool(
        name="get_run",
        title="Get a run",
        description="Returns a run as it is now, with the status, result and error of each step. Costs nothing.",
        arguments=OneRunArguments,
        output=RUN,
        run=get_run,
    ),
    Tool(
        name="list_runs",
        title="List runs",
        description="Finds runs, newest first, by status and metadata. Costs nothing.",
        arguments=ListRunsArguments,
        output=listing(schema({"id": TEXT, "status": RUN_STATUS})),
        run=list_runs,
    ),
    Tool(
        name="cancel_run",
        title="Cancel a run",
        description=(
            "Cancels a run and the tasks of its steps. What was cancelled is lost, and the provider may charge for "
            "what it had begun."
        ),
        arguments=OneRunArguments,
        output=RUN,
        run=cancel_run,
        changes=True,
        is_destructive=True,
        is_idempotent=True,
        reaches_out=True,
    ),
    Tool(
        name="retry_run",
        title="Retry a run",
        description=(
            "COSTS MONEY. Buys the steps of a run again that failed, were skipped or cancelled; completed steps are "
            "kept. Only for a run that failed or was cancelled: read its errors first."
        ),
        arguments=RetryRunArguments,
        output=RUN,
        run=retry_run,
        changes=True,
        reaches_out=True,
    ),
)
