"""The promises: every sentence that `make prove` checks, with what looks for contradictions to it in a history."""

from tests.prove.checker import creates, deliveries, purchases, rows, streams, truth
from tests.prove.checker.promise import Promise

PROMISES: tuple[Promise, ...] = (
    Promise(
        "acknowledged exists",
        "Every task, bulk and run whose create was answered with a 2xx is in the tables.",
        creates.acknowledged_exists,
    ),
    Promise(
        "everything ends",
        "When the faults have stopped, every task and every run reaches an end.",
        creates.everything_ends,
    ),
    Promise(
        "one key, one work",
        "Requests with one Idempotency-Key make one task, bulk or run, and their answers name the same ids.",
        creates.one_key_one_work,
    ),
    Promise(
        "one key, one attempt",
        "A retry that is requested again and again under one Idempotency-Key begins one further attempt.",
        creates.one_key_one_attempt,
    ),
    Promise(
        "nothing stored is true",
        "After an answer that says that nothing was stored, nothing is stored, and nothing was bought.",
        creates.nothing_stored_is_true,
    ),
    Promise(
        "no internal error",
        "What cannot be done for now is answered with 503 or 504, never with 500.",
        creates.no_internal_error,
    ),
    Promise(
        "never bought twice",
        "The provider makes at most one task for one attempt.",
        purchases.never_bought_twice,
    ),
    Promise(
        "one attempt at a time",
        "A further attempt is bought only after the one before has failed at the provider, or at a client's request.",
        purchases.one_attempt_at_a_time,
    ),
    Promise(
        "intent first",
        "Before the provider is asked to make a task, a row says so.",
        purchases.intent_first,
    ),
    Promise(
        "nothing after a cancel",
        "After a cancel that was acknowledged, the provider is asked to make nothing more for that task or run.",
        purchases.nothing_after_a_cancel,
    ),
    Promise(
        "cancelled stays cancelled",
        "A task or run whose cancel was acknowledged is cancelled at the end.",
        purchases.cancelled_stays_cancelled,
    ),
    Promise(
        "acknowledged webhooks stand",
        "An end that the provider reported and that was answered with 200 is the end of the task.",
        truth.acknowledged_webhooks_stand,
    ),
    Promise(
        "answered webhooks are on disk",
        "A webhook that was answered with 200 is on disk then: its end does not depend on a later poll.",
        truth.answered_webhooks_are_on_disk,
    ),
    Promise(
        "rows agree with the provider",
        "A task has no other end than its provider's own record, except where Ringback itself failed it.",
        truth.rows_agree_with_the_provider,
    ),
    Promise(
        "events agree with the provider",
        "No event tells an end that the provider did not give, or that it gave to another attempt.",
        truth.events_agree_with_the_provider,
    ),
    Promise(
        "forged is refused",
        "A webhook without the task's secret is refused, whatever it says.",
        truth.forged_is_refused,
    ),
    Promise(
        "everything is told",
        "Every webhook gets every event that matches at least once, unless its delivery was given up for its failures.",
        deliveries.everything_is_told,
    ),
    Promise(
        "delivered was received",
        "What counts as delivered was received and acknowledged by the subscriber.",
        deliveries.delivered_was_received,
    ),
    Promise(
        "told under one id",
        "Whatever a subscriber receives, however often, has the id of the event that is stored.",
        deliveries.told_under_one_id,
    ),
    Promise(
        "every delivery is signed",
        "The signature of every delivery verifies with a public library.",
        deliveries.every_delivery_is_signed,
    ),
    Promise(
        "ordered is in order",
        "An ordered webhook never receives an older event of a task after it acknowledged a later one.",
        deliveries.ordered_is_in_order,
    ),
    Promise(
        "streams are exact",
        "A stream that resumes with the last id it saw shows every event once, in order, without gaps.",
        streams.streams_are_exact,
    ),
    Promise(
        "ends have events",
        "Every end in the tables has the event that tells it.",
        rows.ends_have_events,
    ),
    Promise(
        "one end an attempt",
        "An attempt ends once: a second end is the correction that names the first.",
        rows.one_end_an_attempt,
    ),
    Promise(
        "runs follow their steps",
        "A run ends as its steps do, and a step as its task does.",
        rows.runs_follow_their_steps,
    ),
    Promise(
        "one delivery a webhook",
        "An event has one delivery for each webhook, apart from replays.",
        rows.one_delivery_a_webhook,
    ),
    Promise(
        "the report adds up",
        "`ringback report` finds no gap at the end.",
        rows.report_adds_up,
    ),
)
"""In the order of the report."""
