"""Styles, scripts and pictures. Their URLs have a hash of all of them, so that browsers keep them for good."""

import hashlib
from functools import cache
from pathlib import Path

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT = "public, max-age=31536000, immutable"
_HASH_DIGITS = 16


class _File(Struct, frozen=True):
    content: bytes
    media_type: str


@cache
def _files() -> tuple[str, dict[str, _File]]:
    """Return the hash of all files, and each by its name. Scripts import each other: their URLs change together."""
    found: dict[str, _File] = {}
    hashed = hashlib.sha256()
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            found[path.name] = _File(path.read_bytes(), _TYPES[path.suffix])
            hashed.update(path.name.encode() + found[path.name].content)
    return hashed.hexdigest()[:_HASH_DIGITS], found


def static_url(name: str) -> str:
    """Return the path of a file, without the prefix of a proxy. Raises `KeyError` for a file that is not there."""
    version, files = _files()
    if name not in files:
        raise KeyError(name)
    return f"/static/{version}/{name}"


async def serve_static(request: Request) -> Response:
    """Return a file. One of another version, which a page of another replica asked for, is not to be kept."""
    version, files = _files()
    file = files.get(request.path_params["name"])
    if file is None:
        raise HTTPException(404)
    is_this_version = request.path_params["version"] == version
    headers = {"cache-control": _KEPT if is_this_version else "no-store"}
    return Response(file.content, headers=headers, media_type=file.media_type)
