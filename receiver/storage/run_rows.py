"""The columns of runs and steps that the statements of both databases write and read."""

from receiver.storage.tables import run_steps, runs

RUN_COLUMNS = tuple(column.name for column in runs.columns)
STEP_COLUMNS = tuple(column.name for column in run_steps.columns)
NEW_RUN_COLUMNS = tuple(name for name in RUN_COLUMNS if name != "id")
NEW_STEP_COLUMNS = tuple(name for name in STEP_COLUMNS if name not in ("id", "run_id"))
CHANGING_RUN_COLUMNS = ("status", "ended_at", "ended_event")
"""The columns of a run that change after it is inserted, but for `updated_at`, which is the time of the change."""
CHANGING_STEP_COLUMNS = ("status", "task_uid", "result", "error", "started_at", "completed_at")
