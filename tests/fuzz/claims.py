"""What must hold for every answer, whatever was asked."""

from collections.abc import Iterator

import orjson

from receiver.api.passthrough import FORWARDED_GETS, FORWARDED_POSTS, UPLOAD_PATH
from tests.fuzz.requests import FuzzRequest
from tests.fuzz.service import MARK, PLANTED, Answer

LARGEST_ERROR = 64 * 1024
_PASSED_ON = (*FORWARDED_GETS, *FORWARDED_POSTS, UPLOAD_PATH)


def broken_claims(request: FuzzRequest, answer: Answer) -> Iterator[str]:
    """Yield each claim that the answer breaks."""
    if answer.status == 0:
        yield "there is no answer"
    if answer.status >= 500 and not _may_fail(answer):
        yield f"it is a {answer.status}"
    text = answer.body.decode("utf-8", "replace") + str(answer.headers)
    if MARK in text:
        yield "it has what belongs to another organization"
    for secret in PLANTED:
        if secret in text:
            yield f"it has the secret {secret[:12]}..."
    if answer.status >= 400 and request.method not in ("HEAD", "head"):
        yield from _error_claims(request, answer)


def _may_fail(answer: Answer) -> bool:
    return answer.status == 503 or (answer.status == 504 and b"outcome_unknown" in answer.body)


def _error_claims(request: FuzzRequest, answer: Answer) -> Iterator[str]:
    if len(answer.body) > LARGEST_ERROR:
        yield f"the error has {len(answer.body)} bytes"
    if any(path in request.raw_path for path in _PASSED_ON) and "predictions" not in request.raw_path:
        return  # the error may be the provider's own
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        if answer.headers.get("content-type", "").startswith("text/plain") and answer.status in (405, 503):
            return  # of the paths for machines: /livez, /readyz, /metrics
        yield "the error is no JSON"
        return
    error = body.get("error") if isinstance(body, dict) else None
    is_native = isinstance(error, dict) and {"type", "code", "message"} <= error.keys()
    # A refusal of the provider is passed on, and may have no `data`.
    is_piapi = isinstance(body, dict) and {"code", "message"} <= body.keys()
    is_problem = isinstance(body, dict) and {"title", "detail", "status"} <= body.keys()
    if not (is_native or is_piapi or is_problem):
        yield "the error is in no dialect's form"
