"""`ringback listen`: events to a laptop, with no tunnel."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.console import Json, cell
from receiver.cli.failure import Failure, Status

if TYPE_CHECKING:
    import httpx

_ANSWER_SECONDS = 20.0
"""As long as a real delivery waits for its answer."""
_KEPT_BYTES = 4096
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What came of one event: the local answer's status, or why there is none."""

    status: int | None
    response: str
    error: str | None
    duration_ms: int


def listen(
    forward_to: Annotated[str, typer.Option(metavar="URL", help="Where each event is posted to.")],
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Such as task.completed or task.*; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only tasks of this model; may be repeated.")] = None,
    secret: Annotated[
        str | None, typer.Option(help="What is signed with; without it one is made for this run and printed.")
    ] = None,
    since: Annotated[
        int | None, typer.Option(metavar="ID", min=0, help="Begin after the event with this number, not with now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Forward events to a URL on this machine, signed like real deliveries (format standard).

    Goes on after a lost connection where it was. Events are forwarded one after the other, each once; what the
    URL answers is shown. Ctrl-C ends it.
    """
    from receiver.domain.signatures import new_secret

    params = {"event_types": event or [], "model": model or []}
    screen: Screen = _Lines() if as_json else _Text()
    try:
        _check(forward_to, secret)
        _run(forward_to, secret or new_secret(), params, None if since is None else str(since), screen, secret is None)
    except KeyboardInterrupt:
        return


def _run(
    url: str, secret: str, params: Mapping[str, Any], since: str | None, screen: "Screen", secret_is_new: bool
) -> None:
    import httpx

    from receiver.cli.following import StreamLost, StreamOpened, follow
    from receiver.cli.service import is_loopback

    loopback = is_loopback(httpx.URL(url).host)
    with httpx.Client(timeout=_ANSWER_SECONDS, trust_env=not loopback) as client:
        for news in follow(params, since):
            match news:
                case StreamOpened(again=False):
                    screen.began(url, secret if secret_is_new else None)
                case StreamOpened():
                    _note("connected again")
                case StreamLost(reason=reason, wait=wait):
                    _note(f"{reason}; trying again in {wait:g} s")
                case _ if news.event == "reset":
                    _note(f"events may have been missed: {news.data['message']}")
                case _:
                    screen.forwarded(news.data, _forward(client, url, secret, news.data))


def _forward(client: "httpx.Client", url: str, secret: str, event: Mapping[str, Any]) -> Forwarded:
    """Post one event as a delivery of the format `standard` (contracts/standard-webhooks.md)."""
    import httpx
    import orjson

    from receiver.domain.signatures import standard_headers

    body = orjson.dumps({name: event[name] for name in ("type", "timestamp", "data")})
    signed = standard_headers([secret], event["id"], int(time.time()), body)
    headers = {"content-type": "application/json", **signed}
    status, response, error = None, "", None
    began = time.monotonic()
    try:
        with client.stream("POST", url, content=body, headers=headers) as answer:
            status, response = answer.status_code, _read(answer.iter_bytes())
    except httpx.TimeoutException:
        error = f"no answer within {_ANSWER_SECONDS:g} s"
    except httpx.ConnectError:
        error = "nobody listens there"
    except httpx.HTTPError as fault:
        error = str(fault) or type(fault).__name__
    return Forwarded(status, response, error, round((time.monotonic() - began) * 1000))


def _read(chunks: Iterable[bytes]) -> str:
    """Return the beginning of a body; an endless one is left alone after that."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        if len(kept) > _KEPT_BYTES:
            break
    return kept[:_KEPT_BYTES].decode(errors="replace")


def _note(text: str) -> None:
    typer.echo(f"ringback: {cell(text)}", err=True)


class _Text:
    """For people: a line an event."""

    def began(self, url: str, secret: str | None) -> None:
        typer.echo(f"Forwarding events to {url}; Ctrl-C ends it")
        typer.echo(f"Signed with {secret}" if secret else "Signed with the secret that was given")

    def forwarded(self, event: Mapping[str, Any], outcome: Forwarded) -> None:
        moment = time.strftime("%H:%M:%S")
        answer = outcome.status if outcome.status is not None else outcome.error
        data = event.get("data") or {}
        subject = data.get("task_id") or data.get("id") or ""  # a run's own event is about the run
        line = f"{moment}  #{event['sequence']}  {event['type']}  {subject}  {answer} in {outcome.duration_ms} ms"
        if outcome.status is not None and outcome.status >= HTTPStatus.MULTIPLE_CHOICES:
            line += f": {' '.join(outcome.response.split())[:_SHOWN_CHARACTERS]}"
        typer.echo(str(cell(line)))


class _Lines:
    """For programs: a line of JSON an event, after one that says how they are signed."""

    def began(self, url: str, secret: str | None) -> None:
        self._print({"forward_to": url, "secret": secret})

    def forwarded(self, event: Mapping[str, Any], outcome: Forwarded) -> None:
        self._print(
            {
                "id": event["id"],
                "sequence": event["sequence"],
                "type": event["type"],
                "task_id": (event.get("data") or {}).get("task_id"),
                "status": outcome.status,
                "response": outcome.response,
                "error": outcome.error,
                "duration_ms": outcome.duration_ms,
            }
        )

    def _print(self, value: Mapping[str, Any]) -> None:
        import orjson

        typer.echo(orjson.dumps(value).decode())


Screen = _Text | _Lines


def _check(url: str, secret: str | None) -> None:
    from receiver.cli.service import split_url
    from receiver.domain.signatures import check_secret
    from receiver.errors import BadRequest

    split_url(url, "--forward-to")
    if secret is not None:
        try:
            check_secret(secret)
        except BadRequest as error:
            raise Failure(Status.USAGE, error.message) from None
