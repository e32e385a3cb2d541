"""Reads the URL of a PostgreSQL server, with the parameters that providers of servers put into it.

The driver takes every parameter that it does not know for a setting of the server, which then refuses the connection.
So each parameter of libpq ("Parameter Key Words" in PostgreSQL's documentation) is decided here: the driver gets it,
this module does what it asks for, it has no meaning here and is left out, or it is refused with what to do.
"""

import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from msgspec import Struct, field

from receiver.errors import SettingsError
from receiver.hidden_fields import HidesFields

_DRIVERS = frozenset(
    {"host", "port", "dbname", "database", "user", "password", "passfile", "service", "krbsrvname", "gsslib"}
    | {"sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version"}
)
"""What the driver does itself."""
_WITHOUT_MEANING = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslcompression"}
    | {"sslsni", "fallback_application_name", "client_encoding", "load_balance_hosts", "gssdelegation"}
    | {"min_protocol_version", "max_protocol_version", "supa", "connection_limit", "pool_timeout", "uselibpqcompat"}
)
"""What changes nothing here: details of sockets, what the driver always does, and options of other clients' pools."""
_REFUSED = frozenset({"hostaddr", "replication", "require_auth", "requirepeer", "sslcrldir", "passcommand"})
_FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SSL_WORDS = {"true": "require", "1": "require", "no-verify": "require", "false": "disable", "0": "disable"}
"""What clients in other languages write as `ssl=true` or `sslmode=no-verify`."""
_VERIFIED = ("verify-ca", "verify-full")
_OWN_ROOTS = Path("~/.postgresql/root.crt")
"""Where libpq and the driver look for root certificates if the URL names none."""
_MOST_CONNECT_SECONDS = 60.0
_SUPABASE_TRANSACTIONS = 6543
POOLER_ADVICE = (
    "this is a pooler in transaction mode, and Ringback needs sessions, for it listens for notices and holds locks; "
    "use session mode, or name the server itself (Neon: the host without `-pooler`; Supabase: port 5432)"
)


class PostgreSQLLocation(HidesFields, Struct):
    """A server as the driver is told it.

    `settings` are for the server; `connect_seconds` is None if the URL does not say it; `tls` is None where the driver
    makes its own context. `is_unbound`: channel binding was required, and is not done.
    """

    hidden_fields: ClassVar[frozenset[str]] = frozenset({"dsn"})

    dsn: str
    settings: dict[str, str] = field(default_factory=dict)
    connect_seconds: float | None = None
    tls: ssl.SSLContext | None = None
    is_unbound: bool = False


@cache
def read_location(url: str) -> PostgreSQLLocation:
    """Return the location that a URL names. Raises `SettingsError`, which says what to do and repeats no password."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        port = parts.port if "," not in parts.netloc else None
    except ValueError:
        raise _fault("is not a URL; percent-encode special characters in the password (/ as %2F, # as %23)") from None
    if parts.fragment:
        raise _fault("has a # in it; percent-encode it, as %23")
    _refuse_poolers(parts, port, query)
    location = PostgreSQLLocation("")
    kept: dict[str, str] = {}
    for name, value in query.items():
        _take(name, value, location, kept)
    _check_files(kept)
    location.tls = _system_tls(kept)
    location.is_unbound = query.get("channel_binding") == "require" and kept.get("sslmode") not in _VERIFIED
    location.dsn = f"postgresql://{_quoted_user(parts.netloc)}{parts.path}"
    if kept:
        location.dsn += f"?{urlencode(kept, quote_via=quote)}"
    return location


def _take(name: str, value: str, location: PostgreSQLLocation, kept: dict[str, str]) -> None:
    """Put one parameter where it belongs."""
    if name in ("ssl", "sslmode"):
        kept["sslmode"] = _choice("sslmode", _SSL_WORDS.get(value.lower(), value.lower()), _SSL_MODES)
    elif name in _DRIVERS:
        kept[name] = value
    elif name in _TAKEN:
        _TAKEN[name](value, location)
    elif name in _REFUSED:
        raise _fault(f"has {name}, which cannot be obeyed here; remove it")
    elif name not in _WITHOUT_MEANING:
        location.settings[name] = value


def _take_timeout(value: str, location: PostgreSQLLocation) -> None:
    if not (value.isascii() and value.isdigit()):
        raise _fault("has a connect_timeout that is not a number of seconds")
    if int(value):  # 0 means no limit, which nothing here is without
        location.connect_seconds = min(float(value), _MOST_CONNECT_SECONDS)


def _take_binding(value: str, _location: PostgreSQLLocation) -> None:
    # The driver signs in without channel binding. Neon's own URLs require it, so they have to work all the same.
    _choice("channel_binding", value, ("disable", "prefer", "require"))


def _take_target(value: str, _location: PostgreSQLLocation) -> None:
    # Each connection goes to a primary in any case (`receiver.storage.postgresql.server`).
    if value in ("standby", "read-only"):
        raise _fault(f"asks for a server that cannot be written to (target_session_attrs={value}); remove that")


def _take_gss(value: str, _location: PostgreSQLLocation) -> None:
    if value == "require":
        raise _fault("requires encryption by GSSAPI (gssencmode), which the driver cannot do; use sslmode")


def _take_certificate_mode(value: str, _location: PostgreSQLLocation) -> None:
    if value == "require":
        raise _fault("has sslcertmode=require, which cannot be obeyed here; remove it")


def _take_schema(value: str, location: PostgreSQLLocation) -> None:
    if value != "public":
        location.settings["search_path"] = value


_TAKEN: dict[str, Callable[[str, PostgreSQLLocation], None]] = {
    "connect_timeout": _take_timeout,
    "channel_binding": _take_binding,
    "target_session_attrs": _take_target,
    "gssencmode": _take_gss,
    "sslcertmode": _take_certificate_mode,
    "schema": _take_schema,
    "pgbouncer": lambda _value, _location: None,
}


def _refuse_poolers(parts: SplitResult, port: int | None, query: dict[str, str]) -> None:
    """Raise `SettingsError` for a pooler that is known by its name. Others are found when they refuse a session."""
    host = parts.hostname or ""
    is_neons = host.endswith(".neon.tech") and host.partition(".")[0].endswith("-pooler")
    is_supabases = host.endswith((".supabase.com", ".supabase.co")) and port == _SUPABASE_TRANSACTIONS
    if is_neons or is_supabases or query.get("pgbouncer") == "true":
        raise _fault(POOLER_ADVICE)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _fault(f"has a {name} that is none of {', '.join(choices)}")
    return value


def _check_files(kept: dict[str, str]) -> None:
    for name in _FILES:
        path = kept.get(name)
        if path is None or (name == "sslrootcert" and path == "system"):
            continue
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except FileNotFoundError:
            raise _fault(f"names a file that does not exist: {name}={path}") from None
        except OSError as error:
            raise _fault(f"names a file that cannot be read ({error.strerror}): {name}={path}") from None
    _check_certificates(kept)


def _check_certificates(kept: dict[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, what in (("sslrootcert", "certificate"), ("sslcrl", "list of revoked certificates")):
        path = kept.get(name)
        if path is not None and path != "system":
            try:
                context.load_verify_locations(path)
            except ssl.SSLError:
                raise _fault(f"names a file that has no {what} in the form PEM: {name}={path}") from None
    if "sslcert" in kept:
        _load_own_certificate(context, kept)


def _load_own_certificate(context: ssl.SSLContext, kept: dict[str, str]) -> None:
    password = kept.get("sslpassword", "")
    files = f"sslcert={kept['sslcert']}" + (f", sslkey={kept['sslkey']}" if "sslkey" in kept else "")
    try:
        context.load_cert_chain(kept["sslcert"], kept.get("sslkey"), lambda: password)
    except ssl.SSLError as error:
        is_of_another = error.reason == "KEY_VALUES_MISMATCH"
        reason = "the key is another certificate's" if is_of_another else "no such pair in the form PEM, or sslpassword"
        raise _fault(f"names a certificate and a key that cannot be used ({reason}): {files}") from None


def _system_tls(kept: dict[str, str]) -> ssl.SSLContext | None:
    """Return a context that verifies with the system's root certificates, if those are to be used.

    They are for `sslrootcert=system`, and where a certificate is to be verified and no root certificate is named: the
    driver would want a file of its own then.
    """
    is_verified = kept.get("sslmode") in _VERIFIED
    is_system = kept.get("sslrootcert") == "system"
    if not is_system and not (is_verified and "sslrootcert" not in kept and not _OWN_ROOTS.expanduser().exists()):
        return None
    kept.pop("sslrootcert", None)
    context = ssl.create_default_context()
    context.check_hostname = is_system or kept["sslmode"] == "verify-full"
    kept["sslmode"] = "verify-full"
    if "sslcert" in kept:
        _load_own_certificate(context, kept)
    return context


def _quoted_user(netloc: str) -> str:
    """Return user, password and host with every @ but the last one quoted: many a password has one."""
    user, at, host = netloc.rpartition("@")
    return user.replace("@", "%40") + at + host


def _fault(message: str) -> SettingsError:
    return SettingsError(f"RINGBACK_DATABASE_URL: {message}")
