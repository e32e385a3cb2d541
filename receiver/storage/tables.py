"""The tables of `models` as SQLAlchemy Core tables."""

from typing import cast

from sqlalchemy import Table

import models


def _table(model: object) -> Table:
    return cast(Table, model.__table__)  # type: ignore[attr-defined]


organizations = _table(models.Organization)
api_keys = _table(models.ApiKey)
provider_accounts = _table(models.StoredAccount)
master_keys = _table(models.MasterKey)
idempotency_keys = _table(models.IdempotencyKey)
audit_entries = _table(models.AuditEntry)
tasks = _table(models.Task)
task_attempts = _table(models.TaskAttempt)
events = _table(models.Event)
fan_outs = _table(models.FanOut)
subscriptions = _table(models.Subscription)
deliveries = _table(models.Delivery)
delivery_attempts = _table(models.DeliveryAttempt)
receipts = _table(models.Receipt)
replays = _table(models.Replay)
bulk_actions = _table(models.BulkAction)
runs = _table(models.Run)
run_steps = _table(models.RunStep)
system_conditions = _table(models.SystemCondition)
alerts = _table(models.Alert)
sign_in_links = _table(models.SignInLink)
installation_facts = _table(models.InstallationFact)
statistic_positions = _table(models.StatisticPosition)
task_statistics = _table(models.TaskStatistic)
delivery_statistics = _table(models.DeliveryStatistic)
task_metadata_values = _table(models.TaskMetadataValue)
