"""PiAPI's calls: how its responses are read, and what their envelopes mean."""

from typing import Any

from receiver.providers.base import MalformedUpdate
from receiver.providers.calls import CallResponse, HTTPCalls, NotSent, ResponseLost
from receiver.providers.piapi.bodies import read_body, redact_plain
from receiver.providers.rate_limiter import RateLimiter
from receiver.providers.reasons import message_of

LONGEST_MESSAGE = 500
_LONGEST_PLAIN = 64 * 1024
"""Bytes of a plain-text body that are looked at: a message is far shorter."""


class PiAPIResponse(CallResponse, frozen=True):
    """A response of PiAPI's. An error may be in the envelope of a success."""

    @property
    def code(self) -> int | None:
        """The code in PiAPI's envelope, if it is a number."""
        code = self.body.get("code") if isinstance(self.body, dict) else None
        if isinstance(code, str) and code.isascii() and code.isdecimal() and len(code) < 10:
            code = int(code)
        return code if isinstance(code, int) and not isinstance(code, bool) else None

    @property
    def effective_status(self) -> int | None:
        """The HTTP status that the response means: an error in the envelope of a 2xx counts as that error.

        200 is a success; None is a 2xx whose envelope has no code, or a code that is not an HTTP error.
        """
        if not 200 <= self.status < 300:
            return self.status
        if self.code in (0, 200):
            return 200
        return self.code if self.code is not None and 400 <= self.code < 600 else None

    @property
    def message(self) -> str:
        """The provider's message, wherever it put it, or one made of the status; bounded."""
        message = message_of(self.body) or self.text or f"HTTP {self.status} from the provider"
        return message[:LONGEST_MESSAGE]


CallOutcome = PiAPIResponse | NotSent | ResponseLost


class Calls(HTTPCalls[PiAPIResponse]):
    """Makes calls to PiAPI, with its key."""

    def __init__(
        self, *, base_url: str, api_key: str, timeout: float, rate_limiter: RateLimiter, concurrency: int | None = None
    ) -> None:
        super().__init__(
            base_url=base_url,
            headers={"x-api-key": api_key},
            secrets=(api_key,),
            timeout=timeout,
            rate_limiter=rate_limiter,
            concurrency=concurrency,
        )

    def read_body(self, body: bytes, hidden: tuple[str, ...]) -> tuple[Any, str]:
        """Return the body as JSON without secrets, or as plain text."""
        try:
            # Cut, because one task nested too deeply must not hide the others of a list.
            return read_body(body, hidden, cut=True), ""
        except MalformedUpdate:
            return None, _plain(body, hidden)

    def response(
        self, status: int, value: Any, text: str, retry_after: float | None, size: int, **more: Any
    ) -> PiAPIResponse:
        """Return a response of PiAPI's."""
        return PiAPIResponse(status, value, text, retry_after, size, **more)


def _plain(body: bytes, hidden: tuple[str, ...]) -> str:
    """Return a plain-text body, bounded; "" for a web page, which says nothing useful in a message."""
    # Redacted before it is cut, or a part of a secret could be left at the end.
    text = redact_plain(body[:_LONGEST_PLAIN], hidden).strip()[:LONGEST_MESSAGE]
    return "" if "<" in text else text
