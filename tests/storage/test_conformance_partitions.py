"""What the statements promise holds for tables in partitions: a row or two in each, with locks and without."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.storage.database import Database
from receiver.storage.maintenance import partition_database
from receiver.storage.postgresql import partitioning
from tests.fakes.databases import settings_in
from tests.storage.test_conformance import (
    _organization,
    test_an_event_may_have_no_task,
    test_events_are_numbered_in_order,
)
from tests.storage.test_conformance_claims import (
    test_a_claim_takes_deliveries_of_each_subscription_up_to_the_limit,
    test_a_delivery_whose_lease_ended_is_claimed_again_as_another_attempt,
    test_a_failed_attempt_leaves_the_delivery_due_for_the_next,
    test_a_lost_lease_settles_nothing,
    test_a_repeated_settlement_keeps_the_first_record_of_the_attempt,
    test_a_settled_delivery_is_never_claimed_again,
    test_an_ordered_subscription_gets_the_events_of_a_task_one_by_one,
    test_deliveries_are_stored_as_given,
)
from tests.storage.test_optimistic import (
    both_forms,
    test_a_batch_is_one_read_and_one_statement,
    test_a_statement_whose_answer_is_lost_is_found_with_its_keys,
    test_an_outcome_whose_lease_was_lost_is_written_with_locks,
    test_one_row_of_each_part_is_written_without_arrays,
    test_outcomes_are_one_statement,
    test_the_statements_are_not_planned_each_time,
)

__all__ = [
    "_organization",
    "both_forms",
    "test_a_batch_is_one_read_and_one_statement",
    "test_a_claim_takes_deliveries_of_each_subscription_up_to_the_limit",
    "test_a_delivery_whose_lease_ended_is_claimed_again_as_another_attempt",
    "test_a_failed_attempt_leaves_the_delivery_due_for_the_next",
    "test_a_lost_lease_settles_nothing",
    "test_a_repeated_settlement_keeps_the_first_record_of_the_attempt",
    "test_a_settled_delivery_is_never_claimed_again",
    "test_a_statement_whose_answer_is_lost_is_found_with_its_keys",
    "test_an_event_may_have_no_task",
    "test_an_ordered_subscription_gets_the_events_of_a_task_one_by_one",
    "test_an_outcome_whose_lease_was_lost_is_written_with_locks",
    "test_deliveries_are_stored_as_given",
    "test_events_are_numbered_in_order",
    "test_one_row_of_each_part_is_written_without_arrays",
    "test_outcomes_are_one_statement",
    "test_the_statements_are_not_planned_each_time",
]

pytestmark = pytest.mark.postgresql_only("SQLite has no partitions")


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A database whose tables have two partitions of one or two rows each; the default one has the others."""
    monkeypatch.setattr(partitioning, "LEAST_ROWS", 1)
    await partition_database(settings_in(tmp_path))
    async with await Database.open(settings_in(tmp_path)) as database:
        yield database
