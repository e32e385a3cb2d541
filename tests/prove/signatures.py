"""Whether a delivery's signature is right, by the Standard Webhooks specification and not by Ringback's code.

Unlike the public verifiers it accepts any time, because campaigns step the clocks of the service.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping


def new_secret(mark: str) -> str:
    """Return a secret for a webhook, always the same for a mark: it protects nothing but a campaign."""
    return "whsec_" + base64.b64encode(hashlib.sha256(mark.encode()).digest()).decode()


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the signatures in `webhook-signature` is that of this secret."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(each, f"v1,{wanted}") for each in given)
