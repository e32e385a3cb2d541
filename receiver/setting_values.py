"""The forms that values of settings have, read and checked."""

import re
from urllib.parse import urlsplit

ANY_ORIGIN = "*"
"""What stands for every origin."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVER = re.compile(r"(?<=^sqlite)\+\w+(?=:)|(?<=^postgresql)\+\w+(?=:)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_text(value: str) -> bool:
    """Return whether a value is text: bytes of the environment that are not UTF-8 become lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def check_one_line(value: str) -> None:
    """Raise `ValueError` for a line break or another control character."""
    if _CONTROL.search(value):
        raise ValueError("has a line break or another control character in it")


def without_driver(url: str) -> str:
    """Return a database's URL without the driver that those of SQLAlchemy name (`postgresql+asyncpg://`)."""
    return _DRIVER.sub("", url)


def read_origin(text: str) -> str:
    """Return an origin as browsers write it: in lower case, without the scheme's default port. Raises `ValueError`."""
    if text == ANY_ORIGIN:
        return text
    try:
        parts = urlsplit(text)
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    is_more = parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc
    if not host or is_more or "*" in host or not _SCHEME.fullmatch(parts.scheme):
        raise ValueError("must be origins, comma-separated, such as https://app.example.com, or * for any")
    address = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{address}" + (f":{port}" if port not in (None, _DEFAULT_PORTS.get(parts.scheme)) else "")
