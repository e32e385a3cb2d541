"""The expressions of a provider's file: JMESPath, with two functions of our own."""

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from receiver.providers.base import MalformedUpdate
from receiver.providers.lenient_json import read_json

if TYPE_CHECKING:
    from jmespath.parser import ParsedResult

_LONGEST = 2000
_DEEPEST = 60
"""Levels of an expression. Each takes some of Python's stack when it is read and when it is used."""
_TOO_DEEP = f"an expression may have at most {_DEEPEST} levels"
_OF_NUMBERS = frozenset({"abs", "avg", "ceil", "floor", "percent", "sum", "to_number"})
"""Functions that may make a number of what is none that JSON has: beyond 64 bits, or infinite."""


class Expression:
    """An expression of a file, compiled once."""

    __slots__ = ("_compiled", "_makes_numbers", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._compiled: ParsedResult | None = None
        self._makes_numbers = False

    def compile(self) -> "ParsedResult":
        """Return it compiled. Raises ValueError, whose message says where it is wrong."""
        if self._compiled is None:
            from jmespath import compile as compiled
            from jmespath.exceptions import JMESPathError

            if len(self.text) > _LONGEST:
                raise ValueError(f"an expression may have at most {_LONGEST} characters")
            try:
                made = compiled(self.text)
            except JMESPathError as error:
                raise ValueError(f"not a JMESPath expression: {str(error).splitlines()[0]}") from None
            except RecursionError:
                raise ValueError(_TOO_DEEP) from None
            self._makes_numbers = not _OF_NUMBERS.isdisjoint(_checked_functions(made.parsed))
            self._compiled = made
        return self._compiled

    def of(self, value: Any) -> Any:
        """Return what it finds in a JSON value; None where it does not fit the value's types."""
        from jmespath.exceptions import JMESPathError

        try:
            found = self.compile().search(value, options=_options())
        except (JMESPathError, TypeError, ValueError, OverflowError):
            return None
        return _with_json_numbers(found) if self._makes_numbers else found

    def holds(self, value: Any) -> bool:
        """Return whether it is true of a JSON value, as JMESPath has it: empty texts, lists and objects are not."""
        found = self.of(value)
        return not (found is None or found is False or (isinstance(found, str | list | dict) and not found))


def _checked_functions(parsed: Any) -> set[str]:
    """Return the functions that an expression calls.

    Raises ValueError for one that does not exist, which JMESPath itself tells only when it is called, and for an
    expression that is nested too deeply.
    """
    known, called = _options().custom_functions.FUNCTION_TABLE, set[str]()
    level = [parsed]
    for _ in range(_DEEPEST):
        for node in level:
            if node.get("type") == "function_expression":
                called.add(node["value"])
        level = [child for node in level for child in node.get("children", ()) if isinstance(child, dict)]
        if not level:
            break
    else:
        raise ValueError(_TOO_DEEP)
    for name in sorted(called - known.keys()):
        from difflib import get_close_matches

        similar = get_close_matches(name, known) or ["from_json", "percent"]
        raise ValueError(f"no function is named {name}; did you mean {' or '.join(similar)}?")
    return called


def _with_json_numbers(value: Any) -> Any:
    """Return a value with null in place of numbers that are not finite, and a double for those beyond 64 bits."""
    if isinstance(value, list):
        return [_with_json_numbers(each) for each in value]
    if isinstance(value, dict):
        return {name: _with_json_numbers(each) for name, each in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
