"""The flow of one connection's bytes: when it is read, and how long a body took while it was."""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.flow_control import FlowControl

from receiver.serving.lean_event import LeanEvent


class BodyClock:
    """Measures how long a client took for a body, in seconds. Time in which it could not send does not count."""

    __slots__ = ("_now", "_since", "_spent", "size")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._spent = 0.0
        self._since: float | None = None
        """When it began to run; None while it stands."""
        self.size = 0
        """Bytes of the body that arrived."""

    def begin(self, size: int) -> None:
        """Begin with a body of which `size` bytes have arrived, and stand."""
        self._spent, self._since, self.size = 0.0, None, size

    def run(self) -> None:
        """Run from now on."""
        if self._since is None:
            self._since = self._now()

    def stand(self) -> None:
        """Stand from now on."""
        if self._since is not None:
            self._spent += self._now() - self._since
            self._since = None

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self._spent + (0.0 if self._since is None else self._now() - self._since)


class RequestFlow(FlowControl):
    """uvicorn's control of the flow; reading stays paused while `is_full` says that enough has arrived.

    The application resumes reading whenever it waits for a body or for the end of the connection, so that alone would
    not bound what a client sends meanwhile.
    """

    def __init__(self, transport: asyncio.Transport, clock: BodyClock, is_full: Callable[[], bool]) -> None:
        # Not by uvicorn's own, which makes an `asyncio.Event`.
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event = LeanEvent()
        self._is_writable_event.set()
        self._clock = clock
        self._is_full = is_full

    def pause_reading(self) -> None:
        """Pause: the time of the body stands still."""
        self._clock.stand()
        super().pause_reading()

    def resume_reading(self) -> None:
        """Resume, unless enough has arrived. A client that waited for `100 Continue` has been told by now."""
        self._clock.run()
        if self.read_paused and not self._is_full():
            super().resume_reading()
