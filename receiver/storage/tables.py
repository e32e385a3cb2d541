"""The tables of `models`, as the statements name them."""

from models import core

organizations = core.organization
api_keys = core.api_key
provider_accounts = core.provider_account
master_keys = core.master_key
idempotency_keys = core.idempotency_key
audit_entries = core.audit_entry
tasks = core.task
task_attempts = core.task_attempt
events = core.event
fan_outs = core.fan_out
subscriptions = core.subscription
deliveries = core.delivery
delivery_attempts = core.delivery_attempt
receipts = core.receipt
replays = core.replay
bulk_actions = core.bulk_action
runs = core.run
run_steps = core.run_step
system_conditions = core.system_condition
alerts = core.alert
sign_in_links = core.sign_in_link
installation_facts = core.installation_fact
statistic_positions = core.statistic_position
task_statistics = core.task_statistic
delivery_statistics = core.delivery_statistic
task_metadata_values = core.task_metadata_value
