"""The mutants. Each breaks a promise in a way that a small slip in the code could."""

from tests.prove.faults.foreign import interfere
from tests.prove.mutants.faults import kill_at, kill_often, nothing, subscribers, weather
from tests.prove.mutants.mutating import Mutant
from tests.prove.weather import Weather

_REPEATING = Weather(fails=0.4, doubled=0.4, repeated_later=0.5, late=0.3, lost=0.05)
_LOSING_ANSWERS = Weather(submit={"cut after": 0.3, "502 after": 0.2}, lost=0.9)
_FORGING = Weather(forged=0.5)
_FAILING = {"500": 0.35, "cut": 0.1}

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        name="answers a webhook before its commit",
        what="a provider's webhook is answered with 200 while its write still waits",
        file="receiver/inbound/receive.py",
        old="        applied = await self._writer.write(self._applier.apply, arrival, essential=True)\n"
        '        return "stored", applied.trace_context, None\n',
        new=(
            '        __import__("asyncio").get_running_loop().call_later(\n'
            '            0.4, __import__("asyncio").ensure_future, self._writer.write(self._applier.apply, arrival)\n'
            "        )\n"
            '        return "stored", None, None\n'
        ),
        promises=("answered webhooks are on disk", "acknowledged webhooks stand"),
        fault=kill_often,
        rounds=3,
    ),
    Mutant(
        name="writes no intent",
        what="a task that waits is sent to the provider without a row that says so",
        file="receiver/tracking/submit.py",
        old="return await self._writer.write(mark_sending, intent, bounded=False)",
        new="return bool(intent)",
        promises=("never bought twice",),
        fault=kill_at("after_the_providers_answer"),
        rounds=4,
    ),
    Mutant(
        name="sends an unknown create again",
        what="a create call whose answer was lost is taken for one that made nothing",
        file="receiver/tracking/submit.py",
        old="await self._postpone(task, Submission.UNKNOWN, 0,",
        new="await self._postpone(task, Submission.WAITING, 1,",
        promises=("never bought twice",),
        fault=weather(_LOSING_ANSWERS),
    ),
    Mutant(
        name="drops a delivery of a batch",
        what="of many deliveries in one transaction the last is left out",
        file="receiver/events/new_deliveries.py",
        old="    keys = await tx.insert_deliveries(deliveries)\n",
        new=(
            "    deliveries = deliveries[:-1] if len(deliveries) > 3 else deliveries\n"
            "    keys = await tx.insert_deliveries(deliveries)\n"
        ),
        promises=("everything is told", "the report adds up"),
        fault=nothing,
    ),
    Mutant(
        name="gives each attempt another id",
        what="a delivery gets another id at each attempt",
        file="receiver/outbound/message.py",
        old="standard_headers(self.secrets, self.id, timestamp,",
        new='standard_headers(self.secrets, f"{self.id}-{timestamp}", timestamp,',
        promises=("told under one id",),
        fault=nothing,
    ),
    Mutant(
        name="signs another body",
        what="the signature does not cover the id of the message",
        file="receiver/domain/signatures.py",
        old='content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)',
        new='content = b"%b.%d.%b" % (b"", timestamp, body)',
        promises=("every delivery is signed",),
        fault=nothing,
    ),
    Mutant(
        name="takes an error for a success",
        what="any answer of a subscriber counts as delivered",
        file="receiver/outbound/sender.py",
        old="return self.error is None and self.status is not None and 200 <= self.status < 300",
        new="return self.status is not None",
        promises=("delivered was received", "everything is told"),
        fault=subscribers(_FAILING),
    ),
    Mutant(
        name="overtakes in an ordered webhook",
        what="an event for an ordered webhook does not wait for the one before it",
        file="receiver/events/new_deliveries.py",
        old="leased = not listener.ordered and after_commit",
        new="leased = after_commit",
        promises=("ordered is in order",),
        fault=subscribers(_FAILING),
    ),
    Mutant(
        name="believes forged webhooks",
        what="the secret of a webhook is not verified",
        file="receiver/inbound/secrets.py",
        old="return derived if is_id(task_uid) and self._keyring.verify_hook(task_uid, derived) else None",
        new="return derived",
        promises=("forged is refused",),
        fault=weather(_FORGING),
    ),
    Mutant(
        name="ignores idempotency keys",
        what="a request that is repeated with its key is done again",
        file="receiver/api/idempotency.py",
        old="    keys = headers.getlist(HEADER)\n",
        new="    keys: list[str] = []\n",
        promises=("one key, one work", "one key, one attempt"),
        fault=kill_at("after_the_commit_of_a_run"),
        rounds=2,
    ),
    Mutant(
        name="resumes a stream one too late",
        what="a stream that resumes leaves out the event after the last that was seen",
        file="receiver/events/stream.py",
        old='were purged", oldest=kept["oldest"])\n        return after',
        new='were purged", oldest=kept["oldest"])\n        return after + 1',
        promises=("streams are exact",),
        fault=kill_often,
        rounds=2,
    ),
    Mutant(
        name="publishes past a gap",
        what="on PostgreSQL a stream trusts that sequence numbers become visible in their order",
        file="receiver/events/postgresql_log.py",
        old='for sequence, row in enumerate(rows, after + 1) if row["sequence"] == sequence]',
        new='for _, row in enumerate(rows) if row["sequence"] > after]',
        promises=("streams are exact",),
        fault=interfere,
        rounds=4,
        kind="postgresql",
    ),
    Mutant(
        name="believes superseded attempts",
        what="a late webhook of an attempt that another one followed changes the task",
        file="receiver/domain/transitions.py",
        old="    if superseded_reason:\n",
        new="    if superseded_reason and now is None:\n",
        promises=("events agree with the provider", "rows agree with the provider"),
        fault=weather(_REPEATING),
        rounds=2,
    ),
    Mutant(
        name="ends a task twice",
        what="an end that is told again is applied again",
        file="receiver/domain/transitions.py",
        old="    if task.status in TERMINAL:\n        return _after_end(",
        new="    if task.status in TERMINAL and now is None:\n        return _after_end(",
        promises=("one end an attempt",),
        fault=weather(_REPEATING),
    ),
    Mutant(
        name="takes work for its result",
        what="the provider's word for a running task is read as its end",
        file="receiver/providers/fields.py",
        old='TaskStatus.COMPLETED: "completed complete',
        new='TaskStatus.COMPLETED: "processing completed complete',
        promises=("events agree with the provider", "rows agree with the provider"),
        fault=nothing,
    ),
    Mutant(
        name="goes on with a cancelled run",
        what="the end of a step moves a run that was cancelled",
        file="receiver/domain/advance.py",
        old="    if status in RUN_TERMINAL:\n        return Advance(RunStatus(status))\n",
        new="    if status in RUN_TERMINAL - {RunStatus.CANCELLED}:\n        return Advance(RunStatus(status))\n",
        promises=("cancelled stays cancelled", "nothing after a cancel", "runs follow their steps"),
        fault=nothing,
        rounds=3,
    ),
    Mutant(
        name="forgets the last of a bulk",
        what="a bulk create stores all of its tasks but the last, and acknowledges them all",
        file="receiver/tracking/create.py",
        old="requests = list(chain.from_iterable(bulks))",
        new="requests = list(chain.from_iterable(bulk[: max(1, len(bulk) - 1)] for bulk in bulks))",
        promises=("acknowledged exists",),
        fault=nothing,
        rounds=2,
    ),
    Mutant(
        name="forgets the recalls of a run",
        what="the cancel of a run leaves the tasks of its steps as they are",
        file="receiver/runs/changes.py",
        old="events = await self._tasks.recall(tx, recalled, now) if recalled else []",
        new="events: list[NewEvent] = []",
        promises=("nothing after a cancel",),
        fault=nothing,
        rounds=8,
    ),
)
