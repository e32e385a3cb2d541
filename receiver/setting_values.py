"""The forms that values of settings have, read and checked."""

import re
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from urllib.parse import urlsplit

ANY_ORIGIN = "*"
"""What stands for every origin."""
ANY_PROXY = "*"
"""What stands for every proxy."""
UNIX_PEER = "unix"
"""What stands for all who connect to a Unix socket, where there are no addresses."""
_INVISIBLE = r"\u200b-\u200d\u2060\ufeff"
"""Characters without a width, which web pages and editors leave around what is copied from them."""
_AROUND = re.compile(rf"^[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+$")
_BLANK = re.compile(rf"[\s{_INVISIBLE}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVER = re.compile(r"(?<=^sqlite)\+\w+(?=:)|(?<=^postgresql)\+\w+(?=:)")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 10 * 365 * 86400.0
"""Ten years: a longer time is a typing error."""


def is_text(value: str) -> bool:
    """Return whether a value is text: bytes of the environment that are not UTF-8 become lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def trimmed(value: str) -> str:
    """Return a value without the blanks, line breaks and invisible characters around it."""
    return _AROUND.sub("", value)


def split_list(value: str) -> list[str]:
    """Return the parts of a comma-separated list, without blanks around them and without empty ones."""
    return [part.strip() for part in value.split(",") if part.strip()]


def read_rate(value: str) -> tuple[float, float]:
    """Return (number, period in seconds) of a rate such as `10/s`. Raises `ValueError`."""
    match = _RATE.fullmatch(value)
    if match is None or float(match[1]) <= 0:
        raise ValueError("must be a number and a period, such as 10/s, 600/m or 1000/h")
    return float(match[1]), _PERIODS[match[2]]


def read_delays(value: str) -> tuple[float, ...]:
    """Return the seconds of a comma-separated list of at least one. Raises `ValueError`."""
    try:
        delays = tuple(map(float, split_list(value)))
    except ValueError:
        delays = ()
    if not delays or not all(0 <= delay <= MAX_SECONDS for delay in delays):
        raise ValueError("must be seconds, comma-separated, such as 0,5,300")
    return delays


def check_one_line(value: str) -> None:
    """Raise `ValueError` for a line break or another control character."""
    if _CONTROL.search(value):
        raise ValueError("has a line break or another control character in it")


def read_base_url(value: str) -> str:
    """Return a base URL, to which paths are added, without a slash at its end. Raises `ValueError`."""
    check_one_line(value)
    if _BLANK.search(value):
        raise ValueError("must be one URL, without blanks in it")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    if "?" in value or "#" in value:
        raise ValueError("must be a URL to which paths can be added, so without ? and #")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 0 to 65535") from None
    return value.rstrip("/")


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


def read_origins(text: str) -> tuple[str, ...]:
    """Return the origins of a comma-separated list, as `read_origin` does. Raises `ValueError`."""
    return tuple(map(read_origin, split_list(text)))


def read_proxies(text: str) -> list[str]:
    """Return a list of proxies: addresses, networks, and the words for others; `*` stands alone. Raises `ValueError`.

    What the server cannot read it would take for a name, which no address ever matches.
    """
    parts = split_list(text)
    if ANY_PROXY in parts:
        if len(parts) > 1:
            raise ValueError(f"has {ANY_PROXY}, which trusts everybody, beside others; remove it or them")
        return parts
    for part in parts:
        if part == UNIX_PEER:
            continue
        try:
            network = ip_network(part, strict=False)
        except ValueError:
            raise ValueError(
                f"{part!r} is no address, no network (10.0.0.0/8), not {UNIX_PEER} and not {ANY_PROXY}"
            ) from None
        if "/" in part and ip_interface(part).ip != network.network_address:
            raise ValueError(f"{part!r} is an address within a network; write {network}, or the address alone")
    return parts


def is_loopback(address: tuple[str, int] | Path) -> bool:
    """Return whether only this machine can reach an address that is listened on."""
    if isinstance(address, Path):
        return True
    try:
        return ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] == "localhost"


def reachable_host(host: str) -> str:
    """Return where this machine reaches what listens on `host`: `0.0.0.0` and `::` are all addresses and name none."""
    try:
        listening = ip_address(host)
    except ValueError:
        return host
    if not listening.is_unspecified:
        return host
    return "127.0.0.1" if listening.version == 4 else "::1"


def read_listen_address(text: str) -> tuple[str, int] | Path:
    """Return an address to listen on: (host, port) of `host:port` or `[v6]:port`, or the path of a Unix socket.

    Raises `ValueError`.
    """
    if text.startswith("/"):
        return Path(text)
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise ValueError("must be host:port, such as 127.0.0.1:9464, or the absolute path of a socket")
    return host, port
