"""What the dashboard signs: sessions, the tokens of their forms, one-time links and notices. Times are arguments."""

import hmac
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from itsdangerous import BadSignature
from msgspec import Struct
from msgspec.structs import replace

from receiver.domain.keyring import KeyRing

IDLE = timedelta(hours=12)
"""A session ends this long after its last page."""
LONGEST = timedelta(days=7)
"""A session ends this long after the sign-in in any case."""
RENEWED_AFTER = timedelta(minutes=10)
"""A session is signed again when its last signature is older than this."""
LINK_LIFE = timedelta(seconds=60)
_NONCE_BYTES = 18


class DashboardSession(Struct, frozen=True):
    """Who is signed in, as the cookie has it: by the id of an API key, or as a person whom a proxy names.

    One of neither is a visitor's, who is to sign in. `nonce` is what the tokens of the session's forms are made of.
    """

    nonce: str
    signed_in_at: datetime
    seen_at: datetime
    key_uid: str | None = None
    person: str | None = None

    @property
    def is_signed_in(self) -> bool:
        """Whether it is more than that of a visitor."""
        return self.key_uid is not None or self.person is not None

    def has_ended(self, now: datetime) -> bool:
        """Return whether it is too old."""
        return not (now - IDLE < self.seen_at and now - LONGEST < self.signed_in_at)

    def seen(self, now: datetime) -> "DashboardSession":
        """Return the session after a page: the same one, unless its signature is to be renewed."""
        return replace(self, seen_at=now) if now - self.seen_at > RENEWED_AFTER else self


class Link(Struct, frozen=True):
    """A one-time link: whose key it stands for, what tells it from others, and from when on it is refused."""

    key_uid: str
    nonce: str
    expires_at: datetime


def new_session(now: datetime, *, key_uid: str | None = None, person: str | None = None) -> DashboardSession:
    """Return a session that begins now. Each sign-in begins one, so that its nonce is not known before."""
    return DashboardSession(secrets.token_urlsafe(_NONCE_BYTES), now, now, key_uid, person)


class SignIn:
    """Signs what browsers keep, with keys derived from the master keys: the newest signs, all of them verify."""

    def __init__(self, keyring: KeyRing) -> None:
        self._sessions = keyring.dashboard_serializer("session")
        self._forms = keyring.dashboard_serializer("form")
        self._links = keyring.dashboard_serializer("link")
        self._notices = keyring.dashboard_serializer("notice")

    def sign_session(self, session: DashboardSession) -> str:
        """Return the value of a session's cookie. It has no secret in it."""
        times = [int(session.signed_in_at.timestamp()), int(session.seen_at.timestamp())]
        return str(self._sessions.dumps([session.nonce, *times, session.key_uid, session.person]))

    def read_session(self, value: str, now: datetime) -> DashboardSession | None:
        """Return the session of a cookie; None if it has ended, or is none of ours."""
        match _loaded(self._sessions, value):
            case [str(nonce), int(signed_in), int(seen), key_uid, person]:
                session = DashboardSession(nonce, _moment(signed_in), _moment(seen), key_uid, person)
                return None if session.has_ended(now) else session
        return None

    def form_token(self, session: DashboardSession) -> str:
        """Return the token that each form of a session sends along."""
        return str(self._forms.dumps(session.nonce))

    def is_form_token(self, session: DashboardSession, token: str) -> bool:
        """Return whether a token is one of this session."""
        nonce = _loaded(self._forms, token)
        return isinstance(nonce, str) and hmac.compare_digest(nonce.encode(), session.nonce.encode())

    def new_link(self, key_uid: str, now: datetime) -> tuple[str, datetime]:
        """Return the token of a new one-time link, and from when on it is refused."""
        expires_at = now + LINK_LIFE
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        return str(self._links.dumps([key_uid, nonce, int(expires_at.timestamp())])), expires_at

    def read_link(self, token: str, now: datetime) -> Link | None:
        """Return a link, which may have been used; None if it has expired, or is none of ours."""
        match _loaded(self._links, token):
            case [str(key_uid), str(nonce), int(expires)] if now.timestamp() < expires:
                return Link(key_uid, nonce, _moment(expires))
        return None

    def sign_notice(self, kind: str, text: str) -> str:
        """Return what the next page is to tell, for a cookie."""
        return str(self._notices.dumps([kind, text]))

    def read_notice(self, value: str) -> tuple[str, str] | None:
        """Return (kind, text) of such a cookie; None if it is none of ours."""
        match _loaded(self._notices, value):
            case [str(kind), str(text)]:
                return kind, text
        return None


def _loaded(serializer: Any, value: str) -> Any:
    try:
        return serializer.loads(value)
    except BadSignature:
        return None


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
