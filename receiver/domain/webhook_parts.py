"""What one process may use of the limits that a client has set on a webhook, where several processes send to it."""

from msgspec import Struct

from receiver.domain.endpoint_queue import DEFAULT_IN_FLIGHT, Limits
from receiver.domain.limit_parts import Part


class WebhookLimits(Struct, frozen=True):
    """The limits of one webhook, all processes together; None is no limit.

    Without `in_flight` each process has `DEFAULT_IN_FLIGHT`, which protects the process and not the endpoint.
    """

    in_flight: int | None
    rate: float | None

    @property
    def is_limited(self) -> bool:
        """Return whether there is anything to share."""
        return self.in_flight is not None or self.rate is not None

    def part(self, key: int, wanted: float, part: Part) -> Limits:
        """Return this process's part, at least one attempt in flight; `key` is the subscription's row key.

        `wanted` is how many deliveries this process has for the webhook. The limits are named
        `webhook-in-flight:<key>` and `webhook-rate:<key>`.
        """
        in_flight, rate = DEFAULT_IN_FLIGHT, self.rate
        if self.in_flight is not None:
            in_flight = max(1, int(self.in_flight * part(f"webhook-in-flight:{key}", wanted)))
        if rate is not None:
            rate *= part(f"webhook-rate:{key}", wanted)
        return Limits(in_flight, rate)
