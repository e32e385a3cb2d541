"""Which answers to a poll are the provider's own word that it does not know the task."""

from typing import Any

import pytest

from receiver.providers.base import Missing, NoAnswer
from receiver.providers.piapi.calls import PiAPIResponse
from receiver.providers.piapi.outcomes import fetch_outcome


def outcome(status: int, body: Any, text: str = "") -> Any:
    return fetch_outcome(PiAPIResponse(status, body, text, None), "pt-1", attempt=1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"code": 404, "data": None, "message": "record not found"}),
        (404, {"code": 404, "message": ""}),
        (404, {"message": "task not found"}),
        (404, {"error": "Task 0198-ab not found"}),
        (404, {"description": "task_id 'pt-1' does not exist"}),
        (410, {"code": 410, "message": "gone"}),
        (200, {"code": 404, "data": None, "message": "failed to find"}),
        (400, {"code": 400, "message": "task not found"}),
        (500, {"code": 500, "data": None, "message": "record not found"}),
        (400, {"message": "no such task"}),
    ],
)
def test_an_answer_of_the_providers_own_is_believed(status: int, body: Any) -> None:
    assert isinstance(outcome(status, body), Missing)


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, None, ""),
        (404, None, "404 page not found"),
        (404, None, "task not found"),
        (404, "task not found", ""),
        (404, [], ""),
        (404, {}, ""),
        (404, {"detail": "Not Found"}, ""),
        (404, {"message": "no Route matched with those values"}, ""),
        (404, {"error": "not found"}, ""),
        (404, {"code": 404, "message": "the requested URL was not found on this server"}, ""),
        (410, {"error": "gone"}, ""),
        (502, {"code": 502, "message": "bad gateway"}, ""),
        (500, {"code": 500, "message": "task failed: the input file was not found"}, ""),
    ],
)
def test_a_gateways_not_found_is_no_answer(status: int, body: Any, text: str) -> None:
    assert isinstance(outcome(status, body, text), NoAnswer)
