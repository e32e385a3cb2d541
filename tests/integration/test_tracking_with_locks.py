"""What tracking promises holds with locks too: on PostgreSQL the other tests try each batch without them first."""

import pytest

from receiver.storage import writer
from tests.integration.test_tracking import (
    harness,
    test_a_change_and_its_event_and_its_deliveries_are_one_transaction,
    test_a_clients_callback_gets_the_events_of_its_own_tasks_only,
    test_a_deleted_row_does_not_take_a_provider_task_that_was_adopted_since,
    test_a_deleted_row_is_inserted_again_with_its_own_id,
    test_a_disabled_or_removed_subscription_gets_no_delivery,
    test_a_failure_that_is_told_twice_at_once_begins_one_attempt,
    test_a_long_poll_is_woken_by_changes_of_its_own_task_only,
    test_a_provider_task_that_is_reported_at_two_urls_at_once_is_one_task,
    test_a_providers_clock_that_is_ahead_does_not_put_a_creation_into_the_future,
    test_a_subscription_gets_only_the_event_types_that_it_selected,
    test_a_task_whose_delivery_cannot_be_written_is_not_created,
    test_an_unknown_provider_task_becomes_a_task,
    test_an_unknown_provider_task_becomes_one_task_however_many_updates_it_has,
    test_deliveries_go_to_the_dispatcher_leased_as_long_as_it_has_room,
    test_each_event_of_one_transaction_shows_the_content_of_its_own_moment,
    test_only_an_inbound_webhook_leaves_a_receipt,
    test_the_same_callback_of_another_organization_is_another,
    test_two_tasks_cannot_share_a_provider_task,
    test_two_tasks_cannot_share_a_provider_task_when_both_get_updates_at_once,
    test_updates_in_one_transaction_are_decided_one_after_the_other,
)

__all__ = [
    "harness",
    "test_a_change_and_its_event_and_its_deliveries_are_one_transaction",
    "test_a_clients_callback_gets_the_events_of_its_own_tasks_only",
    "test_a_deleted_row_does_not_take_a_provider_task_that_was_adopted_since",
    "test_a_deleted_row_is_inserted_again_with_its_own_id",
    "test_a_disabled_or_removed_subscription_gets_no_delivery",
    "test_a_failure_that_is_told_twice_at_once_begins_one_attempt",
    "test_a_long_poll_is_woken_by_changes_of_its_own_task_only",
    "test_a_provider_task_that_is_reported_at_two_urls_at_once_is_one_task",
    "test_a_providers_clock_that_is_ahead_does_not_put_a_creation_into_the_future",
    "test_a_subscription_gets_only_the_event_types_that_it_selected",
    "test_a_task_whose_delivery_cannot_be_written_is_not_created",
    "test_an_unknown_provider_task_becomes_a_task",
    "test_an_unknown_provider_task_becomes_one_task_however_many_updates_it_has",
    "test_deliveries_go_to_the_dispatcher_leased_as_long_as_it_has_room",
    "test_each_event_of_one_transaction_shows_the_content_of_its_own_moment",
    "test_only_an_inbound_webhook_leaves_a_receipt",
    "test_the_same_callback_of_another_organization_is_another",
    "test_two_tasks_cannot_share_a_provider_task",
    "test_two_tasks_cannot_share_a_provider_task_when_both_get_updates_at_once",
    "test_updates_in_one_transaction_are_decided_one_after_the_other",
]

pytestmark = pytest.mark.postgresql_only("SQLite has one writer, which needs no locks")


@pytest.fixture(autouse=True)
def _with_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_may_be_optimistic", lambda _batch: False)
