"""Conditions of partial indexes that queries repeat: a database uses such an index only for the same condition."""

from sqlalchemy import text

IS_SENT_AND_DUE = text("due_at IS NOT NULL AND submission <> 'waiting'")
IS_OF_ANOTHER_PROVIDER = text("provider <> 'piapi'")
"""Whether a task is of another provider than the first one, whose tasks are found by a look along the list."""
