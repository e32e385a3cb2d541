"""The page on which a run is created from JSON: the API says what is wrong with it, and the text stays."""

from collections.abc import Mapping
from typing import Any

import orjson
from markupsafe import Markup, escape
from starlette.responses import Response

from models import Scope
from receiver.api import runs as api
from receiver.dashboard.asking import ApiRefusal
from receiver.dashboard.visit import Visit
from receiver.domain.graph import MOST_STEPS
from receiver.errors import NotAllowed
from receiver.large_bodies import read_by_size
from receiver.printable import printable_json

FIELD = "run"
_OF_STEP = ("id", "action", "depends_on", "input", "input_map", "on_failure", "retry")
_ACTIONS_SHOWN = 12
_STAYS = "\n\r\t"
EXAMPLE = """{
  "steps": [
    {
      "id": "picture",
      "action": "Qubico/flux1-schnell:txt2img",
      "input": {"prompt": "a lighthouse at dusk"}
    },
    {
      "id": "film",
      "action": "kling:video_generation",
      "depends_on": ["picture"],
      "input": {"prompt": "waves roll in", "duration": 5},
      "input_map": {"image_url": "$steps.picture.result.image_url"},
      "retry": {"max_attempts": 2, "backoff_seconds": 10}
    }
  ],
  "metadata": {"project": "lighthouse"}
}
"""


async def show_form(visit: Visit) -> Response:
    """Show the form with an example, or with the request of the run that the query's `from` names."""
    if not visit.can(Scope.WRITE):
        raise NotAllowed("this key may read, and create nothing")
    uid = dict(visit.query).get("from")
    if not uid:
        return await _form(visit, EXAMPLE)
    run = await visit.ask(api.get_run, run_id=uid, query={"include": "details"})
    text = await read_by_size(
        len(run["steps"]) << 16, lambda: orjson.dumps(request_of(run), option=orjson.OPT_INDENT_2)
    )
    return await _form(visit, text.decode() + "\n")


async def create(visit: Visit) -> Response:
    """Create the run, and lead to it; show the form again with what is wrong."""
    # A browser sends each line break as two characters, which would count towards the bytes that a run may have.
    text = visit.form.get(FIELD, "").replace("\r\n", "\n")
    try:
        run = await visit.ask(api.create_run, body=text.encode())
    except ApiRefusal as refused:
        if not visit.can(Scope.WRITE):
            raise
        return await _form(visit, text, refused)
    return visit.redirect(f"/runs/{run['run_id']}")


def request_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request that creates a run like this one, which the API returned with its details."""
    steps = [{name: step[name] for name in _OF_STEP if step[name] not in ([], {})} for step in run["steps"]]
    return {"steps": steps, **({} if run["metadata"] is None else {"metadata": run["metadata"]})}


async def _form(visit: Visit, text: str, fault: ApiRefusal | None = None) -> Response:
    named = sorted(visit.services.runs.actions.named)
    return visit.page(
        "new_run.html",
        status=fault.status if fault else 200,
        text=await read_by_size(len(text), lambda: shown_text(text)),
        fault=fault,
        was_sent=fault is not None and fault.error.get("code") == "idempotency_key_mismatch",
        actions=named[:_ACTIONS_SHOWN],
        more_actions=max(len(named) - _ACTIONS_SHOWN, 0),
        most_steps=MOST_STEPS,
        most_bytes=api.MOST_RUN_BYTES,
    )


def shown_text(text: str) -> Markup:
    """Return JSON as a person wrote it, for a field: the same JSON, with JSON's escapes for what cannot be seen."""
    unseen = {ord(each): _escape(each) for each in set(text) if not each.isprintable() and each not in _STAYS}
    return escape(text.translate(unseen))


def _escape(letter: str) -> str:
    return f"\\u{ord(letter):04x}" if letter.isascii() else printable_json(letter)
