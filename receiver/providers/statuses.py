"""What the HTTP statuses of a provider's answers mean for whether a create call made a task.

`receiver.providers.piapi.outcomes` says why that decides what happens next.
"""

import re

NOT_MADE = frozenset({425, 429, 503, 521, 523, 525, 526})
"""Turned away before anything was made. The last four are the gateway's codes for "could not reach the server"."""
TEMPORARY = frozenset({408, 425, 429})
"""4xx statuses that are not refusals: the same request may succeed later."""
REDIRECTS = frozenset({301, 307, 308})
"""Redirects of a POST to another address: nothing was made. Redirects are not followed."""
PROVIDER_FAULTS = frozenset(range(500, 512)) - {502, 503, 504}
"""The provider's own failures, after which the task may exist. From 512 on they are a gateway's."""
GONE = frozenset({404, 410})
LOST_AT_GATEWAY = re.compile(
    r"disconnect|connection (?:termination|was reset|reset)|reset (?:reason|before headers)|upstream request time"
    r"|backend (?:fetch failed|read error)|first byte time|time.?out|timed out|prematurely closed",
    re.I,
)
"""Words of a 503 of gateways (Envoy, Varnish and others) that lost a connection with the request in it."""
