"""The master keys and everything that is derived from them; no other package sees a master key.

`new_master_key`, `new_api_key` and `KeyRing.encrypt` draw random bytes. Everything else here is a pure function.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from itsdangerous import Signer, URLSafeSerializer

from receiver.errors import RingbackError, StartError

_KEY_BYTES = 32
_SIGNING_BYTES = 16
"""Of a key of Fernet: that many sign, the others encrypt. A token ends with an HMAC-SHA256 of all before it."""
_NAME_BYTES = 6
_HOOK_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
"""The URL-safe base64 of a SHA-256 without padding: the only form that `hook_secret` returns."""
PROBE_SECONDS = 60
"""How long the token of a probe is good."""
_PROBE_TOKEN = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class MasterKeyMissing(RingbackError):
    """A stored secret was encrypted with a master key that is no longer in `RINGBACK_SECRET_KEY`."""

    code = "master_key_missing"


class KeyRing:
    """Master keys, oldest first: the newest signs and encrypts, all of them verify and decrypt.

    Each purpose has its own keys, derived once by HKDF-SHA256 (RFC 5869) with the purpose as `info`.
    Raises `StartError` when `master_keys` is empty.
    """

    def __init__(self, master_keys: Sequence[str]) -> None:
        if not master_keys:
            raise StartError("RINGBACK_SECRET_KEY holds no key; set at least one")
        self._count = len(master_keys)
        # "none": otherwise itsdangerous would derive the key again for every inbound webhook.
        self._hook_signer = Signer(
            [_derive(master, "ringback.hook") for master in master_keys],
            salt="ringback.hook",
            key_derivation="none",
            digest_method=hashlib.sha256,
        )
        self._probe_signer = Signer(
            [_derive(master, "ringback.probe") for master in master_keys],
            salt="ringback.probe",
            key_derivation="none",
            digest_method=hashlib.sha256,
        )
        self._callback_keys = [_derive(master, "ringback.callback") for master in reversed(master_keys)]
        self._cipher = MultiFernet([_fernet(master) for master in reversed(master_keys)])
        self._signing_keys = {_public_name(master): _cipher_key(master)[:_SIGNING_BYTES] for master in master_keys}
        self._fingerprint_key = _derive(master_keys[-1], "ringback.fingerprint")
        self._dashboard_keys = [_derive(master, "ringback.dashboard") for master in master_keys]

    def __repr__(self) -> str:
        return f"KeyRing({self._count} keys)"

    def hook_secret(self, task_id: str) -> str:
        """Return the secret that the provider must present for this task: 43 URL-safe characters."""
        return self._hook_signer.get_signature(task_id).decode("ascii")

    def verify_hook(self, task_id: str, presented: str) -> bool:
        """Return whether `presented` is this task's secret by any master key, in constant time. Never raises."""
        # Checked here because the base64 decoder of itsdangerous ignores characters outside its alphabet.
        if _HOOK_SECRET.fullmatch(presented) is None or not task_id.isascii():
            return False
        return self._hook_signer.verify_signature(task_id, presented)

    def probe_token(self, probe_id: str, now: float) -> str:
        """Return the token by which this installation knows its own probe (`receiver/inbound/probe.py`).

        It is good for `PROBE_SECONDS` from `now` (unix seconds), and for no other id.
        """
        until = str(int(now) + PROBE_SECONDS)
        return f"{until}.{self._probe_signer.get_signature(f'{probe_id}.{until}').decode('ascii')}"

    def verify_probe(self, probe_id: str, presented: str, now: float) -> bool:
        """Return whether `presented` is this probe's token by any master key, in constant time. Never raises."""
        match = _PROBE_TOKEN.fullmatch(presented)
        if match is None or not probe_id.isascii():
            return False
        is_ours = self._probe_signer.verify_signature(f"{probe_id}.{match[1]}", match[2])
        # Twice the time: the clock of who made it may be ahead.
        return is_ours and now < int(match[1]) <= now + 2 * PROBE_SECONDS

    def callback_secrets(self, organization_uid: str) -> tuple[str, ...]:
        """Return the secrets that sign an organization's callbacks in Replicate's form, that of the newest key first.

        There is one for each master key, so that a subscriber may go on with the one that it has during a rotation.
        """
        keys = (hmac.digest(key, organization_uid.encode(), "sha256") for key in self._callback_keys)
        return tuple(f"whsec_{base64.b64encode(key).decode()}" for key in keys)

    def dashboard_serializer(self, purpose: str) -> URLSafeSerializer:
        """Return what signs values for the dashboard; one that was signed for another `purpose` is refused."""
        return URLSafeSerializer(
            self._dashboard_keys,
            salt=f"ringback.dashboard.{purpose}",
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """The keys, oldest first, each as 12 hex digits that tell keys apart and may be shown to everybody."""
        return tuple(self._signing_keys)

    @property
    def newest(self) -> str:
        """The fingerprint of the key that signs and encrypts."""
        return self.fingerprints[-1]

    def key_of(self, token: str) -> str | None:
        """Return the fingerprint of the key that encrypted `token`; None if no key here did. It decrypts nothing."""
        try:
            raw = base64.urlsafe_b64decode(token)
        except ValueError:
            return None
        content, signature = raw[:-_KEY_BYTES], raw[-_KEY_BYTES:]
        for fingerprint, key in reversed(self._signing_keys.items()):
            if hmac.compare_digest(hmac.digest(key, content, "sha256"), signature):
                return fingerprint
        return None

    def encrypt(self, text: str) -> str:
        """Return `text` encrypted for storage in a row (Fernet, newest key)."""
        return self._cipher.encrypt(text.encode()).decode("ascii")

    def decrypt(self, token: str) -> str:
        """Return the text that `encrypt` made `token` from. Raises `MasterKeyMissing` when no key decrypts it."""
        try:
            return self._cipher.decrypt(token.encode()).decode()
        except InvalidToken:
            raise MasterKeyMissing(
                "a stored secret was encrypted with a master key that is missing; "
                "put that key back at the front of RINGBACK_SECRET_KEY"
            ) from None

    def fingerprint(self, *parts: str) -> str:
        """Return a keyed hash of `parts` (HMAC-SHA256, hex, newest key): the same for equal parts.

        It changes when a master key is added, so use it only for what is stored for a short time.
        """
        # Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") have different hashes.
        framed = b"".join(b"%d:%b" % (len(raw), raw) for raw in (part.encode() for part in parts))
        return hmac.digest(self._fingerprint_key, framed, "sha256").hex()


def new_master_key() -> str:
    """Return a new master key: 32 random bytes in URL-safe base64."""
    return secrets.token_urlsafe(_KEY_BYTES)


def new_api_key() -> str:
    """Return a new API key: `rb_` and 32 random bytes in URL-safe base64."""
    return "rb_" + secrets.token_urlsafe(_KEY_BYTES)


def hash_api_key(key: str) -> str:
    """Return the SHA-256 (hex) by which a row stores an API key. A key is random, so no slow hash is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def _derive(master: str, purpose: str) -> bytes:
    kdf = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=purpose.encode())
    return kdf.derive(master.encode())


def _cipher_key(master: str) -> bytes:
    """Return the key for Fernet, whose first half signs tokens and whose second half encrypts."""
    return _derive(master, "ringback.secrets")


def _fernet(master: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(_cipher_key(master)))


def _public_name(master: str) -> str:
    return _derive(master, "ringback.name")[:_NAME_BYTES].hex()
