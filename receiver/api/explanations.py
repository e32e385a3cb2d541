"""Why something is in its state, and what happens next: `/api/v1/{tasks,runs,deliveries}/{id}/explain`."""

from models import DeliveryStatus
from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.api.ids import find_row
from receiver.clock import utc_now
from receiver.domain.advance import UNDER_WAY
from receiver.domain.delivery_explanations import DeliveryFacts
from receiver.domain.delivery_explanations import explain_delivery as explained_delivery
from receiver.domain.explanations import native_explanation
from receiver.domain.run_explanations import explain_run as explained_run
from receiver.storage.explanations import deliveries_queued_before, delivery_to_explain, earlier_delivery


async def explain_task(call: Call) -> Reply:
    """`GET /api/v1/tasks/{id}/explain`: why a task is in its state, what happens next and when."""
    uid, explanation = await call.services.task_explainer.explain(call.organization_id, call.path("task_id"))
    return Reply(native_explanation("task_id", uid, explanation, utc_now()), "explanation")


async def explain_run(call: Call) -> Reply:
    """`GET /api/v1/runs/{id}/explain`: the same for a run, from what its steps wait for."""
    run = await call.services.runs.run(call.organization_id, call.path_id("run_id"))
    under_way = [step["task_uid"] for step in run["steps"] if step["status"] in UNDER_WAY and step["task_uid"]]
    tasks = await call.services.task_explainer.explain_all(call.organization_id, under_way)
    now = utc_now()
    explanation = explained_run(run, run["steps"], tasks, now)
    return Reply(native_explanation("run_id", run["uid"], explanation, now), "explanation")


async def explain_delivery(call: Call) -> Reply:
    """`GET /api/v1/deliveries/{id}/explain`: the same for a delivery."""
    database = call.services.database
    query = delivery_to_explain(call.organization_id, call.path_id("delivery_id"))
    row = await find_row(database, query, "delivery")
    before, earlier = 0, None
    if row["status"] == DeliveryStatus.PENDING and row["due_at"] is not None:
        before = (await database.read(deliveries_queued_before(row)))[0]["count"]
        if row["ordered"] and row["task_id"] is not None:
            earlier = next((each["uid"] for each in await database.read(earlier_delivery(row))), None)
    now, delays = utc_now(), call.services.settings.retry_delays
    facts = DeliveryFacts(now=now, delays=delays, queued_before=before, earlier=earlier)
    view = native_explanation("delivery_id", row["uid"], explained_delivery(row, facts), now)
    return Reply(view, "explanation")
