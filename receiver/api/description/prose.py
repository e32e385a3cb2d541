"""The texts of the document: what is true of all operations, and docstrings as users read them."""

import inspect
import re

OVERVIEW = """\
Ringback tracks generation tasks at a provider and tells everyone who asked when they are done.

**Keys.** Send an API key as `X-API-Key: <key>` or `Authorization: Bearer <key>`. The scopes are `read`, `write` and
`admin`; each includes the ones before it. This document needs no key: it has nothing secret.

**Form.** All but PiAPI's and Replicate's own paths answer with an envelope: `id` names the request, `object` the kind
of the resource, `status` is the state of the request (`queued` for a 202), and `data` has the resource with its own
state. Times are ISO 8601 in UTC with six digits, or unix seconds in runs, jobs and the envelope. PiAPI's paths answer
`{"code", "data", "message"}`, and Replicate's the resource alone, or a problem with `title`, `detail` and `status`:
what is 400 elsewhere is 422 there.

**Errors** have a `code` for programs and a `message` for a person. A 429 or 503 has a `Retry-After`, and nothing of
the request was stored. A 504 `outcome_unknown` may have been done: repeat it with the same `Idempotency-Key`.

**Lists** are newest first. `limit` is at most 200; `next_cursor` of a page is the `cursor` of the next one, and
`has_more` alone says whether there is one.

**Every** answer has an `X-Request-Id`. A `GET` can be asked as `HEAD` too. Slashes at the end of a path mean nothing. A
method that a path does not accept is 405 with `Allow`, and a path where nothing is is 404. What is refused before a
request is complete has a plain text: 400, 408, 414, 431, 503.

**Agents** have tools of their own at `/mcp` (Model Context Protocol), which describe themselves.
"""
_SUBJECT = re.compile(r"^`[A-Z]+ /[^:]*: ")
"""The path that a handler's docstring begins with."""
_RAISES = re.compile(r"\s*Raises [^.]*(?:`[^`]*`[^.]*)*\.")
_SENTENCE = re.compile(r"[.;:](?:\s|$)")


def description_of(docstring: str) -> str:
    """Return what a handler's docstring says for users: without its path, and without what it raises."""
    paragraphs = inspect.cleandoc(_SUBJECT.sub("", docstring)).split("\n\n")
    shown = [_RAISES.sub("", " ".join(each.split())) for each in paragraphs]
    text = "\n\n".join(each for each in shown if each)
    return text[:1].upper() + text[1:]


def summary_of(docstring: str) -> str:
    """Return the beginning of a handler's docstring, up to its first stop."""
    return _SENTENCE.split(description_of(docstring), maxsplit=1)[0]
