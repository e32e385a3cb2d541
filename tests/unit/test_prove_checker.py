"""The checker of `make prove`: a sound history has no anomaly, and each contradiction breaks its promise."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.prove.checker import PROMISES, Verdict, check
from tests.prove.checker.line import parsed

Document = dict[str, Any]


class Story:
    """A sound history of one task, one run of one step and one webhook, to be changed by a test."""

    def __init__(self) -> None:
        self.lines: list[Document] = []
        self.tables: dict[str, list[Document]] = {}
        self._webhook()
        self._task("t1", "p1", mark="m1", key="k1", op="create")
        self._run()

    def add(self, who: str, what: str, **fields: Any) -> None:
        self.lines.append({"who": who, "what": what, **fields})

    def call(self, number: int, op: str, *, status: int | None = 200, code: str | None = None, **fields: Any) -> None:
        ids = fields.pop("ids", [])
        self.add("client", "call", call=number, op=op, **fields)
        if status is None:
            self.add("client", "no_answer", call=number, error="ReadError")
        else:
            self.add("client", "answer", call=number, status=status, code=code, ids=ids)

    def row(self, table: str, **values: Any) -> Document:
        self.tables.setdefault(table, []).append(values)
        return values

    def rows(self, table: str, **wanted: Any) -> list[Document]:
        return [row for row in self.tables[table] if all(row.get(name) == value for name, value in wanted.items())]

    def made(self, provider_id: str, mark: str, task_id: str | None, attempt: int = 1, answered: int = 200) -> None:
        known = {"provider_task_id": provider_id}
        self.add("provider", "made", **known, mark=mark, task_id=task_id, attempt=attempt, webhook=True)
        self.add("provider", "answered", op="create", status=answered, **known)

    def received(self, event_id: str, type: str, task_id: str | None, answer: int | None = 200, **fields: Any) -> None:
        about = {"event_id": event_id, "type": type, "task_id": task_id}
        self.add("subscriber:all", "received", **{**about, "ok": True, "answer": answer, **fields})

    def event(self, uid: str, type: str, task_id: str | None, run_id: str | None = None, **fields: Any) -> None:
        sequence = len(self.tables.get("events", [])) + 1
        about = {"event_id": uid, "sequence": sequence, "type": type, "task_id": task_id, "run_id": run_id}
        self.row("events", **about, snapshot=fields)
        self.row("deliveries", webhook_id="w1", event_id=uid, status="delivered", attempt=1)
        self.received(uid, type, task_id)
        self.add("stream", "event", event_id=uid, sequence=sequence, type=type)

    def verdict(self) -> Verdict:
        ends = [{"who": "rows", "what": name, "rows": rows} for name, rows in self.tables.items()]
        return check(list(parsed([*self.lines, *ends])))

    def _webhook(self) -> None:
        self.call(1, "webhook", ids=["w1"], name="all")
        self.row(
            "webhooks", webhook_id="w1", name="all", kind="registered", ordered=True, is_active=True, event_types=None
        )

    def _task(self, uid: str, provider_id: str, *, mark: str, key: str | None, op: str) -> None:
        self.add("client", "call", call=10, op=op, key=key, mark=mark)
        self.made(provider_id, mark, uid)
        self.add("client", "answer", call=10, status=200, code=None, ids=[uid])
        self._end(uid, provider_id, mark=mark)

    def _end(self, uid: str, provider_id: str, *, mark: str, run_id: str | None = None) -> None:
        known = {"provider_task_id": provider_id}
        self.event(f"{uid}-created", "task.created", uid, run_id, attempt=1)
        self.add("provider", "ended", status="completed", **known)
        self.add("provider", "webhook", status="completed", kind="true", answer=200, **known)
        self.event(f"{uid}-completed", "task.completed", uid, run_id, attempt=1, **known)
        states = {"status": "completed", "submission": "accepted", "attempt": 1, "ended_event": f"{uid}-completed"}
        self.row("tasks", task_id=uid, mark=mark, run_id=run_id, submitted_at="2026-01-01T00:00:00Z", **states, **known)

    def _run(self) -> None:
        self.call(20, "run", status=202, mark="m2", ids=["r1"])
        self.made("p2", "m2.s1", "t2")
        self._end("t2", "p2", mark="m2.s1", run_id="r1")
        self.event("r1-completed", "run.completed", None, "r1")
        self.row("runs", run_id="r1", mark="m2", status="completed", ended_event="r1-completed", ended_at=None)
        self.row("steps", run_id="r1", name="one", status="completed", task_id="t2")


def lost_row(story: Story) -> None:
    story.call(30, "bulk", ids=["t3"], mark="m3", count=1)


def open_task(story: Story) -> None:
    story.rows("tasks", task_id="t1")[0].update(status="processing", ended_event=None)


def second_row_of_a_key(story: Story) -> None:
    story.call(30, "create", key="k1", mark="m1", ids=["t1"])
    story.row("tasks", **{**story.rows("tasks", task_id="t1")[0], "task_id": "t9", "provider_task_id": None})


def attempt_too_many(story: Story) -> None:
    story.call(30, "task_retry", target="t1", key="again", status=503, code="storage_unavailable")
    story.call(31, "task_retry", target="t1", key="again")
    for number in (2, 3):
        story.event(f"t1-again-{number}", "task.updated", "t1", status="queued", attempt=number, retries="t1-completed")


def stored_all_the_same(story: Story) -> None:
    story.call(30, "create", status=503, code="storage_unavailable", mark="m3")
    story.row(
        "tasks", **{**story.rows("tasks", task_id="t1")[0], "task_id": "t3", "mark": "m3", "provider_task_id": None}
    )


def internal_error(story: Story) -> None:
    story.call(30, "create", status=500, code="internal_error", mark="m3")


def bought_twice(story: Story) -> None:
    story.made("p9", "m1", "t1")


def bought_beside_another(story: Story) -> None:
    story.made("p9", "m1", "t1", attempt=2)


def bought_without_a_row(story: Story) -> None:
    story.made("p9", "m9", "t9")


def bought_after_a_cancel(story: Story) -> None:
    story.rows("runs")[0].update(status="cancelled", ended_at="2026-01-01T00:00:05Z", ended_event="r1-cancelled")
    story.event("r1-cancelled", "run.cancelled", None, "r1")
    story.call(30, "run_cancel", target="r1")
    story.made("p9", "m2.s1", "t2", attempt=2)
    story.rows("tasks", task_id="t2")[0].update(attempt=2, submitted_at="2026-01-01T00:00:06Z")
    story.row("attempts", task_id="t2", number=1, provider_task_id="p2", submitted_at="2026-01-01T00:00:00Z")


def cancelled_yet_completed(story: Story) -> None:
    story.call(30, "task_cancel", target="t1")


def acknowledged_end_is_nowhere(story: Story) -> None:
    story.add("provider", "webhook", provider_task_id="elsewhere", status="completed", kind="true", answer=200)


def stored_by_a_later_poll(story: Story) -> None:
    story.lines.insert(0, {"who": "campaign", "what": "begin", "at": 0.0, "wall": 0.0})
    event = story.rows("events", event_id="t1-completed")[0]
    event["snapshot"]["source"] = "poll"
    event["created_at"] = "1970-01-01T01:00:00Z"


def row_against_the_provider(story: Story) -> None:
    for line in story.lines:
        if line.get("provider_task_id") == "p1" and line["what"] == "ended":
            line["status"] = "failed"
        if line.get("provider_task_id") == "p1" and line["what"] == "webhook":
            line["answer"] = None
    story.rows("events", event_id="t1-completed")[0]["snapshot"]["provider_task_id"] = None


def event_of_another_attempt(story: Story) -> None:
    story.event("t1-updated", "task.updated", "t1", status="processing", attempt=2, provider_task_id="p1")


def forged_accepted(story: Story) -> None:
    story.add("provider", "webhook", provider_task_id="p1", status="failed", kind="forged", answer=200)


def never_told(story: Story) -> None:
    story.lines = [line for line in story.lines if line.get("event_id") != "t1-created" or line["who"] == "stream"]
    story.rows("deliveries", event_id="t1-created")[0]["status"] = "pending"


def never_received(story: Story) -> None:
    story.event("hook", "webhook.disabled", None)
    story.lines = [line for line in story.lines if line.get("event_id") != "hook" or line["who"] == "stream"]


def other_id(story: Story) -> None:
    story.received("t1-completed-again", "task.completed", "t1")


def wrong_signature(story: Story) -> None:
    story.received("t2-completed", "task.completed", "t2", ok=False)


def older_after_later(story: Story) -> None:
    story.received("t1-created", "task.created", "t1")


def gap_in_the_stream(story: Story) -> None:
    story.lines = [line for line in story.lines if line["who"] != "stream" or line["event_id"] != "t2-created"]


def end_without_event(story: Story) -> None:
    story.rows("tasks", task_id="t1")[0]["ended_event"] = None


def second_end(story: Story) -> None:
    story.event("t1-completed-2", "task.completed", "t1", attempt=1, provider_task_id="p1")


def step_unlike_its_task(story: Story) -> None:
    story.rows("steps")[0]["status"] = "processing"


def second_delivery(story: Story) -> None:
    story.row("deliveries", webhook_id="w1", event_id="t1-created", status="delivered", attempt=1)


def gap_in_the_report(story: Story) -> None:
    story.add("report", "report", status=1, missing=False, told={"gaps": ["t1"]})


CONTRADICTIONS: dict[str, Callable[[Story], None]] = {
    "acknowledged exists": lost_row,
    "everything ends": open_task,
    "one key, one work": second_row_of_a_key,
    "one key, one attempt": attempt_too_many,
    "nothing stored is true": stored_all_the_same,
    "no internal error": internal_error,
    "never bought twice": bought_twice,
    "one attempt at a time": bought_beside_another,
    "intent first": bought_without_a_row,
    "nothing after a cancel": bought_after_a_cancel,
    "cancelled stays cancelled": cancelled_yet_completed,
    "acknowledged webhooks stand": acknowledged_end_is_nowhere,
    "answered webhooks are on disk": stored_by_a_later_poll,
    "rows agree with the provider": row_against_the_provider,
    "events agree with the provider": event_of_another_attempt,
    "forged is refused": forged_accepted,
    "everything is told": never_told,
    "delivered was received": never_received,
    "told under one id": other_id,
    "every delivery is signed": wrong_signature,
    "ordered is in order": older_after_later,
    "streams are exact": gap_in_the_stream,
    "ends have events": end_without_event,
    "one end an attempt": second_end,
    "runs follow their steps": step_unlike_its_task,
    "one delivery a webhook": second_delivery,
    "the report adds up": gap_in_the_report,
}


def test_a_sound_history_has_no_anomaly() -> None:
    verdict = Story().verdict()
    assert verdict.anomalies == ()
    assert verdict.counts["creates acknowledged"] == 1
    assert verdict.counts["runs acknowledged"] == 1


@pytest.mark.parametrize("promise", CONTRADICTIONS)
def test_a_contradiction_breaks_its_promise(promise: str) -> None:
    story = Story()
    CONTRADICTIONS[promise](story)
    verdict = story.verdict()
    assert promise in verdict.broken_promises
    assert [anomaly for anomaly in verdict.anomalies if anomaly.promise == promise and anomaly.text]


def test_every_promise_can_be_broken() -> None:
    assert list(CONTRADICTIONS) == [promise.name for promise in PROMISES]


def test_a_call_under_way_when_its_run_was_cancelled_is_no_contradiction() -> None:
    story = Story()
    bought_after_a_cancel(story)
    story.rows("tasks", task_id="t2")[0]["submitted_at"] = "2026-01-01T00:00:04Z"
    assert "nothing after a cancel" not in story.verdict().broken_promises


def test_a_task_that_the_provider_denied_is_counted_and_not_held_against_the_service() -> None:
    story = Story()
    story.made("p9", "m1", "t1", answered=503)
    verdict = story.verdict()
    assert "never bought twice" not in verdict.broken_promises
    assert verdict.counts["bought again after the provider said that it made nothing"] == 1


def test_a_delivery_that_was_given_up_is_counted() -> None:
    story = Story()
    never_told(story)
    story.rows("deliveries", event_id="t1-created")[0]["status"] = "dead"
    verdict = story.verdict()
    assert verdict.anomalies == ()
    assert verdict.counts["deliveries given up"] == 1


def test_a_webhook_is_owed_only_what_was_created_after_its_registration() -> None:
    story = Story()
    story.call(30, "webhook", ids=["w2"], name="late")
    story.row(
        "webhooks", webhook_id="w2", name="late", kind="registered", ordered=False, is_active=True, event_types=None
    )
    assert story.verdict().anomalies == ()


def test_a_webhook_with_a_replay_of_everything_is_owed_everything() -> None:
    story = Story()
    story.call(30, "webhook", ids=["w2"], name="late")
    story.call(31, "replay", target="w2", status=202)
    story.row("webhooks", webhook_id="w2", name="late", kind="registered", ordered=False, is_active=True)
    assert "everything is told" in story.verdict().broken_promises


def test_a_step_that_begins_again_unasked_is_an_anomaly() -> None:
    story = Story()
    story.row("tasks", **{**story.rows("tasks", task_id="t2")[0], "task_id": "t9", "provider_task_id": None})
    assert "one key, one attempt" in story.verdict().broken_promises


def test_a_false_failure_is_counted_until_it_is_healed() -> None:
    story = Story()
    story.rows("tasks", task_id="t1")[0].update(status="failed", error="submission_unknown", provider_task_id=None)
    assert story.verdict().counts["false failures"] == 1
    story = Story()
    story.rows("events", event_id="t1-completed")[0]["snapshot"]["corrects"] = "t1-failed"
    counts = story.verdict().counts
    assert (counts["false failures"], counts["false failures healed"]) == (0, 1)


def test_faults_are_counted_with_those_that_hit() -> None:
    story = Story()
    story.add("fault", "kill", hit=True)
    story.add("fault", "kill", hit=False)
    assert story.verdict().faults == {"kill": (2, 1)}


def test_an_end_that_a_poll_stored_before_its_webhook_was_answered_is_no_contradiction() -> None:
    story = Story()
    stored_by_a_later_poll(story)
    story.rows("events", event_id="t1-completed")[0]["created_at"] = "1970-01-01 00:00:00.500000"
    assert story.verdict().anomalies == ()


def test_a_correction_of_a_failure_is_no_second_end() -> None:
    story = Story()
    story.event("t1-failed", "task.failed", "t1", attempt=1, error="timed_out")
    story.event("t1-healed", "task.completed", "t1", attempt=1, provider_task_id="p1", corrects="t1-failed")
    story.rows("tasks", task_id="t1")[0]["ended_event"] = "t1-healed"
    story.tables["events"] = [row for row in story.tables["events"] if row["event_id"] != "t1-completed"]
    assert "one end an attempt" not in story.verdict().broken_promises
