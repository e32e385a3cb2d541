"""The headers that every page has: nothing from another host, no script or style within a page, and no frame."""

from collections.abc import Collection
from urllib.parse import quote

from starlette.responses import Response

_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
_HEADERS = {
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


def attachment(content: bytes, name: str, media_type: str) -> Response:
    """Return a file that a browser saves under this name."""
    response = Response(content, media_type=media_type)
    response.headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return secured(response)


def secured(response: Response, media_from: Collection[str] = ()) -> Response:
    """Add the headers to a response.

    `media_from` are origins from which this one page may show pictures, video and sound: those of a task's result,
    where a person has asked to see them.
    """
    policy = _POLICY
    if media_from:
        sources = " ".join(["'self'", *media_from])
        policy += f"; img-src {sources}; media-src {sources}"
    response.headers.update(_HEADERS)
    response.headers["content-security-policy"] = policy
    return response
