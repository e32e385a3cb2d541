"""The URL that a delivery is posted to: as registered, byte for byte.

Callback URLs are often signed, and a signature covers the spelling: `%2F` and `/`, `+` and `%20`, `a/../b` and `b` are
not the same. HTTP clients rewrite such spellings, and so does yarl unless it is told that a URL is encoded already.
"""

import re
import string
from urllib.parse import quote

from yarl import URL

_PARTS = re.compile(r"(https?)://([^/?#]+)([^#]*)", re.IGNORECASE)


def authority_of(text: str) -> str | None:
    """Return what stands between `//` and the path of an http or https URL, None if there is none."""
    parts = _PARTS.match(text)
    return parts[2] if parts is not None else None


def target_url(text: str) -> URL:
    """Return a URL whose `raw_path_qs` is the path and query of `text` as they are written there.

    Percent-encoded is only what a request line cannot have: blanks, and characters that are not ASCII, as UTF-8. An
    empty path becomes `/`, a fragment is dropped, a host name is in its IDNA form. Raises ValueError for what is not an
    http or https URL with a host.
    """
    parts = _PARTS.match(text)
    if parts is None:
        raise ValueError("not an http or https URL")
    scheme, authority, target = parts.groups()
    base = URL(f"{scheme}://{authority}")
    if not target.startswith("/"):
        target = f"/{target}"
    # The query is left within the path: as a query of its own, an empty one (`/x?`) would lose its question mark.
    path = quote(target, safe=string.punctuation)
    return URL.build(scheme=base.scheme, authority=base.raw_authority, path=path, encoded=True)
