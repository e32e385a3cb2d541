"""The part that the filters of all lists share: the organization, the time range, and the place in the list."""

from datetime import datetime
from typing import ClassVar

from msgspec import Struct
from sqlalchemy import ColumnElement, Table

from receiver.storage.tables import tasks
from receiver.storage.time_bounds import is_after, is_before


class PageFilter(Struct, frozen=True, kw_only=True):
    """Which rows of an organization to list, newest first; None does not filter."""

    TIME: ClassVar[str] = "created_at"
    """The column that has the time of a row."""

    organization_id: int
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: int | None = None
    """The row key that a cursor stands for: only older rows."""
    is_frequent: bool = False
    """Whether most rows are the organization's, and are met soon on the way through the table: then no index on
    the organization is used, which a planner without statistics would choose, and sort what it finds."""

    def conditions(self, table: Table, **equal: object) -> list[ColumnElement[bool]]:
        """Return the conditions for rows of `table`; `equal` are columns with the value wanted, or None for any."""
        columns = table.columns
        has_bounds = self.TIME == "created_at"
        organization = columns.organization_id + 0 if self.is_frequent else columns.organization_id
        found = [organization == self.organization_id]
        found += [columns[name] == value for name, value in equal.items() if value is not None]
        if self.created_after is not None:
            found.append(columns[self.TIME] > self.created_after)
            if has_bounds:
                found.append(is_after(table, self.created_after))
        if self.created_before is not None:
            found.append(columns[self.TIME] < self.created_before)
            # An adopted task was created before it was inserted, maybe long before.
            if has_bounds and table is not tasks:
                found.append(is_before(table, self.created_before))
        if self.before is not None:
            found.append(columns.id < self.before)
        return found
