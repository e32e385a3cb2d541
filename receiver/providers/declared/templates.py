"""The texts of a provider's file that have places to fill: `/v1/tasks/{id}`."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from urllib.parse import quote

from receiver.providers.api import CannotAsk

_PLACE = re.compile(r"\{([^{}]*)\}")
_PATH = ":path"
"""After a name: its slashes stay, so that it is several parts of a path."""
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")
_DOTS = (".", "..")


class Template:
    """A text with places. `names` are those of its places."""

    __slots__ = ("names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = tuple(place.removesuffix(_PATH) for place in _PLACE.findall(text))

    def check(self, known: tuple[str, ...]) -> None:
        """Raise ValueError for a place that has none of these names, and for a brace that belongs to no place."""
        if set(_PLACE.sub("", self.text)) & {"{", "}"}:
            raise ValueError("has a brace that belongs to no place: places are as {id}")
        for name in self.names:
            if name not in known:
                similar = get_close_matches(name, known) or known
                raise ValueError(
                    f"nothing is named {{{name}}} here; use {' or '.join(f'{{{each}}}' for each in similar)}"
                )

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the text with its places filled as they are."""
        return self._filled(lambda place: values[place.removesuffix(_PATH)])

    def as_header(self, values: Mapping[str, str]) -> str:
        """Return the text as the value of a header. Raises `CannotAsk` for a value that no header may have."""
        text = self.filled(values)
        if _HEADER_TEXT.fullmatch(text) is None:
            raise CannotAsk(f"{' or '.join(self.names)} has characters that no header may have")
        return text

    def as_path(self, values: Mapping[str, str]) -> str:
        """Return the text as a path, so that no value leads to another one.

        Raises `CannotAsk` for a value that could: one that is empty, or has parts that are dots.
        """

        def quoted(place: str) -> str:
            value = values[place.removesuffix(_PATH)]
            parts = value.split("/") if place.endswith(_PATH) else [value]
            if any(part in ("", *_DOTS) for part in parts):
                raise CannotAsk(f"{place.removesuffix(_PATH)} cannot be a part of a path: {value[:100]!r}")
            return "/".join(quote(part, safe="", errors="replace") for part in parts)

        path = self._filled(quoted)
        if any(part in _DOTS for part in path.split("/")):  # as of /jobs/.{id}
            raise CannotAsk(f"{' or '.join(self.names)} cannot be a part of a path here")
        return path

    def _filled(self, value_of: Callable[[str], str]) -> str:
        return _PLACE.sub(lambda found: value_of(found[1]), self.text)
