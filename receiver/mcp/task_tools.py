"""The tools for tasks."""

from typing import Annotated, Any, Literal

from pydantic import Field

from receiver.mcp.calls import ApiCalls, ApiData, ToolFailure, new_key, one
from receiver.mcp.pages import PageArguments, listing, page_at
from receiver.mcp.tool import (
    CUT,
    OPTIONAL_TEXT,
    TASK_STATUS,
    TEXT,
    ReportProgress,
    Tool,
    ToolArguments,
    ToolResult,
    cut_note,
    schema,
)
from receiver.mcp.waiting import MOST_SECONDS, wait_at

OneTaskId = Annotated[str, Field(min_length=1, max_length=300)]
TaskStatusWord = Literal["queued", "staged", "pending", "processing", "completed", "failed", "cancelled"]
WaitSeconds = Annotated[int, Field(ge=1, le=MOST_SECONDS)]
PurchaseKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]
_SUMMARY = (
    *("task_id", "model", "task_type", "status", "progress", "error", "metadata", "run_id", "step"),
    *("attempt", "created_at", "updated_at", "ended_at"),
)


class CreateTaskArguments(ToolArguments):
    """Of `create_task`."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The provider's name of the model, such as Qubico/flux1-schnell or kling."""
    task_type: Annotated[str, Field(min_length=1, max_length=200)]
    """What the model is to do, such as txt2img or video_generation."""
    input: dict[str, Any]
    """The model's input, such as {"prompt": "a cat"}. The provider's documentation says what each model takes."""
    provider: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Where the task is made, such as fal; by default PiAPI. Model, task_type and input are in its own form."""
    account: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The account there, if your organization uses several; by default its usual one."""
    config: dict[str, Any] | None = None
    """The provider's own options, if any."""
    metadata: dict[str, Any] | None = None
    """Words of your own to find the task again: list_tasks filters by them."""
    max_attempts: Annotated[int, Field(ge=1, le=5)] = 1
    """How often the task may be bought if the provider fails it. 1 is once."""
    idempotency_key: PurchaseKey | None = None
    """Your own text that names this one purchase. A second call with the same key and arguments returns the task of the
    first, and buys nothing."""


class OneTaskArguments(ToolArguments):
    """Of a tool for one task."""

    task_id: OneTaskId
    """The task's id, or the id that the provider gave it."""


class WaitForTaskArguments(OneTaskArguments):
    """Of `wait_for_task`."""

    timeout_seconds: WaitSeconds = 50
    """How long to wait at most. When the time is over the task goes on: call again."""


class RetryTaskArguments(OneTaskArguments):
    """Of `retry_task`."""

    idempotency_key: PurchaseKey | None = None
    """Your own text that names this one retry: a second call with it begins no other attempt."""


class ListTasksArguments(PageArguments):
    """Of `list_tasks`: tasks that match all that is given."""

    status: TaskStatusWord | None = None
    model: str | None = None
    task_type: str | None = None
    provider: str | None = None
    run_id: str | None = None
    """Only the tasks of this run."""
    created_after: str | None = None
    """ISO 8601 in UTC, such as 2026-01-31T09:30:00Z."""
    created_before: str | None = None
    """ISO 8601 in UTC."""
    metadata: dict[str, str] | None = None
    """Only tasks whose metadata has these members."""


TASK = schema(
    {"task_id": TEXT, "status": TASK_STATUS, "model": TEXT, "task_type": TEXT},
    {
        "progress": {"type": ["integer", "number", "null"]},
        "output": {"description": "Of a completed task; output_files has the URL of each file."},
        "error": {"description": "Of a failed task: code, message, detail."},
        "provider_task_id": OPTIONAL_TEXT,
        "shortened": CUT,
    },
)
_SHORT_TASK = schema({"task_id": TEXT, "status": TASK_STATUS, "model": TEXT, "task_type": TEXT})
_CREATED = schema(
    {
        "task_id": TEXT,
        "idempotency_key": {**TEXT, "description": "Call again with it if this answer is in doubt: nothing is bought."},
        "was_created_before": {"type": "boolean", "description": "An earlier call with the key created it."},
        "next": TEXT,
    }
)
_WAITED = schema({"has_ended": {"type": "boolean"}, "waited_seconds": {"type": "number"}, "task": TASK}, {"next": TEXT})


async def create_task(calls: ApiCalls, wanted: CreateTaskArguments, _progress: ReportProgress) -> ToolResult:
    """Create a task; a call that is repeated with the same idempotency key buys nothing."""
    key = wanted.idempotency_key or new_key()
    body = wanted.model_dump(exclude_none=True, exclude={"idempotency_key", "max_attempts"})
    if wanted.max_attempts > 1:
        body["retry"] = {"max_attempts": wanted.max_attempts}
    found = await bought(calls, "/api/v1/task", body, key, "create_task")
    task_id = str(found.data["task_id"])
    return ToolResult(
        {
            "task_id": task_id,
            "idempotency_key": key,
            "was_created_before": found.is_replayed,
            "next": f"wait_for_task with task_id {task_id}",
        },
        (task_uri(task_id),),
    )


async def bought(calls: ApiCalls, path: str, body: dict[str, Any] | None, key: str, tool: str) -> ApiData:
    """Post what costs money. Where it is not known whether that was done, the failure says how to find out."""
    try:
        return await calls.post(path, body, key=key)
    except ToolFailure as failure:
        if not failure.may_be_done:
            raise
        raise ToolFailure(
            f"{failure}. Whether it was done is not known: call {tool} again with the same arguments and "
            f"idempotency_key {key}; then it is not bought twice",
            may_be_done=True,
        ) from None


async def get_task(calls: ApiCalls, wanted: OneTaskArguments, _progress: ReportProgress) -> ToolResult:
    """Return a task as it is now."""
    return task_result(await calls.get(one("tasks", wanted.task_id)))


async def wait_for_task(calls: ApiCalls, wanted: WaitForTaskArguments, progress: ReportProgress) -> ToolResult:
    """Return a task when it has ended, or when the time is over."""
    waited = await wait_at(calls, one("tasks", wanted.task_id), wanted.timeout_seconds, progress)
    task = task_result(waited.found)
    data = {"has_ended": waited.has_ended, "waited_seconds": waited.seconds, "task": task.data}
    if not waited.has_ended:
        data["next"] = "It has not ended yet, and goes on: call wait_for_task again."
    return ToolResult(data, task.links)


async def list_tasks(calls: ApiCalls, wanted: ListTasksArguments, _progress: ReportProgress) -> ToolResult:
    """Return a page of tasks without their inputs and outputs."""
    return await page_at(calls, "/api/v1/tasks", wanted, _SUMMARY)


async def cancel_task(calls: ApiCalls, wanted: OneTaskArguments, _progress: ReportProgress) -> ToolResult:
    """Cancel a task at the provider too."""
    return task_result(await calls.post(one("tasks", wanted.task_id, "/cancel")))


async def retry_task(calls: ApiCalls, wanted: RetryTaskArguments, _progress: ReportProgress) -> ToolResult:
    """Begin another attempt at a task that failed or was cancelled."""
    key = wanted.idempotency_key or new_key()
    return task_result(await bought(calls, one("tasks", wanted.task_id, "/retry"), None, key, "retry_task"))


def task_uri(task_id: str) -> str:
    """Return the URI of a task as a resource."""
    return f"ringback://tasks/{task_id}"


def task_result(found: ApiData) -> ToolResult:
    """Return a task; one that was cut says where the whole is."""
    task = dict(found.data)
    if not found.is_cut:
        return ToolResult(task)
    uri = task_uri(str(task["task_id"]))
    return ToolResult({**task, "shortened": cut_note(found.size, f"GET /api/v1/tasks/{task['task_id']}", uri)}, (uri,))


TASK_TOOLS = (
    Tool(
        name="create_task",
        title="Create a task",
        description=(
            "COSTS MONEY. Buys one generation (an image, a video, music, text) at the provider, and returns its "
            "task_id at once; then call wait_for_task. Give an idempotency_key of your own, so that a call that you "
            "repeat after an error or a time-out does not buy it again. For several generations that build on each "
            "other use create_run. Look with list_tasks whether it exists already if you are not sure."
        ),
        arguments=CreateTaskArguments,
        output=_CREATED,
        run=create_task,
        changes=True,
        reaches_out=True,
    ),
    Tool(
        name="wait_for_task",
        title="Wait for a task",
        description=(
            "Waits until a task has ended (completed, failed or cancelled) and returns it with its output or error. "
            "Costs nothing. Use it rather than calling get_task again and again. If has_ended is false the time was "
            "over: call it again; never create the task again because of that."
        ),
        arguments=WaitForTaskArguments,
        output=_WAITED,
        run=wait_for_task,
    ),
    Tool(
        name="get_task",
        title="Get a task",
        description="Returns a task as it is now: status, progress, input, output, error. Costs nothing.",
        arguments=OneTaskArguments,
        output=TASK,
        run=get_task,
    ),
    Tool(
        name="list_tasks",
        title="List tasks",
        description=(
            "Finds tasks, newest first, by status, model, task type, run, time and metadata; without their inputs and "
            "outputs, which get_task has. Costs nothing."
        ),
        arguments=ListTasksArguments,
        output=listing(_SHORT_TASK),
        run=list_tasks,
    ),
    Tool(
        name="cancel_task",
        title="Cancel a task",
        description=(
            "Cancels a task that has not ended, at the provider too. What was cancelled is lost, and the provider may "
            "charge for it all the same. The step of a run is cancelled with cancel_run."
        ),
        arguments=OneTaskArguments,
        output=TASK,
        run=cancel_task,
        changes=True,
        is_destructive=True,
        is_idempotent=True,
        reaches_out=True,
    ),
    Tool(
        name="retry_task",
        title="Retry a task",
        description=(
            "COSTS MONEY. Buys the same task again at the provider, under the same task_id; only for one that failed "
            "or was cancelled. Read its error first: a wrong input fails again."
        ),
        arguments=RetryTaskArguments,
        output=TASK,
        run=retry_task,
        changes=True,
        reaches_out=True,
    ),
)
