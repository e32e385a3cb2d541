"""Of the dashboard."""

import re
from typing import Literal

from pydantic import field_validator

from receiver.settings.group import SettingsGroup

_HEADER = re.compile(r"[A-Za-z0-9-]+")


class DashboardSettings(SettingsGroup):
    """Of the dashboard."""

    dashboard: bool = True
    """Whether the dashboard is served, at `/`."""
    dashboard_trusted_header: str | None = None
    """The header in which a proxy that signs people in names the person, such as `X-Forwarded-User`.

    It is believed from `RINGBACK_TRUSTED_PROXIES` alone, which must remove the header of clients. None by default.
    """
    dashboard_trusted_scope: Literal["read", "write", "admin"] = "read"
    """What people whom that header names may do, in the organization `default`."""

    @field_validator("dashboard_trusted_header")
    @classmethod
    def _header_name(cls, value: str | None) -> str | None:
        if value is not None and not _HEADER.fullmatch(value):
            raise ValueError("must be the name of a header, such as X-Forwarded-User")
        return value
