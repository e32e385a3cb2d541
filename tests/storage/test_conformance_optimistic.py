"""What the statements promise holds where a batch is first tried without locks: the conformance suite once more.

Left out is the one test of what `Transaction.failing` answers in the middle of a transaction: an optimistic one answers
as if nothing were failing, and its commit takes that back. What follows from it is in `test_optimistic`.
"""

import pytest

from receiver.storage import writer
from tests.storage.test_conformance import (
    _organization,
    test_a_change_that_was_decided_on_another_state_is_refused,
    test_a_loaded_task_has_all_that_a_decision_needs,
    test_a_provider_task_id_is_found_for_its_own_provider_only,
    test_a_sequence_number_is_never_used_again,
    test_a_time_without_a_time_zone_is_refused,
    test_an_event_may_have_no_task,
    test_changes_of_different_columns_are_written_together,
    test_documents_are_stored_alike_by_hot_statements_and_core,
    test_events_are_appended_together_with_reading_who_listens,
    test_events_are_numbered_in_order,
    test_listeners_are_active_and_of_the_organization_or_a_named_callback,
    test_row_keys_are_returned_in_the_order_of_the_rows,
    test_tasks_are_loaded_by_their_public_id,
    test_times_are_stored_alike_by_hot_statements_and_core,
    test_two_tasks_cannot_have_the_same_provider_task_id,
)
from tests.storage.test_conformance_claims import (
    test_a_claim_changes_no_other_column,
    test_a_claim_takes_deliveries_of_each_subscription_up_to_the_limit,
    test_a_claim_takes_no_more_of_an_organization_than_its_share_however_many_webhooks_it_has,
    test_a_claimed_task_is_due_again_when_its_lease_ends,
    test_a_delivery_whose_lease_ended_is_claimed_again_as_another_attempt,
    test_a_due_time_written_by_core_is_claimed_to_the_microsecond,
    test_a_failed_attempt_leaves_the_delivery_due_for_the_next,
    test_a_lost_lease_settles_nothing,
    test_a_repeated_settlement_keeps_the_first_record_of_the_attempt,
    test_a_send_queue_is_claimed_in_its_order_up_to_the_limit,
    test_a_send_queue_without_due_tasks_does_not_use_up_a_turn,
    test_a_sent_task_is_not_claimed_to_be_sent,
    test_a_settled_delivery_is_never_claimed_again,
    test_an_ordered_subscription_gets_the_events_of_a_task_one_by_one,
    test_an_unsent_task_is_not_polled_and_still_waits_while_it_is_claimed,
    test_deliveries_are_stored_as_given,
    test_due_deliveries_are_claimed_oldest_first_and_their_attempts_counted,
    test_due_tasks_are_claimed_oldest_first_up_to_the_limit,
    test_organizations_take_turns_to_be_polled_however_many_tasks_of_one_are_due,
    test_send_queues_take_turns_however_long_one_of_them_is,
    test_skipped_subscriptions_do_not_hold_up_others,
)

__all__ = [
    "_organization",
    "test_a_change_that_was_decided_on_another_state_is_refused",
    "test_a_claim_changes_no_other_column",
    "test_a_claim_takes_deliveries_of_each_subscription_up_to_the_limit",
    "test_a_claim_takes_no_more_of_an_organization_than_its_share_however_many_webhooks_it_has",
    "test_a_claimed_task_is_due_again_when_its_lease_ends",
    "test_a_delivery_whose_lease_ended_is_claimed_again_as_another_attempt",
    "test_a_due_time_written_by_core_is_claimed_to_the_microsecond",
    "test_a_failed_attempt_leaves_the_delivery_due_for_the_next",
    "test_a_loaded_task_has_all_that_a_decision_needs",
    "test_a_lost_lease_settles_nothing",
    "test_a_provider_task_id_is_found_for_its_own_provider_only",
    "test_a_repeated_settlement_keeps_the_first_record_of_the_attempt",
    "test_a_send_queue_is_claimed_in_its_order_up_to_the_limit",
    "test_a_send_queue_without_due_tasks_does_not_use_up_a_turn",
    "test_a_sent_task_is_not_claimed_to_be_sent",
    "test_a_sequence_number_is_never_used_again",
    "test_a_settled_delivery_is_never_claimed_again",
    "test_a_time_without_a_time_zone_is_refused",
    "test_an_event_may_have_no_task",
    "test_an_ordered_subscription_gets_the_events_of_a_task_one_by_one",
    "test_an_unsent_task_is_not_polled_and_still_waits_while_it_is_claimed",
    "test_changes_of_different_columns_are_written_together",
    "test_deliveries_are_stored_as_given",
    "test_documents_are_stored_alike_by_hot_statements_and_core",
    "test_due_deliveries_are_claimed_oldest_first_and_their_attempts_counted",
    "test_due_tasks_are_claimed_oldest_first_up_to_the_limit",
    "test_events_are_appended_together_with_reading_who_listens",
    "test_events_are_numbered_in_order",
    "test_listeners_are_active_and_of_the_organization_or_a_named_callback",
    "test_organizations_take_turns_to_be_polled_however_many_tasks_of_one_are_due",
    "test_row_keys_are_returned_in_the_order_of_the_rows",
    "test_send_queues_take_turns_however_long_one_of_them_is",
    "test_skipped_subscriptions_do_not_hold_up_others",
    "test_tasks_are_loaded_by_their_public_id",
    "test_times_are_stored_alike_by_hot_statements_and_core",
    "test_two_tasks_cannot_have_the_same_provider_task_id",
]

pytestmark = pytest.mark.postgresql_only("SQLite has one writer, which needs no locks")


@pytest.fixture(autouse=True)
def _optimistic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that `Writer.run` writes be tried without locks; what cannot be is done again with them."""
    monkeypatch.setattr(writer._run_each, "is_optimistic", True, raising=False)
