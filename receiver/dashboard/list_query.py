"""The query of a list: its filters are in the URL, so that a page can be shared and the browser's back button works."""

from collections.abc import Callable, Sequence

from msgspec import Struct

Pairs = list[tuple[str, str]]
_OF_ONE_PAGE = frozenset({"cursor"})
"""What a link to another filter leaves out: it belongs to the page that is shown."""


class ListQuery(Struct, frozen=True):
    """The names and values of a list's URL, and links to the same list with others. `url` makes a path a URL."""

    path: str
    pairs: Pairs
    url: Callable[[str, Pairs], str]

    def get(self, name: str) -> str:
        """Return the value of a name; an empty text if there is none."""
        return next((value for each, value in self.pairs if each == name), "")

    def all(self, name: str) -> list[str]:
        """Return the values of a name."""
        return [value for each, value in self.pairs if each == name]

    def having(self, name: str, value: str) -> str:
        """Return the URL of the list with this value for a name, and without one if it is empty."""
        kept = [pair for pair in self._filters() if pair[0] != name]
        return self.url(self.path, [*kept, (name, value)] if value else kept)

    def without(self, name: str) -> str:
        """Return the URL of the list without a filter."""
        return self.having(name, "")

    def next_page(self, cursor: str) -> str:
        """Return the URL of the page that follows."""
        return self.url(self.path, [*self._filters(), ("cursor", cursor)])

    def first_page(self) -> str:
        """Return the URL of the newest page."""
        return self.url(self.path, self._filters())

    def bare(self) -> str:
        """Return the URL of the list without any filter; the columns stay."""
        return self.url(self.path, [pair for pair in self.pairs if pair[0] == "columns"])

    def hidden(self, *names: str) -> Pairs:
        """Return what a form keeps in hidden fields, because it has no fields of its own (`names`) for it."""
        return [pair for pair in self._filters() if pair[0] not in names]

    def _filters(self) -> Pairs:
        return [pair for pair in self.pairs if pair[0] not in _OF_ONE_PAGE]


def canonical(pairs: Sequence[tuple[str, str]], columns: Sequence[str] = ()) -> Pairs:
    """Return the query of a list as its URL is to have it.

    Fields that a form left empty are dropped, what its fields `metadata_key` and `metadata_value` have is written as
    the API names it, and columns are named only where they are not those that a list has by itself.
    """
    given = [(name, value.strip()) for name, value in pairs if value.strip()]
    key = next((value for name, value in given if name == "metadata_key"), None)
    value = next((value for name, value in given if name == "metadata_value"), "")
    found = [pair for pair in given if pair[0] not in ("metadata_key", "metadata_value")]
    if key is not None:
        found = [pair for pair in found if pair[0] != f"metadata[{key}]"] + [(f"metadata[{key}]", value)]
    if [value for name, value in found if name == "columns"] == list(columns):
        found = [pair for pair in found if pair[0] != "columns"]
    return found
