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
"""Where the reason of a task's failure usually is, the preferred place first; `_named_reason` finds other places."""
REASON_NAMES = frozenset(path[0] for path in REASON_FIELDS) - {"output"}
CODE_FIELDS = ("error_code", "errorCode", "err_code", "errCode", "errcode", "fail_code", "failCode", "failure_code")

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
_LOGGED = re.compile(
    r"error|fail|exception|denied|reject|moderat|nsfw|unsafe|sensitive|violat|blocked|forbidden|abort|crash"
    r"|not allowed|not enough|insufficient|out of memory|timed? ?out|invalid|unable to|cannot|could not",
    re.IGNORECASE,
)
_LONGEST_JSON = 20_000
_LOGS_READ = 20
_ERROR_NAME = re.compile(r"err|fail", re.IGNORECASE)
_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_REASON_WORDS = frozenset(
    {"err", "error", "errors", "errmsg", "fail", "failed", "failure", "failures", "failmsg"}
    | {"exception", "exceptions", "cause", "reason", "reasons"}
)
_MESSAGE_WORDS = frozenset({"message", "messages", "msg", "msgs"})
_NO_REASON_WORDS = frozenset(
    {"code", "codes", "count", "counts", "rate", "id", "ids", "url", "urls", "time", "at", "prompt"}
)
"""Words in the names of fields that tell something else of an error than its words."""
_NOT_SEARCHED = frozenset({"input", "config", "webhook_config", "task_id", "model", "task_type"})
_MOST_SEARCHED, _MOST_TRIED = 1000, 100
"""How many objects and lists of a task are searched for a reason, and how many fields are read."""


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
    fields = [body.get(name) for name in _BODY_FIELDS + _MORE_BODY_FIELDS]
    return next(filter(None, [*map(words_of, fields), *map(texts_of, fields)]), "")


def texts_of(error: Any) -> str:
    """Return the texts of an error's object under names that are not known: `prompt: too long`."""
    if not isinstance(error, dict):
        return ""
    texts = [(name, item.strip()) for name, item in error.items() if isinstance(item, str)]
    is_code = [name.lower().endswith(("code", "id", "url")) for name, _ in texts]
    found = [f"{name[:60]}: {text}" for (name, text), code in zip(texts, is_code, strict=True) if not code]
    return _bounded("; ".join(words for words in found[:_MOST_ITEMS] if not says_no_error(words.partition(": ")[2])))


def reason_of(task: Mapping[str, Any], *, failed: bool) -> tuple[str, Any]:
    """Return (words, the value that they are from) of a task's failure; ("", None) if they are nowhere.

    Of a failed task without words in `REASON_FIELDS` they are looked for in its logs and in all fields that are named
    after a reason or a message, and at last its output is read, if that is a text. Of a task that may not have failed
    only the fields of `REASON_FIELDS` are read that are named after an error.
    """
    for path in REASON_FIELDS:
        if failed or _ERROR_NAME.search(path[-1]):
            value = _at(task, path)
            words = words_of(value)
            if words:
                return words, value
    if not failed:
        return "", None
    if (logged := _logged(task.get("logs"))) != "":
        return logged, None
    for names in (_REASON_WORDS, _MESSAGE_WORDS):
        found = _named_reason(task, names)
        if found[0]:
            return found
    said = words_of(task.get("output")) if isinstance(task.get("output"), str | list) else ""
    return ("", None) if "://" in said else (said, task.get("output") if said else None)


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


def _named_reason(task: Mapping[str, Any], wanted: frozenset[str]) -> tuple[str, Any]:
    """Return (words, value) of the field nearest to the task whose name has one of these words; ("", None) if none.

    Not recursive: a task may be nested deeper than the stack.
    """
    level: list[Any] = [{name: value for name, value in task.items() if name not in _NOT_SEARCHED}]
    searched = tried = 0
    while level:
        below: list[Any] = []
        for container in level:
            searched += 1
            if searched > _MOST_SEARCHED:
                return "", None
            named = container.items() if isinstance(container, dict) else [("", item) for item in container]
            for name, value in named:
                if tried < _MOST_TRIED and _is_named(name, wanted):
                    tried += 1
                    words = words_of(value)
                    if words and "://" not in words[:8]:
                        return words, value
                if isinstance(value, dict | list):
                    below.append(value)
        level = below
    return "", None


def _is_named(name: str, wanted: frozenset[str]) -> bool:
    parts = {part.lower() for part in _NAME_PARTS.findall(name[:100])}
    return not wanted.isdisjoint(parts) and _NO_REASON_WORDS.isdisjoint(parts)


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
