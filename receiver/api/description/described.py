"""The operations of the service: each route together with its row of `operations`."""

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct
from pydantic import BaseModel
from starlette.routing import BaseRoute, Route

from models import Scope
from receiver.api.description.operations import OPERATIONS, Operation
from receiver.api.description.prose import description_of, summary_of
from receiver.api.dialects import PIAPI, REPLICATE
from receiver.api.endpoint import RouteEndpoint


class DescribedOperation(Struct, frozen=True):
    """An operation and its route. `endpoint` is None for a path that needs no key."""

    method: str
    path: str
    operation: Operation
    endpoint: RouteEndpoint | None
    docstring: str

    @property
    def scope(self) -> Scope | None:
        """The scope that a key needs."""
        return None if self.endpoint is None else self.endpoint.scope

    @property
    def query(self) -> type[BaseModel] | None:
        """The schema of the query."""
        return None if self.endpoint is None else self.endpoint.query

    @property
    def is_piapi(self) -> bool:
        """Whether it answers in PiAPI's form."""
        return self.endpoint is not None and self.endpoint.dialect is PIAPI

    @property
    def is_replicate(self) -> bool:
        """Whether it answers in Replicate's form."""
        return self.endpoint is not None and self.endpoint.dialect is REPLICATE

    @property
    def passes_on(self) -> bool:
        """Whether the answer is mostly the provider's own."""
        return self.endpoint is not None and self.endpoint.passes_on

    @property
    def takes_idempotency_key(self) -> bool:
        """Whether a repeated request with an `Idempotency-Key` gets the same answer."""
        return self.changes and self.method == "POST" and self.endpoint is not None and not self.passes_on

    @property
    def changes(self) -> bool:
        """Whether it changes something: a POST may only read."""
        return self.method != "GET" and not (self.endpoint is not None and self.endpoint.only_reads)

    @property
    def path_parameters(self) -> list[str]:
        """The names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def summary(self) -> str:
        """One line about it."""
        return self.operation.summary or summary_of(self.docstring)

    @property
    def description(self) -> str:
        """All that its handler says about it."""
        return "" if self.operation.summary else description_of(self.docstring)


def operations_of(routes: Iterable[BaseRoute]) -> Iterator[DescribedOperation]:
    """Yield the operations of routes. Raises `KeyError` for one without a row in `OPERATIONS`."""
    for route in routes:
        if isinstance(route, Route):
            endpoint = getattr(route.endpoint, "__self__", None)
            endpoint = endpoint if isinstance(endpoint, RouteEndpoint) else None
            handler = route.endpoint if endpoint is None else endpoint.handler
            for method in methods_of(route):
                operation = OPERATIONS[f"{method} {route.path}"]
                yield DescribedOperation(method, route.path, operation, endpoint, handler.__doc__ or "")


def methods_of(route: Route) -> list[str]:
    """Return the methods of a route, without HEAD, which every GET has; a route without any is for webhooks."""
    return sorted((route.methods or {"POST"}) - {"HEAD"})
