"""The expressions of a provider's file: JMESPath, with two functions of our own."""

from functools import cache
from typing import TYPE_CHECKING, Any

from receiver.providers.base import MalformedUpdate
from receiver.providers.lenient_json import read_json

if TYPE_CHECKING:
    from jmespath.parser import ParsedResult

_LONGEST = 2000


class Expression:
    """An expression of a file, compiled once."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled: ParsedResult | None = None

    def compile(self) -> "ParsedResult":
        """Return it compiled. Raises ValueError, whose message says where it is wrong."""
        if self._compiled is None:
            from jmespath import compile as compiled
            from jmespath.exceptions import JMESPathError

            if len(self.text) > _LONGEST:
                raise ValueError(f"an expression may have at most {_LONGEST} characters")
            try:
                self._compiled = compiled(self.text)
            except JMESPathError as error:
                raise ValueError(f"not a JMESPath expression: {str(error).splitlines()[0]}") from None
            _check_functions(self._compiled.parsed)
        return self._compiled

    def of(self, value: Any) -> Any:
        """Return what it finds in a JSON value; None where it does not fit the value's types."""
        from jmespath.exceptions import JMESPathError

        try:
            return self.compile().search(value, options=_options())
        except (JMESPathError, TypeError, ValueError, OverflowError):
            return None

    def holds(self, value: Any) -> bool:
        """Return whether it is true of a JSON value, as JMESPath has it: empty texts, lists and objects are not."""
        found = self.of(value)
        return found not in (None, False, "", [], {})


def _check_functions(node: Any) -> None:
    """Raise ValueError for a function that does not exist: JMESPath itself tells it only when it is called."""
    if not isinstance(node, dict):
        return
    known = _options().custom_functions.FUNCTION_TABLE
    if node.get("type") == "function_expression" and node["value"] not in known:
        from difflib import get_close_matches

        similar = get_close_matches(node["value"], known) or ["from_json", "percent"]
        raise ValueError(f"no function is named {node['value']}; did you mean {' or '.join(similar)}?")
    for child in node.get("children", ()):
        _check_functions(child)


@cache
def _options() -> Any:
    from jmespath import Options, functions

    class Functions(functions.Functions):
        @functions.signature({"types": ["string"]})
        def _func_from_json(self, text: str) -> Any:
            try:
                return read_json(text.encode("utf-8", "replace"))
            except MalformedUpdate:
                return None

        @functions.signature({"types": ["number"]})
        def _func_percent(self, share: float) -> float:
            return share * 100

    return Options(custom_functions=Functions())
