"""The endpoints of PiAPI's paths."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from receiver.sandbox.answers import (
    as_json,
    hang,
    nonsense,
    not_found,
    outage,
    refusal,
    unless_broken,
    written,
)
from receiver.sandbox.body_forms import noted, write
from receiver.sandbox.envelope import PRICE, envelope, task_data
from receiver.sandbox.script import KnobRefused, Script, SubmitBehaviour, poll_behaviour, read_script
from receiver.sandbox.task import RequestRefused, SandboxTask, read_create
from receiver.sandbox.tasks import Sandbox

_BULK_MODELS = frozenset({"kling", "midjourney", "suno", "luma", "all"})
_MAX_PAGE_SIZE = 100
_POINTS_A_DOLLAR = 10_000_000
_POINTS = 100 * _POINTS_A_DOLLAR


class PiapiPaths:
    """The part of PiAPI's unified task API that a client of tasks needs."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def create(self, request: Request) -> Response:
        """`POST /api/v1/task`."""
        options = self._sandbox.options
        if options.submit_status is not None:
            return outage(options.submit_status, options.retry_after)
        try:
            wanted = read_create(await request.body())
            script = read_script(wanted.input.get("sandbox", {}), options)
        except (RequestRefused, KnobRefused) as error:
            return refusal(400, str(error))
        behaviour = self._sandbox.submit_behaviour(wanted, script)
        refused = _refused_create(behaviour, script)
        if refused is not None:
            return refused
        return await self._answer_create(
            request, self._sandbox.create(wanted, script, self._sandbox.files_url(request)), behaviour
        )

    async def get(self, request: Request) -> Response:
        """`GET /api/v1/task/{task_id}`."""
        options = self._sandbox.options
        if options.poll_status is not None:
            return outage(options.poll_status, options.retry_after)
        task = self._find(request)
        if task is None:
            return not_found()
        behaviour = poll_behaviour(task.script, task.polls)
        task.polls += 1
        match behaviour:
            case "not_found":
                return not_found()
            case "error":
                return refusal(500, "internal server error")
            case "rate_limited":
                return refusal(429, "too many requests", retry_after=task.script.retry_after)
            case "nonsense":
                return nonsense()
            case "hang":
                await hang(request, task.script.hang_seconds)
        return _answer(task)

    async def cancel(self, request: Request) -> Response:
        """`DELETE /api/v1/task/{task_id}`, and `POST .../cancel`, which one official client uses."""
        options = self._sandbox.options
        if options.cancel_status is not None:
            return outage(options.cancel_status, options.retry_after)
        task = self._find(request)
        if task is None:
            return not_found()
        if not self._sandbox.cancel(task):
            return refusal(400, f"only a pending task can be cancelled; this task is {task.status}")
        return as_json({"code": 200, "message": "success"})

    async def cancel_many(self, request: Request) -> Response:
        """`DELETE /api/v1/tasks?created_before&model`."""
        model = request.query_params.get("model", "")
        try:
            before = _number(request.query_params, "created_before")
        except ValueError as error:
            return refusal(400, str(error))
        if model not in _BULK_MODELS:
            return refusal(400, f"model: must be one of {', '.join(sorted(_BULK_MODELS))}")
        count = self._sandbox.cancel_before(before * 1_000_000_000, model)
        return as_json({"code": 200, "message": f"{count} tasks cancelled"})

    async def active(self, request: Request) -> Response:
        """`GET /account/active_tasks`."""
        data: dict[str, dict[str, object]] = {}
        for task in self._sandbox.tasks.values():
            if not task.terminal:
                _count_active(data, task)
        return as_json({"code": 200, "message": "success", "data": data})

    async def account(self, request: Request) -> Response:
        """`GET /account/info`: the points spent and reserved are those of the tasks made here."""
        tasks = self._sandbox.tasks.values()
        frozen = PRICE * sum(not task.terminal for task in tasks)
        used = PRICE * sum(task.status in ("completed", "success") and task.error is None for task in tasks)
        return as_json({"code": 200, "message": "success", "data": _account(frozen, used)})

    async def histories(self, request: Request) -> Response:
        """`GET /api/open/tasks/histories`: tasks in pages, newest first, of a family if the query names one."""
        query = request.query_params
        try:
            page, size = _number(query, "page", 1), _number(query, "page_size", 10)
            since, until = _number(query, "start_time", 0), _number(query, "end_time", 1 << 40)
        except ValueError as error:
            return refusal(400, str(error))
        if page < 1 or not 1 <= size <= _MAX_PAGE_SIZE:
            return refusal(400, f"page must be 1 or more, and page_size 1 to {_MAX_PAGE_SIZE}")
        found = [
            task
            for task in reversed(self._sandbox.tasks.values())
            if since <= task.created_ns // 1_000_000_000 <= until and _is_of(task, query.get("model", ""))
        ]
        shown = [noted(task_data(task), task.script.body) for task in found[(page - 1) * size : page * size]]
        data = {"data": shown, "page": page, "size": size, "total": len(found)}
        return written(write({"code": 200, "message": "success", "data": data}))

    async def _answer_create(self, request: Request, task: SandboxTask, behaviour: SubmitBehaviour) -> Response:
        # The body shows the new task, even if the notice of its end is acknowledged before this response is sent.
        answer = _answer(task)
        if task.script.webhook == "before_answer":
            await self._sandbox.wait_until_notified(task)
        return await unless_broken(answer, request, behaviour, task.script)

    def _find(self, request: Request) -> SandboxTask | None:
        return self._sandbox.tasks.get(request.path_params["task_id"])


def _answer(task: SandboxTask) -> Response:
    """Return the task, in the form of body that its script asks for."""
    body, form = envelope(task), task.script.body
    return written(write({**body, "data": noted(body["data"], form)}, form))


def _is_of(task: SandboxTask, model: str) -> bool:
    """Whether the task is of the family that a history's query names; blank names all."""
    return not model or task.family.is_named(model)


def _account(frozen: int, used: int) -> dict[str, object]:
    """Return the account with these points reserved and spent, of those that it began with."""
    remaining = _POINTS - frozen - used
    return {
        "id": 1,
        "account_id": "sandbox",
        "name": "Sandbox",
        "account_name": "Sandbox",
        "plan": "sandbox",
        "is_enable": True,
        "max_concurrent_task_count": 50,
        "credits": remaining,
        "equivalent_in_usd": remaining / _POINTS_A_DOLLAR,
        "wallet": {"point_remain": remaining, "point_frozen": frozen, "point_used": used, "mj_remain": 0},
        "credit_pack_info": {
            "credit_packs_count": 1,
            "total_credits": _POINTS,
            "frozen_credits": frozen,
            "used_credits": used,
            "expired_credits": 0,
        },
    }


def _refused_create(behaviour: SubmitBehaviour, script: Script) -> Response | None:
    """Return the response to a create that makes no task, or None if it makes one."""
    match behaviour:
        case "refuse":
            return refusal(400, "invalid request: the prompt was refused")
        case "refuse_in_200":
            return as_json({"code": 1102, "data": None, "message": "account balance not enough"})
        case "unauthorized":
            return refusal(401, "unauthorized")
        case "rate_limited":
            return refusal(429, "too many requests", retry_after=script.retry_after)
        case "unavailable":
            return refusal(503, "service unavailable")
        case "error":
            return refusal(500, "failed to create task")
        case "nonsense":
            return nonsense()
        case _:
            return None


def _count_active(data: dict[str, dict[str, object]], task: SandboxTask) -> None:
    counts = data.setdefault(
        task.family.name, {"staged_count": 0, "pending_count": 0, "processing_count": 0, "active_tasks": []}
    )
    name = f"{task.status}_count"
    if isinstance(count := counts.get(name), int):
        counts[name] = count + 1
    if isinstance(active := counts["active_tasks"], list):
        active.append({"task_id": task.id, "task_type": task.request.task_type, "status": task.status})


def _number(query: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = query.get(name) or ""
    if not text and default is not None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ValueError(f"{name}: must be a whole number")
    return int(text)
