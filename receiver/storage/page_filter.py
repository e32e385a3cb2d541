"""The part that the filters of all lists share: the organization, the time range, and the place in the list."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Table

from receiver.storage.tables import tasks
from receiver.storage.time_bounds import is_after, is_before


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFilter:
    """Which rows of an organization to list, newest first; None does not filter."""

    organization_id: int
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: int | None = None
    """The row key that a cursor stands for: only older rows."""

    def conditions(self, table: Table, **equal: object) -> list[ColumnElement[bool]]:
        """Return the conditions for rows of `table`; `equal` are columns with the value wanted, or None for any."""
        columns = table.columns
        found = [columns.organization_id == self.organization_id]
        found += [columns[name] == value for name, value in equal.items() if value is not None]
        if self.created_after is not None:
            found += [columns.created_at > self.created_after, is_after(table, self.created_after)]
        if self.created_before is not None:
            found.append(columns.created_at < self.created_before)
            if table is not tasks:  # an adopted task was created before it was inserted, maybe long before
                found.append(is_before(table, self.created_before))
        if self.before is not None:
            found.append(columns.id < self.before)
        return found
