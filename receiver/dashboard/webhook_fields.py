"""The form of a webhook: its fields as the API takes them, and a webhook as the form shows it. Pure."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from models import RUN_EVENTS, SYSTEM_EVENTS, TASK_EVENTS, DeliveryFormat, SignatureScheme
from receiver.dashboard.asking import ApiRefusal
from receiver.domain.matching import TASK_END_EVENTS

EVENTS = {"task.*": TASK_EVENTS, "run.*": RUN_EVENTS, "system.*": SYSTEM_EVENTS}
"""The event types by the words that stand for all of a kind."""
FORMATS = {
    DeliveryFormat.STANDARD: "standard (Standard Webhooks)",
    DeliveryFormat.CLOUDEVENTS: "cloudevents",
    DeliveryFormat.PI: "pi",
    DeliveryFormat.PIAPI: "piapi (sends the secret as a header)",
    DeliveryFormat.REPLICATE: "replicate (a prediction)",
}
SIGNATURES = {
    SignatureScheme.SYMMETRIC: "v1: HMAC-SHA256, a shared secret",
    SignatureScheme.ASYMMETRIC: "v1a: ed25519, a public key",
}
_EVENT = "event:"
"""Before the name of an event type, in the name of its field: fields have a name each."""

Form = Mapping[str, str]
FormFields = dict[str, Any]


@dataclass(slots=True)
class FormFault(Exception):
    """What is wrong in a form, and in which field, if that is known."""

    message: str
    param: str = ""

    @classmethod
    def of(cls, refused: ApiRefusal) -> "FormFault":
        """Return the fault that the API found. Raises `ApiRefusal` where no other form would help."""
        if refused.status >= 500 or refused.status in (403, 404):
            raise refused
        return cls(refused.message, str(refused.error.get("param") or ""))


def new_form() -> Form:
    """Return the form of a webhook that is to be added: what the API takes by itself."""
    chosen = {f"{_EVENT}{name}": "on" for name in TASK_END_EVENTS}
    return {"format": DeliveryFormat.STANDARD, "signature": SignatureScheme.SYMMETRIC, **chosen}


def form_of(webhook: Mapping[str, Any]) -> Form:
    """Return the form of a webhook as it is. The values of headers are hidden, and stay if they are sent back so."""
    texts = {name: webhook[name] or "" for name in ("endpoint_url", "description", "format", "signature")}
    limits = {name: webhook[name] for name in ("rate_limit", "max_in_flight")}
    filters = orjson.dumps(webhook["filters"], option=orjson.OPT_INDENT_2).decode() if webhook["filters"] else ""
    headers = "\n".join(f"{name}: {value}" for name, value in (webhook["headers"] or {}).items())
    return {
        **texts,
        **{name: "" if value is None else f"{value:.15g}" for name, value in limits.items()},
        **{f"{_EVENT}{name}": "on" for name in webhook["event_types"]},
        **({"ordered": "on"} if webhook["ordered"] else {}),
        "filters": filters,
        "headers": headers,
    }


def fields_of(form: Form) -> FormFields:
    """Return the fields that a form has, None where one is empty; `secret` only if it is given. Raises `FormFault`."""
    known = [name for names in EVENTS.values() for name in names]
    found: FormFields = {
        "endpoint_url": form.get("endpoint_url", "").strip(),
        "description": form.get("description", "").strip() or None,
        "format": form.get("format", ""),
        "signature": form.get("signature", ""),
        "event_types": sorted(name for name in known if f"{_EVENT}{name}" in form),
        "filters": _filters(form.get("filters", "").strip()),
        "headers": _headers(form.get("headers", "")),
        "rate_limit": _number(form, "rate_limit", float),
        "max_in_flight": _number(form, "max_in_flight", int),
        "ordered": "ordered" in form,
    }
    return {**found, "secret": form["secret"]} if form.get("secret") else found


def changes(form: Form, webhook: Mapping[str, Any]) -> FormFields:
    """Return the fields of a form that differ from the webhook: the rest stays as it is."""
    present = fields_of(form_of(webhook))
    return {name: value for name, value in fields_of(form).items() if name not in present or present[name] != value}


def events_text(types: Collection[str]) -> str:
    """Return event types in few words: `task.*` stands for all of tasks, as the API takes it."""
    words: list[str] = []
    for all_of_them, names in EVENTS.items():
        words += [all_of_them] if set(names) <= set(types) else [name for name in names if name in types]
    return ", ".join(words)


def _filters(text: str) -> Any:
    if not text:
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise FormFault(f"this is no JSON: {error}", "filters") from None
    if not isinstance(found, dict):
        raise FormFault('this is no object, such as {"model": "Qubico/flux1-schnell"}', "filters")
    return found or None


def _headers(text: str) -> dict[str, str] | None:
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, sign, value = line.partition(":")
        if not sign:
            raise FormFault("write one header a line, as Name: value", "headers")
        if name.strip() in found:
            raise FormFault(f"the header {name.strip()[:60]} is there twice", "headers")
        found[name.strip()] = value.strip()
    return found or None


def _number(form: Form, name: str, kind: Callable[[str], float]) -> float | None:
    text = form.get(name, "").strip()
    return number(text, name, kind) if text else None


def number(text: str, name: str, kind: Callable[[str], float] = float) -> float:
    """Return the number that a field has. Raises `FormFault`."""
    try:
        found = kind(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise FormFault("this is no number" if kind is float else "this is no whole number", name)
    return found
