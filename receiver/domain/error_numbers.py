"""The error of a task in PiAPI's form, where `code` is a number: the provider's own, or one of ours for our failures.

PiAPI's clients read `error.code` as a number (`receiver/providers/piapi/CONTRACT.md`, "Errors and limits"), and
Ringback's own failures have words. Pure functions.
"""

from collections.abc import Mapping
from typing import Any

OWN_NUMBERS: Mapping[str, int] = {
    "internal_error": 90000,
    "timed_out": 90001,
    "provider_lost_task": 90002,
    "submission_unknown": 90003,
    "mentioned_task_unknown": 90004,
    "invalid_reference": 90005,
    "reference_leads_nowhere": 90006,
    "provider_unauthorized": 90007,
    "cancelled": 90008,
    "provider_task_taken": 90009,
    "create_call_failed": 90010,
}
"""Ringback's own codes and their numbers, in a range in which PiAPI has none. A number never changes its meaning."""

_NO_ERROR = {"code": 0, "raw_message": "", "message": "", "detail": None}
_LONGEST_NUMBER = 9
"""Digits: what fits into 32 bits, which typed clients have."""


def piapi_error(error: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a task's error in PiAPI's form: code 0 and empty texts if there is none.

    The word of our own code is in `raw_message`, which is empty for our own failures otherwise or repeats `message`. A
    word of the provider's that is no number stays as it is.
    """
    if not error:
        return dict(_NO_ERROR)
    shown = {**_NO_ERROR, **{name: value for name, value in error.items() if value is not None}}
    word = shown["code"]
    shown["code"] = _number(word)
    if isinstance(word, str) and word in OWN_NUMBERS and shown["raw_message"] in ("", shown["message"]):
        shown["raw_message"] = word
    return shown


def _number(code: Any) -> Any:
    if isinstance(code, float) and code.is_integer() and abs(code) < 10**_LONGEST_NUMBER:
        return int(code)  # a larger one stays as it is: no JSON of ours has whole numbers of any length
    if not isinstance(code, str):
        return code
    if code in OWN_NUMBERS:
        return OWN_NUMBERS[code]
    digits = code.strip().removeprefix("-")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER
    return int(code) if is_number else code
