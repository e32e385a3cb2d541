"""The feed of committed events that streams follow."""

from collections.abc import Sequence

from receiver.storage.transaction import NewEvent


class Feed:
    """Hands events that are on disk to whoever follows, in the order of their sequence numbers."""

    def publish(self, events: Sequence[tuple[int, NewEvent]]) -> None:
        """Take events with their sequence numbers, after their commit."""
