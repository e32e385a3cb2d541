"""Finds the words of an error, wherever a provider put them. Nothing here raises, whatever the types.

Source: `receiver/providers/piapi/CONTRACT.md`, "Reasons of a failure" and "Errors and limits".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

LONGEST_WORDS = 1000
NO_REASON = "the provider gave no reason"

REASON_FIELDS = (
    ("error",),
    ("errors",),
    ("error_message",),
    ("errorMessage",),
    ("error_messages",),
    ("error_msg",),
    ("err_msg",),
    ("errmsg",),
    ("fail_reason",),
    ("failReason",),
    ("failure_reason",),
    ("failed_reason",),
    ("task_status_msg",),
    ("status_message",),
    ("reason",),
    ("message",),
    ("msg",),
    ("output", "error"),
    ("output", "errors"),
    ("output", "error_message"),
    ("output", "error_messages"),
    ("output", "error_msg"),
    ("output", "err_msg"),
    ("output", "fail_reason"),
    ("output", "failure_reason"),
    ("output", "task_status_msg"),
    ("output", "reason"),
    ("output", "message"),
    ("output", "msg"),
    ("detail",),
    ("details",),
)
"""Where the reason of a task's failure may be, the preferred place first; a log that speaks of one comes last."""
REASON_NAMES = frozenset(path[0] for path in REASON_FIELDS) - {"output"}
CODE_FIELDS = ("error_code", "errorCode", "err_code", "errcode", "fail_code", "failure_code")

_BODY_FIELDS = ("message", "error", "description", "detail", "errors", "msg", "error_message", "errorMessage")
_MORE_BODY_FIELDS = ("error_msg", "err_msg", "errmsg", "reason", "fail_reason", "task_status_msg", "title")
_WORD_FIELDS = ("message", "msg", "raw_message", "detail", "details", "reason", "description", "error", "errors")
_MORE_WORD_FIELDS = ("error_message", "error_msg", "err_msg", "text", "title")
_DEEPEST = 4
_MOST_ITEMS = 10
_NO_ERROR = frozenset(
    {"", "success", "succeed", "succeeded", "successful", "ok", "okay", "none", "null", "nil", "no error", "noerror"}
    | {"0", "200", "undefined", "{}", "[]", "completed", "complete", "done", "n/a"}
)
_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{1,200})", re.IGNORECASE)
_LOGGED = re.compile(r"error|fail|exception|denied|reject|moderat|not allowed|timed? ?out|invalid", re.IGNORECASE)
_LONGEST_JSON = 20_000
_LOGS_READ = 20
_ERROR_NAME = re.compile(r"err|fail", re.IGNORECASE)


def words_of(value: Any) -> str:
    """Return the words in a value of any form, bounded; "" if it has none, or only says that there is no error.

    A list's items are joined. What is wrong with a field reads `body.input: field required`, from an item with a `loc`
    or an object of lists by field.
    """
    words = _words(value, _DEEPEST)
    return "" if says_no_error(words) else _bounded(words)


def message_of(body: Any) -> str:
    """Return the message of an HTTP response's body, "" if it has none: the words of its error, else its `message`."""
    words = error_words(body)
    if words or not isinstance(body, dict):
        return words
    message = body.get("message")
    return _bounded(message.strip()) if isinstance(message, str) else ""


def error_words(body: Any) -> str:
    """Return the words of the error in an HTTP response's body, "" if it has none."""
    if not isinstance(body, dict):
        return words_of(body) if isinstance(body, str | list) else ""
    return next(filter(None, (words_of(body.get(name)) for name in _BODY_FIELDS + _MORE_BODY_FIELDS)), "")


def reason_of(task: Mapping[str, Any], *, failed: bool) -> tuple[str, Any]:
    """Return (words, the value that they are from) of a task's failure; ("", None) if they are nowhere.

    Of a task that may not have failed only the fields are read that are named after an error.
    """
    for path in REASON_FIELDS:
        if failed or _ERROR_NAME.search(path[-1]):
            value = _at(task, path)
            words = words_of(value)
            if words:
                return words, value
    return _logged(task.get("logs")) if failed else "", None


def code_of(task: Mapping[str, Any]) -> Any:
    """Return the code of a failure that stands next to the words and not in `error`, None if there is none."""
    return next((task[name] for name in CODE_FIELDS if task.get(name) not in (None, "", 0, "0", False)), None)


def says_no_error(words: str) -> bool:
    """Return whether the words of an error field say that there is none, such as an envelope's `success`."""
    return words.strip().strip(".!").lower() in _NO_ERROR


def _at(task: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = task
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _words(value: Any, deepest: int) -> str:
    if isinstance(value, str):
        return _words_in_text(value.strip(), deepest)
    if deepest == 0:
        return ""
    if isinstance(value, list):
        found = (_words(item, deepest - 1) for item in value[:_MOST_ITEMS])
        return "; ".join(dict.fromkeys(filter(None, found)))
    if isinstance(value, dict):
        return _words_in_object(value, deepest)
    return ""


def _words_in_object(value: dict[str, Any], deepest: int) -> str:
    for name in _WORD_FIELDS + _MORE_WORD_FIELDS:
        words = _words(value.get(name), deepest - 1)
        if words and not says_no_error(words):
            return _with_place(value.get("loc"), words)
    lists = ((name, _words(item, deepest - 1)) for name, item in value.items() if isinstance(item, list))
    return "; ".join(f"{name[:60]}: {words}" for name, words in lists if words)


def _with_place(place: Any, words: str) -> str:
    if not isinstance(place, list) or not place:
        return words
    return f"{'.'.join(str(each)[:60] for each in place[:_MOST_ITEMS] if isinstance(each, str | int))}: {words}"


def _words_in_text(text: str, deepest: int) -> str:
    """Return a text's first characters; the words in it if it is JSON that has some, the title if it is a web page."""
    if _PAGE.match(text):
        title = _TITLE.search(text[:10_000])
        return " ".join(title[1].split()) if title else ""
    if deepest and text[:1] in ("{", "[") and len(text) <= _LONGEST_JSON:
        try:
            words = _words(orjson.loads(text), deepest - 1)
        except orjson.JSONDecodeError:
            words = ""
        return words.replace("\0", "") or text
    return text[: LONGEST_WORDS + 1]


def _logged(logs: Any) -> str:
    """Return the last entry of a log that speaks of a failure, "" if there is none."""
    entries = reversed(logs[-_LOGS_READ:]) if isinstance(logs, list) else iter(())
    return next(filter(None, _failures(entries)), "")


def _failures(entries: Iterator[Any]) -> Iterator[str]:
    for entry in entries:
        words = words_of(entry)
        yield words if _LOGGED.search(words) else ""


def as_text(value: Any) -> str:
    """Return a text as it is, and any other value that says something as JSON."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode() if value else ""
    except orjson.JSONEncodeError:
        return ""


def _bounded(words: str) -> str:
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 1] + "…"
