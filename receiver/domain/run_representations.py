"""How a run, and a task as a job, look from outside: Pi's forms (contracts/pi.md). Rows in, plain JSON values out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from models import TaskStatus
from receiver.domain.representations import Fields, pi_job, unix

JOB_FIELDS = (
    "id",
    "org_id",
    "type",
    "status",
    "payload",
    "result_url",
    "error_log",
    "created_at",
    "updated_at",
    "job_result",
)
"""What there is to tell of a job, in Pi's order."""


def native_run(run: Fields, steps: Sequence[Fields]) -> dict[str, Any]:
    """Return a run with its steps. Times are unix seconds, or null."""
    return {
        "id": run["uid"],
        "org_id": run["organization_uid"],
        "status": run["status"],
        "steps": [_run_step(step) for step in steps],
        "metadata": run["metadata"],
        "created_at": unix(run["created_at"]),
        "updated_at": unix(run["updated_at"]),
    }


def native_job(task: Fields, organization_uid: str) -> dict[str, Any]:
    """Return a task as `GET /api/v1/jobs/{id}` gives it; `job_result` is its output, once it is completed."""
    shown = {**pi_job(task), "org_id": organization_uid}
    if task["status"] == TaskStatus.COMPLETED:
        shown["job_result"] = task["output"]
    return {name: shown[name] for name in JOB_FIELDS if name in shown}


def _run_step(step: Fields) -> dict[str, Any]:
    return {
        "id": step["name"],
        "action": step["spec"]["step"]["action"],
        "status": step["status"],
        "depends_on": step["spec"]["step"]["depends_on"],
        "job_id": step["task_uid"],
        "result": step["result"],
        "error": step["error"],
        "started_at": _unix_or_none(step["started_at"]),
        "completed_at": _unix_or_none(step["completed_at"]),
    }


def _unix_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else unix(moment)
