"""Runs, and tasks as jobs, as JSON values in Pi's form (`receiver/api/CONTRACTS.md`, "Pi"). Arguments are rows."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from models import TaskStatus
from receiver.domain.representations import Fields, pi_job, unix

JOB_FIELDS = (
    "object",
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
"""The fields of a job, in Pi's order, after its kind."""


def native_run(run: Fields, steps: Sequence[Fields]) -> dict[str, Any]:
    """Return a run with its steps. Times are unix seconds, or null."""
    return {
        "object": "run",
        "id": run["uid"],
        "org_id": run["organization_uid"],
        "status": run["status"],
        "steps": [_run_step(step) for step in steps],
        "metadata": run["metadata"],
        "created_at": unix(run["created_at"]),
        "updated_at": unix(run["updated_at"]),
    }


def brief_run(run: Fields, steps: Sequence[Fields]) -> dict[str, Any]:
    """Return a run as `native_run`, and how long it took in seconds; of each step only how far it is.

    The rows of the steps have the columns that do not become large.
    """
    took = None if run["ended_at"] is None else (run["ended_at"] - run["created_at"]).total_seconds()
    return {**native_run(run, ()), "steps": [_brief_step(step) for step in steps], "duration_seconds": took}


def detailed_run(run: Fields, attempts: Mapping[str, Sequence[Fields]]) -> dict[str, Any]:
    """Return a run as `native_run`, with each step as it was requested, and the attempts of its task.

    `attempts` has them by the task's id, in the form of the API.
    """
    view = native_run(run, run["steps"])
    for step, row in zip(view["steps"], run["steps"], strict=True):
        spec = row["spec"]["step"]
        step.update({name: spec[name] for name in ("input", "input_map", "on_failure")})
        step["retry"] = {name: spec[name] for name in ("max_attempts", "backoff_seconds")}
        step["attempts"] = list(attempts.get(row["task_uid"], ()))
    return view


def native_job(task: Fields, organization_uid: str) -> dict[str, Any]:
    """Return a task as `GET /api/v1/jobs/{id}` returns it. A completed task has its output in `job_result`."""
    job = {"object": "job", **pi_job(task), "org_id": organization_uid}
    if task["status"] == TaskStatus.COMPLETED:
        job["job_result"] = task["output"]
    return {name: job[name] for name in JOB_FIELDS if name in job}


def _brief_step(step: Fields) -> dict[str, Any]:
    return {
        "id": step["name"],
        "status": step["status"],
        "job_id": step["task_uid"],
        "started_at": _unix_or_none(step["started_at"]),
        "completed_at": _unix_or_none(step["completed_at"]),
    }


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
        "provider": step["spec"]["action"]["provider"],  # which Pi does not have
    }


def _unix_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else unix(moment)
