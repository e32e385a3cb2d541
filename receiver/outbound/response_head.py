"""The status of a response, read apart from its headers: a subscriber is judged by its status, whatever follows it.

aiohttp refuses a response as a whole for one wrong header, and its error says nothing of the status. So the protocol
here takes the status line by itself from the head that `receiver.response_head` reads.
"""

from receiver.response_head import MOST_BYTES_BESIDE_BODY, BoundedHandler


class HeadUnreadable(Exception):
    """Raised in place of aiohttp's own error when the head of a response has a status and yet cannot be parsed.

    `retry_after` is the value of that header, if there is one.
    """

    def __init__(self, status: int, retry_after: str | None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.retry_after = retry_after


class StatusFirstHandler(BoundedHandler):
    """aiohttp's protocol of a connection, which raises `HeadUnreadable` where a broken head has a status."""

    most_body_bytes = MOST_BYTES_BESIDE_BODY  # far more than is kept of a body

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Set the error that the reader of the response gets."""
        status = self._head.status
        if status is not None and isinstance(exc, Exception):
            exc = HeadUnreadable(status, self._head.retry_after)
        super().set_exception(exc, *cause)
