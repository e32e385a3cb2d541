"""The master keys and all that is derived from them; no other room ever sees a master key."""

import base64
import hashlib
import hmac
import re
import secrets as dice
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import Signer

from receiver.errors import RingbackError, StartError

_KEY_BYTES = 32
_HOOK_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""The URL-safe base64 of a SHA-256 without padding: all that `hook_secret` ever returns."""


class MasterKeyMissing(RingbackError):
    """What is stored was encrypted with a master key that is no longer in `RINGBACK_SECRET_KEY`."""

    code = "master_key_missing"


class KeyRing:
    """Master keys, oldest first: the last one signs and encrypts, all of them verify and decrypt.

    Each purpose has keys of its own, derived once by HKDF-SHA256 (RFC 5869) with the purpose as `info`.
    Raises `StartError` when there is no key.
    """

    def __init__(self, master_keys: Sequence[str]) -> None:
        if not master_keys:
            raise StartError("RINGBACK_SECRET_KEY holds no key; set at least one")
        self._count = len(master_keys)
        # "none": itsdangerous would otherwise derive the key again on every call of the hottest path.
        self._hooks = Signer(
            [_derive(master, "ringback.hook") for master in master_keys],
            salt="ringback.hook",
            key_derivation="none",
            digest_method=hashlib.sha256,
        )
        self._box = MultiFernet([_fernet(master) for master in reversed(master_keys)])
        self._fingerprints = _derive(master_keys[-1], "ringback.fingerprint")

    def __repr__(self) -> str:
        return f"KeyRing({self._count} keys)"

    def hook_secret(self, task_id: str) -> str:
        """Return the secret that the provider must present for this task: 43 URL-safe characters."""
        return self._hooks.get_signature(task_id).decode("ascii")

    def verify_hook(self, task_id: str, presented: str) -> bool:
        """Say whether `presented` is this task's secret by any master key, in constant time. Never raises."""
        # Not left to itsdangerous, whose base64 passes over characters that it does not know.
        if _HOOK_SECRET.fullmatch(presented) is None or not task_id.isascii():
            return False
        return self._hooks.verify_signature(task_id, presented)

    def encrypt(self, text: str) -> str:
        """Return `text` encrypted for a row (Fernet, newest key)."""
        return self._box.encrypt(text.encode()).decode("ascii")

    def decrypt(self, token: str) -> str:
        """Return the text of an `encrypt`ed token. Raises `MasterKeyMissing` when no key opens it."""
        try:
            return self._box.decrypt(token.encode()).decode()
        except InvalidToken:
            raise MasterKeyMissing(
                "the master key that encrypted this is not there any more; "
                "put it back at the front of RINGBACK_SECRET_KEY"
            ) from None

    def fingerprint(self, *parts: str) -> str:
        """Return a keyed hash of `parts` (HMAC-SHA256, hex, newest key): equal parts, equal hash.

        It changes when a master key is added, so it is for what lives shortly.
        """
        # Each part with its length before it: ("ab", "c") and ("a", "bc") must not meet.
        framed = b"".join(b"%d:%b" % (len(raw), raw) for raw in (part.encode() for part in parts))
        return hmac.digest(self._fingerprints, framed, "sha256").hex()


def new_master_key() -> str:
    """Return a new master key: 32 random bytes, URL-safe."""
    return dice.token_urlsafe(_KEY_BYTES)


def new_api_key() -> str:
    """Return a new API key: `rb_` and 32 random bytes, URL-safe."""
    return "rb_" + dice.token_urlsafe(_KEY_BYTES)


def hash_api_key(key: str) -> str:
    """Return what a row keeps of an API key: its SHA-256, hex. A key is random, so no slow hash is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def _derive(master: str, purpose: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=purpose.encode())
    return kdf.derive(master.encode())


def _fernet(master: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_derive(master, "ringback.secrets")))
