"""`/api/v1/dashboard-links`: links that sign in to the dashboard once."""

from urllib.parse import urlencode

from receiver.api.dialects import Reply
from receiver.api.endpoint import Call
from receiver.clock import utc_now
from receiver.domain.representations import iso
from receiver.errors import NotFound

SIGN_IN_PATH = "/sign-in"


async def create_link(call: Call) -> Reply:
    """`POST /api/v1/dashboard-links`: a link that signs in with the scope of this key, once, within 60 s.

    `path` is to be added to the address by which the caller reaches the service.
    """
    if not call.services.settings.dashboard:
        raise NotFound("the dashboard is turned off (RINGBACK_DASHBOARD)", code="dashboard_off")
    token, expires_at = call.services.sign_in.new_link(call.principal.key_uid, utc_now())
    view = {
        "object": "dashboard_link",
        "path": f"{SIGN_IN_PATH}?{urlencode({'link': token})}",
        "scope": call.principal.scope,
        "expires_at": iso(expires_at),
    }
    return Reply(view, "dashboard_link")
