"""`webhooks` of the document: what Ringback sends to subscribers, in each format (`receiver.outbound.message`)."""

from collections.abc import Mapping
from typing import Any

from models import DeliveryFormat
from receiver.api.description.event_answers import CloudEvent, PiBody, StandardBody
from receiver.api.description.model_schemas import JsonSchema, ModelSchemas
from receiver.api.description.piapi_answers import PiapiBody, PiapiNotice
from receiver.api.description.replicate_answers import PredictionBody

BODIES: Mapping[DeliveryFormat, Any] = {
    DeliveryFormat.STANDARD: StandardBody,
    DeliveryFormat.CLOUDEVENTS: CloudEvent,
    DeliveryFormat.PI: PiBody,
    DeliveryFormat.PIAPI: PiapiBody | PiapiNotice,
    DeliveryFormat.REPLICATE: PredictionBody,
}
"""The model of the body of each format."""
_TEXTS: Mapping[DeliveryFormat, str] = {
    DeliveryFormat.STANDARD: "Standard Webhooks 1.0.0: the default format. `data` is the task as `GET "
    "/api/v1/tasks/{task_id}` answered it then, or the run, or what a system event is about.",
    DeliveryFormat.CLOUDEVENTS: "CloudEvents 1.0.2 in structured mode, with the headers of Standard Webhooks.",
    DeliveryFormat.PI: "Pi's body and headers, with the headers of Standard Webhooks.",
    DeliveryFormat.PIAPI: "PiAPI's body, as for a client's own `config.webhook_config`; its proof is the secret.",
    DeliveryFormat.REPLICATE: "A prediction, as for the `webhook` of `/v1/predictions`, with the headers of Standard "
    "Webhooks.",
}


def _header(name: str, text: str, *, required: bool = True, **schema: Any) -> JsonSchema:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "description": text,
        "schema": {"type": "string", **schema},
    }


_ID = _header("webhook-id", "The id of the event: the same on every attempt, to drop what came before.")
_STANDARD = (
    _ID,
    _header("webhook-timestamp", "When this attempt was made, in unix seconds.", pattern="^[0-9]+$"),
    _header(
        "webhook-signature",
        "One signature for each secret that is valid now, separated by blanks: `v1,` and base64 of the HMAC-SHA256, or "
        "`v1a,` and that of the ed25519 signature, of `{webhook-id}.{webhook-timestamp}.{raw body}`.",
        pattern="^v1a?,[A-Za-z0-9+/=]+( v1a?,[A-Za-z0-9+/=]+)*$",
    ),
)
HEADERS: Mapping[DeliveryFormat, tuple[JsonSchema, ...]] = {
    DeliveryFormat.STANDARD: _STANDARD,
    DeliveryFormat.CLOUDEVENTS: _STANDARD,
    DeliveryFormat.REPLICATE: _STANDARD,
    DeliveryFormat.PI: (
        *_STANDARD,
        _header("x-pi-event", "The `type` of the body."),
        _header(
            "x-pi-signature",
            "`sha256=` and the HMAC-SHA256 of the raw body in hex, keyed with the secret as it is.",
            pattern="^sha256=[0-9a-f]{64}$",
        ),
    ),
    DeliveryFormat.PIAPI: (
        _ID,
        _header("x-webhook-secret", "The secret itself, if the webhook has one.", required=False),
    ),
}
"""The headers of each format, besides those that the webhook's owner added."""
_TRACEPARENT = _header(
    "traceparent", "W3C Trace Context: the trace of the create, or one of the service's own.", required=False
)
_ANSWERS: JsonSchema = {
    "2XX": {"description": "It is delivered. The body of the answer means nothing."},
    "410": {"description": "The webhook is switched off."},
    "429": {"description": "Slow down: `Retry-After` is obeyed, as in a 502 and a 504."},
    "default": {"description": "It failed, and is sent again later. A redirection is not followed."},
}


def webhooks_of(schemas: ModelSchemas) -> dict[str, JsonSchema]:
    """Return the path items of the deliveries in each format."""
    return {form.value: {"post": _operation(form, schemas)} for form in BODIES}


def media_type_of(form: DeliveryFormat) -> str:
    """Return the content type of a format."""
    return "application/cloudevents+json" if form == DeliveryFormat.CLOUDEVENTS else "application/json"


def _operation(form: DeliveryFormat, schemas: ModelSchemas) -> JsonSchema:
    return {
        "operationId": f"deliver_{form.value}",
        "tags": ["Deliveries"],
        "summary": f"An event in the format `{form.value}`",
        "description": _TEXTS[form],
        "security": [],
        "parameters": [*HEADERS[form], _TRACEPARENT],
        "requestBody": {"required": True, "content": {media_type_of(form): {"schema": schemas.of(BODIES[form])}}},
        "responses": _ANSWERS,
    }
