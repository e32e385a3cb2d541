"""Examples of the main operations. The tests check each against its schema."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_REQUEST_ID = "req_pi_0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6071"
_TASK_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6072"
_RUN_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6073"
_WEBHOOK_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6074"
_DELIVERY_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6075"
_EVENT_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6076"
_KEY_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6077"
_ORGANIZATION_ID = "0197a3c4-5d6e-7f80-9a1b-2c3d4e5f6078"
_BEGAN, _ENDED = "2026-01-31T09:30:00.000000Z", "2026-01-31T09:30:12.250000Z"
_SECONDS = 1769851800
_PICTURE = "https://files.example.com/cat.png"
_URL = "https://example.com/hooks/ringback"


class OperationExample(Struct, frozen=True):
    """A request's body, if it has one, and its answer."""

    answer: Any
    request: Any = None
    status: int = 200


def _native(data: Mapping[str, Any], *, status: str = "completed") -> dict[str, Any]:
    return {
        "id": _REQUEST_ID,
        "object": data["object"],
        "status": status,
        "created_at": _SECONDS,
        "data": data,
    }


def _page(*items: Mapping[str, Any]) -> dict[str, Any]:
    return _native({"object": "list", "data": [*items], "has_more": False, "next_cursor": None})


_CREATE = {
    "model": "Qubico/flux1-schnell",
    "task_type": "txt2img",
    "input": {"prompt": "a cat"},
    "metadata": {"order": "4711"},
    "retry": {"max_attempts": 3, "backoff_seconds": 2},
}
_OUTPUT = {"image_url": _PICTURE, "output_files": [{"url": _PICTURE, "kind": "image", "name": "cat.png"}]}
_TASK = {
    "object": "task",
    "task_id": _TASK_ID,
    "model": "Qubico/flux1-schnell",
    "task_type": "txt2img",
    "status": "completed",
    "progress": 100,
    "input": {"prompt": "a cat"},
    "output": _OUTPUT,
    "error": None,
    "logs": [],
    "metadata": {"order": "4711"},
    "config": {},
    "attempt": 1,
    "max_attempts": 3,
    "submission": "accepted",
    "provider": "piapi",
    "provider_task_id": "8c1d2e3f-0a1b-4c5d-8e9f-a0b1c2d3e4f5",
    "unknown_statuses": [],
    "run_id": None,
    "step": None,
    "usage": None,
    "created_at": _BEGAN,
    "updated_at": _ENDED,
    "started_at": _BEGAN,
    "ended_at": _ENDED,
}
_TASK_NOW = {**_TASK, "account": None}
_PIAPI_TASK: dict[str, Any] = {
    "task_id": _TASK_ID,
    "model": "Qubico/flux1-schnell",
    "task_type": "txt2img",
    "status": "pending",
    "config": {"service_mode": "", "webhook_config": {"endpoint": "", "secret": ""}},
    "input": {"prompt": "a cat"},
    "output": None,
    "meta": {
        "created_at": _BEGAN,
        "started_at": "0001-01-01T00:00:00Z",
        "ended_at": "0001-01-01T00:00:00Z",
        "provider_task_id": "8c1d2e3f-0a1b-4c5d-8e9f-a0b1c2d3e4f5",
        "attempt": 1,
    },
    "detail": None,
    "logs": [],
    "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
}
_EVENT = {
    "object": "event",
    "id": _EVENT_ID,
    "sequence": 42,
    "type": "task.completed",
    "timestamp": _ENDED,
    "created_at": _ENDED,
    "task_id": _TASK_ID,
    "run_id": None,
    "source": "webhook",
    "provider_status": None,
    "retry_at": None,
    "request_id": None,
    "data": _TASK,
}
_WEBHOOK = {
    "object": "webhook",
    "id": _WEBHOOK_ID,
    "endpoint_url": _URL,
    "is_active": True,
    "format": "standard",
    "event_types": ["task.completed", "task.failed"],
    "filters": None,
    "description": None,
    "rate_limit": None,
    "max_in_flight": None,
    "ordered": False,
    "signature": "v1",
    "failing_since": None,
    "disabled_reason": None,
    "created_at": _BEGAN,
    "updated_at": _BEGAN,
    "headers": None,
}
_DELIVERY = {
    "object": "delivery",
    "id": _DELIVERY_ID,
    "event_id": _EVENT_ID,
    "event_type": "task.completed",
    "webhook_id": _WEBHOOK_ID,
    "endpoint_url": _URL,
    "task_id": _TASK_ID,
    "run_id": None,
    "replay_id": None,
    "status": "delivered",
    "attempt_count": 1,
    "next_attempt_at": None,
    "last_status_code": 200,
    "last_error": None,
    "created_at": _ENDED,
    "settled_at": _ENDED,
}
_STEPS = [
    {"id": "picture", "action": "Qubico/flux1-schnell:txt2img", "input": {"prompt": "a cat"}},
    {
        "id": "video",
        "action": "kling:video_generation",
        "depends_on": ["picture"],
        "input": {"prompt": "the cat jumps"},
        "input_map": {"image_url": "$steps.picture.result.image_url"},
    },
]
_STEP: dict[str, Any] = {
    "id": "picture",
    "action": "Qubico/flux1-schnell:txt2img",
    "provider": "piapi",
    "status": "completed",
    "depends_on": [],
    "job_id": _TASK_ID,
    "result": _OUTPUT,
    "error": None,
    "started_at": _SECONDS,
    "completed_at": _SECONDS + 12,
}
_RUN = {
    "object": "run",
    "id": _RUN_ID,
    "org_id": _ORGANIZATION_ID,
    "status": "in_progress",
    "steps": [_STEP],
    "metadata": {"pipeline": "cats"},
    "created_at": _SECONDS,
    "updated_at": _SECONDS + 12,
}
_KEY = {
    "object": "key",
    "id": _KEY_ID,
    "name": "dashboard",
    "scope": "read",
    "hint": "rb_Zq7v",
    "rate_limit": None,
    "created_at": _BEGAN,
    "expires_at": None,
    "last_used_at": None,
}

EXAMPLES: Mapping[str, OperationExample] = {
    "piapi_create_task": OperationExample(
        {"code": 200, "data": _PIAPI_TASK, "message": "success"},
        {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a cat"}},
    ),
    "piapi_get_task": OperationExample({"code": 200, "data": _PIAPI_TASK, "message": "success"}),
    "list_tasks": OperationExample(_page(_TASK_NOW)),
    "get_task": OperationExample(_native(_TASK_NOW)),
    "create_tasks": OperationExample(
        _native(
            {
                "object": "list",
                "data": [
                    {"index": 0, "task_id": _TASK_ID},
                    {
                        "index": 1,
                        "error": {
                            "type": "invalid_request_error",
                            "code": "invalid_request_body",
                            "message": "task_type: Field required",
                            "param": "task_type",
                        },
                    },
                ],
            },
            status="queued",
        ),
        {"tasks": [_CREATE, {"model": "Qubico/flux1-schnell", "task_type": "txt2img", "input": {"prompt": "a dog"}}]},
        202,
    ),
    "adopt_task": OperationExample(_native(_TASK_NOW), {"provider_task_id": "8c1d2e3f-0a1b-4c5d-8e9f-a0b1c2d3e4f5"}),
    "retry_task": OperationExample(_native(_TASK_NOW)),
    "list_events": OperationExample(_page(_EVENT)),
    "list_task_events": OperationExample(_page(_EVENT)),
    "create_webhook": OperationExample(
        _native({**_WEBHOOK, "secret": "whsec_VGhpcyBpcyBhbiBleGFtcGxlIHNlY3JldCE="}),
        {"endpoint_url": _URL, "event_types": ["task.completed", "task.failed"]},
    ),
    "change_webhook": OperationExample(_native({**_WEBHOOK, "is_active": False}), {"is_active": False}),
    "list_deliveries": OperationExample(_page(_DELIVERY)),
    "replay_events": OperationExample(
        _native(
            {
                "object": "replay",
                "id": _DELIVERY_ID,
                "kind": "replay",
                "webhook_id": _WEBHOOK_ID,
                "status": "running",
                "deliveries": 120,
                "sent": 0,
                "pending": 0,
                "delivered": 0,
                "dead": 0,
                "cancelled": 0,
                "since": _BEGAN,
                "until": _ENDED,
                "event_types": None,
                "created_at": _ENDED,
                "ended_at": None,
            },
            status="queued",
        ),
        {"since": _BEGAN},
        202,
    ),
    "create_run": OperationExample(
        _native(
            {
                "object": "run",
                "run_id": _RUN_ID,
                "status": "pending",
                "steps": [{"id": "picture", "status": "pending"}, {"id": "video", "status": "pending"}],
            },
            status="queued",
        ),
        {"steps": _STEPS, "metadata": {"pipeline": "cats"}},
        202,
    ),
    "get_run": OperationExample(_native(_RUN)),
    "create_key": OperationExample(
        _native({**_KEY, "key": "rb_Zq7vW3kXr9TmLp4cYd8NbJ2s"}), {"name": "dashboard", "scope": "read"}
    ),
    "list_keys": OperationExample(_page(_KEY)),
}
"""By the id of the operation."""
