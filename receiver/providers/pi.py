"""Pi's runs and jobs. Source of its rules: `receiver/providers/CONTRACTS.md`, "Pi"."""

import re
from typing import Any
from urllib.parse import quote

from models import TaskStatus
from receiver.domain.updates import ProviderUpdate
from receiver.providers import fields
from receiver.providers.api import BaseAPI, CannotAsk, Credentials, Judgement, Request
from receiver.providers.base import MalformedUpdate, NewTask, ProviderTask
from receiver.providers.calls import CallResponse
from receiver.providers.capabilities import CallbackScope, Capabilities
from receiver.providers.proofs import header, verify_hmac_hex
from receiver.providers.reports import failure, id_of, object_of, report, status_of
from receiver.providers.webhook_outcomes import Headers, LookNow, Signature, WebhookOutcome

RUN_MODEL = "runs"
_WORDS = {
    "pending": TaskStatus.PENDING,  # a run
    "queued": TaskStatus.PENDING,  # a job
    "in_progress": TaskStatus.PROCESSING,
    "processing": TaskStatus.PROCESSING,
    "completed": TaskStatus.COMPLETED,
    "failed": TaskStatus.FAILED,
    "cancelled": TaskStatus.CANCELLED,
}
_MODEL = re.compile(r"runs|[a-z][\w-]*(?:\.[a-z][\w-]*)+", re.ASCII)
_UNKNOWN_IDS = frozenset({"invalid_run_id", "invalid_job_id"})
"""400 for an id that is not a UUID: Pi has no such task."""
_NOT_STARTED = frozenset({"run_trigger_failed", "job_trigger_failed"})
"""502: what was created could not be started, and Pi has failed it already."""
_JOB_RESULT = ("result_url", "job_result", "payload")
_EVENTS = frozenset({"job.completed", "job.failed"})
_SIGNATURE = "sha256="


class Pi(BaseAPI):
    """Pi. A task's `model` is `runs`, or a job's action such as `campaigns.generate`; `input` is the body of its POST.

    Webhooks tell of jobs alone, to an address that is registered once: a run is polled.
    """

    name = "pi"
    base_url = ""
    optional_credentials: tuple[str, ...] = ("webhook_secret",)
    capabilities = Capabilities(callback=CallbackScope.ACCOUNT, proofs=("hmac hex",), is_thin=True)

    def create(self, task: NewTask) -> Request:
        """Return the call that creates a run or a job.

        A key is sent with it, for most of Pi's paths obey one: but not all, so nothing relies on it.
        """
        if _MODEL.fullmatch(task.model) is None:
            raise CannotAsk(
                f"model must be runs, or the action of a job such as campaigns.generate, not {task.model[:100]!r}"
            )
        headers = {"idempotency-key": task.reference} if task.reference else {}
        return Request(method="POST", url=f"/api/v1/{task.model.replace('.', '/')}", body=task.input, headers=headers)

    def read_created(self, answer: CallResponse, task: NewTask) -> ProviderUpdate:
        """Return the id of the run or job, and which of both it is."""
        data = _data(answer)
        if "run_id" in data:
            return report(TaskStatus.PENDING, provider_task_id=id_of(data, "run_id"), handle={"kind": "run"})
        return report(TaskStatus.PENDING, provider_task_id=id_of(data, "job_id"), handle={"kind": "job"})

    def look(self, task: ProviderTask) -> Request:
        """Return the request for a run or a job."""
        path = "runs" if _is_run(task) else "jobs"
        return Request(method="GET", url=f"/api/v1/{path}/{quote(task.id, safe='')}")

    def read_look(self, answer: CallResponse, task: ProviderTask) -> ProviderUpdate | Request:
        """Return the run or job. Its own state is that of the data: the envelope's is that of the request."""
        data = _data(answer)
        status, word = status_of(data.get("status"), _WORDS)
        common = {
            "word": word,
            "provider_task_id": id_of(data, "id"),
            "created_at": fields.read_time(data.get("created_at")),
            "ended_at": fields.read_time(data.get("updated_at")) if status in _ENDS else None,
        }
        return report(status, **common, **(_of_run(data, status) if _is_run(task) else _of_job(data, status)))

    def account(self) -> Request:
        """Return the list of the account's webhooks, for which a key is needed."""
        return Request(method="GET", url="/api/v1/webhooks")

    def judge(self, answer: CallResponse) -> Judgement:
        """Return what the error's code says where the status does not."""
        if answer.status < 400:
            return Judgement.BY_STATUS
        error = answer.body.get("error") if isinstance(answer.body, dict) else None
        code = str(error.get("code")) if isinstance(error, dict) else None
        if code in _UNKNOWN_IDS:
            return Judgement.MISSING
        return Judgement.LATER if code in _NOT_STARTED else Judgement.BY_STATUS

    def verify(self, body: bytes, headers: Headers, *, credentials: Credentials, keys: Any, now: float) -> Signature:
        """Check the HMAC of the body with the secret under which the address was registered."""
        given = header(headers, "x-pi-signature")
        if not given.startswith(_SIGNATURE):
            return Signature.WRONG
        return verify_hmac_hex(credentials.get("webhook_secret", ""), given.removeprefix(_SIGNATURE), body)

    def parse_webhook(self, value: Any) -> WebhookOutcome:
        """Return that the job has news.

        What the event says of it is not believed: nothing in its signature is about a time, so that it can be sent
        again by anybody who has seen it. And the jobs of a run's steps come here too, which are no tasks of ours.
        """
        body = object_of(value)
        if str(body.get("type")) not in _EVENTS:
            raise MalformedUpdate(f"type must be {' or '.join(sorted(_EVENTS))}")
        return LookNow(id_of(object_of(object_of(body.get("data")).get("job")), "id"))


_ENDS = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


def _data(answer: CallResponse) -> dict[str, Any]:
    return object_of(object_of(answer.body).get("data"))


def _is_run(task: ProviderTask) -> bool:
    kind = (task.handle or {}).get("kind")
    return kind == "run" if kind else task.model == RUN_MODEL


def _of_job(job: dict[str, Any], status: TaskStatus | None) -> dict[str, Any]:
    payload = job.get("payload")
    # Its input is the task's own, and what else is there grows as the job advances.
    told = {name: value for name, value in payload.items() if name != "input"} if isinstance(payload, dict) else {}
    whole = {**job, "payload": told}
    output = {name: whole[name] for name in _JOB_RESULT if whole.get(name)}
    error = failure(None, job.get("error_log")) if status == TaskStatus.FAILED else None
    return {"output": output if status == TaskStatus.COMPLETED else None, "error": error}


def _of_run(run: dict[str, Any], status: TaskStatus | None) -> dict[str, Any]:
    listed = run.get("steps")
    steps = [step for step in listed if isinstance(step, dict)] if isinstance(listed, list) else []
    ended = sum(step.get("status") in ("completed", "failed", "skipped") for step in steps)
    error = None
    if status == TaskStatus.FAILED:
        failed = next((step for step in steps if step.get("error")), None)
        words = failed["error"] if failed else None
        error = failure(None, words, detail={"step": failed.get("id"), "error": words} if failed else None)
    return {
        "output": {"steps": steps} if status == TaskStatus.COMPLETED else None,
        "error": error,
        "progress": 0 if status in _ENDS or not steps else 100 * ended // len(steps),
    }
