"""The reference as a page shows it: with the reader's address in its examples, and without what a search left out."""

import asyncio
from typing import TypeAlias

from markupsafe import Markup

from receiver.dashboard.reference import ApiReference, is_found
from receiver.dashboard.templates import render_part

_MOST_KEPT = 4
"""Addresses. A service has one or two; any other is what somebody made up."""
ShownReference: TypeAlias = tuple[Markup, Markup]
"""The contents, and the parts."""


class ReferencePage:
    """Renders a reference once for each address; a search is rendered each time, in a thread like all of it."""

    def __init__(self, reference: ApiReference, page: str) -> None:
        self.reference = reference
        self._page = page
        self._kept: dict[str, ShownReference] = {}

    async def shown(self, address: str, query: str) -> ShownReference:
        """Return the page for an address, with the parts that have all words of a query."""
        if not query and address in self._kept:
            return self._kept[address]
        shown = await asyncio.to_thread(self._rendered, address, query)
        if not query:
            self._kept[address] = shown
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return shown

    def _rendered(self, address: str, query: str) -> ShownReference:
        reference = self.reference.at(address)
        found = {each.anchor for section in reference.sections for each in section.entries if is_found(each, query)}
        values = {"reference": reference, "found": found, "query": query, "page": self._page}
        return render_part("docs_contents.html", **values), render_part("docs_parts.html", **values)
