"""The page of one run: its graph, when each step worked, what went from step to step, and what can be done with it."""

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

from models import RUN_TERMINAL, STEP_TERMINAL, RunStatus, StepStatus
from receiver.api import explanations
from receiver.api import runs as api
from receiver.api import tasks as tasks_api
from receiver.dashboard.answers import attachment
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.documents import document
from receiver.dashboard.explained import shown_explanation
from receiver.dashboard.gantt import Times, gantt
from receiver.dashboard.new_run import request_of
from receiver.dashboard.run_graph import run_graph
from receiver.dashboard.timeline import history
from receiver.dashboard.times import between
from receiver.dashboard.visit import Visit
from receiver.domain.references import parse_reference, resolve
from receiver.errors import NotFound, RingbackError
from receiver.large_bodies import read_apart
from receiver.printable import printable_json

_MOST_EVENTS = 100
_MOST_TASKS = 50
_LONGEST_CURL = 8 * 1024
"""Characters of a request that stands in a command; a larger one is a file."""
_SHORT = 200
"""Characters of a value that stands in the line of its name."""
_FILES = ("input", "result", "error")
_ACTS = {
    "cancel": (api.cancel_run, "The run is {status}."),
    "retry": (api.retry_run, "What failed, was skipped or cancelled is done again: the run is {status}."),
}
_Object = dict[str, Any]


async def show_run(visit: Visit) -> Response:
    """Show a run."""
    run = await visit.ask(api.get_run, run_id=visit.path("run_id"), query={"include": "details"})
    uid = str(run["id"])
    explanation = await visit.ask(explanations.explain_run, run_id=uid)
    tasks = await visit.ask(tasks_api.list_tasks, query={"run_id": uid, "brief": "true", "limit": _MOST_TASKS})
    events = await visit.ask(api.list_run_events, run_id=uid, query={"brief": "true", "limit": _MOST_EVENTS})
    facts = explanation["facts"]
    times = Times(facts["created_at"], facts["ended_at"])
    picture = gantt(run["steps"], tasks["data"][::-1], times, visit.now)
    return visit.page(
        "run.html",
        run=run,
        is_over=run["status"] in RUN_TERMINAL,
        can_retry=run["status"] in (RunStatus.FAILED, RunStatus.CANCELLED),
        times=times,
        took=between(times.created_at, times.ended_at, visit.now),
        completed=sum(step["status"] == StepStatus.COMPLETED for step in run["steps"]),
        failed=[step for step in run["steps"] if step["status"] == StepStatus.FAILED],
        explained=shown_explanation(explanation, visit.now),
        graph=run_graph(run["steps"]),
        gantt=picture,
        steps=await read_apart(lambda: _steps(run, {lane.step["id"]: lane for lane in picture.lanes})),
        tasks=tasks["data"],
        has_more_tasks=tasks["has_more"],
        terminal=STEP_TERMINAL,
        history=history(events["data"][::-1]),
        has_more_events=events["has_more"],
        curl=await read_apart(lambda: _curl(visit, run)),
        live=visit.url("/live", {"run_id": uid}),
    )


async def download(visit: Visit) -> Response:
    """Return a document of a step as a file."""
    uid, query = visit.path("run_id"), dict(visit.query)
    run = await visit.ask(api.get_run, run_id=uid, query={"include": "details"})
    step = next((each for each in run["steps"] if each["id"] == query.get("step")), None)
    part = query.get("part", "")
    if step is None or part not in _FILES:
        raise NotFound("a run has no such file")
    content = await read_apart(lambda: orjson.dumps(step[part]))
    return attachment(content, f"{uid}.{step['id']}.{part}.json", "application/json")


async def act(visit: Visit) -> Response:
    """Cancel or retry a run."""
    uid, name = visit.path("run_id"), visit.path("act")
    if name not in _ACTS:
        raise NotFound("there is no such action")
    handler, text = _ACTS[name]
    otherwise = f"/runs/{quote(uid, safe='')}"
    try:
        run = await visit.ask(handler, run_id=uid)
    except ApiRefusal as refused:
        return visit.not_done(refused, otherwise=otherwise)
    return visit.done(text.format(status=run["status"]), otherwise=otherwise)


def _steps(run: _Object, lanes: Mapping[str, Any]) -> list[_Object]:
    """Return the steps with their documents as the page shows them, and what came to each from others."""
    results = {step["id"]: step["result"] for step in run["steps"]}
    return [
        {
            **step,
            "lane": lanes[step["id"]],
            "input": document(step["input"]) if step["input"] else None,
            "mapped": _mapped(step["input_map"], results, run["metadata"]),
            "result": document(step["result"]) if step["result"] is not None else None,
            "used_by": _used_by(step["id"], run["steps"]),
        }
        for step in run["steps"]
    ]


def _mapped(input_map: Mapping[str, str], results: Mapping[str, Any], metadata: Any) -> list[_Object]:
    """Return each name of an input that comes from elsewhere: from where, and what came, if it is there."""
    found = []
    for name, text in input_map.items():
        value = None
        with suppress(RingbackError):  # it is not there yet, or never will be
            value = resolve(parse_reference(text), results=results, metadata=metadata)
        is_short = value is not None and not isinstance(value, dict | list) and len(str(value)) <= _SHORT
        found.append(
            {
                "name": name,
                "text": text,
                "short": orjson.dumps(value).decode() if is_short else None,
                "value": None if value is None or is_short else document(value),
            }
        )
    return found


def _used_by(name: str, steps: Sequence[_Object]) -> list[str]:
    return [step["id"] for step in steps if name in step["depends_on"]]


def _curl(visit: Visit, run: _Object) -> list[tuple[str, str]]:
    """Return commands, each with what it does: text that a shell takes as it is."""
    base = str(visit.request.base_url).rstrip("/")
    key = '-H "Authorization: Bearer $RINGBACK_API_KEY"'
    one = f"{base}/api/v1/runs/{run['id']}"
    text = orjson.dumps(request_of(run)).decode()
    data = shlex.quote(printable_json(text)) if len(text) <= _LONGEST_CURL else "@run.json"
    return [
        ("Read this run", f"curl {key} \\\n  {shlex.quote(one)}"),
        (
            "Create one like it",
            f"curl {key} \\\n  -H 'Content-Type: application/json' \\\n"
            f"  {shlex.quote(f'{base}/api/v1/runs')} \\\n  -d {data}",
        ),
    ]
