"""`ringback listen`: forwards events to a URL on this machine, without a tunnel."""

import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from receiver.cli.console import Json, echo, print_json_line
from receiver.cli.failure import Failure, Status
from receiver.cli.options import SHOWN_TO_OTHERS, SecretFile

if TYPE_CHECKING:
    import httpx

_RESPONSE_SECONDS = 20.0
"""As long as a delivery waits for its response by default."""
_KEPT_BYTES = 4096
_SHOWN_CHARACTERS = 120


class ForwardResult(Struct, frozen=True):
    """The result of forwarding one event: the status of the local response, or the error if there is none."""

    status: int | None
    response: str
    error: str | None
    duration_ms: int


def listen(
    forward_to: Annotated[str, typer.Option(metavar="URL", help="The URL to which each event is posted.")],
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="Such as task.completed or task.*; may be repeated.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only tasks of this model; may be repeated.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(help=f"The secret that signs the requests; by default one is made and printed. {SHOWN_TO_OTHERS}"),
    ] = None,
    secret_file: SecretFile = None,
    since: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Begin after the event with this number, not now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Forward events to a URL on this machine, signed like real deliveries in the format standard.

    After a lost connection it resumes at the next event. Events are forwarded one after the other, each once, and the
    URL's responses are printed. Ctrl-C ends it.
    """
    from receiver.cli.inputs import secret_of
    from receiver.domain.signatures import new_secret

    secret = secret_of(secret, secret_file, "--secret")
    params = {"event_types": event or [], "model": model or []}
    output: Output = _JsonOutput() if as_json else _TextOutput()
    try:
        _check(forward_to, secret)
        _run(forward_to, secret or new_secret(), params, None if since is None else str(since), output, secret is None)
    except KeyboardInterrupt:
        return


def _run(
    url: str, secret: str, params: Mapping[str, Any], since: str | None, output: "Output", secret_is_new: bool
) -> None:
    import httpx

    from receiver.cli.following import StreamLost, StreamOpened, follow
    from receiver.cli.service import is_loopback

    loopback = is_loopback(httpx.URL(url).host)
    with httpx.Client(timeout=_RESPONSE_SECONDS, trust_env=not loopback) as client:
        for item in follow(params, since):
            match item:
                case StreamOpened(again=False):
                    output.print_start(url, secret if secret_is_new else None)
                case StreamOpened():
                    _note("connected again")
                case StreamLost(reason=reason, delay=delay):
                    _note(f"{reason}; trying again in {delay:g} s")
                case _ if item.event == "reset":
                    _note(f"events may have been missed: {item.data['message']}")
                case _:
                    output.print_result(item.data, _forward(client, url, secret, item.data))


def _forward(client: "httpx.Client", url: str, secret: str, event: Mapping[str, Any]) -> ForwardResult:
    """Post one event as a delivery of the format `standard` (receiver/api/CONTRACTS.md, "Standard Webhooks")."""
    import httpx
    import orjson

    from receiver.domain.signatures import standard_headers

    body = orjson.dumps({name: event[name] for name in ("type", "timestamp", "data")})
    signed = standard_headers([secret], event["id"], int(time.time()), body)
    headers = {"content-type": "application/json", **signed}
    status, response, error = None, "", None
    started_at = time.monotonic()
    try:
        with client.stream("POST", url, content=body, headers=headers) as answer:
            status, response = answer.status_code, _read(answer.iter_bytes())
    except httpx.TimeoutException:
        error = f"no response within {_RESPONSE_SECONDS:g} s"
    except httpx.ConnectError:
        error = "could not connect"
    except httpx.HTTPError as fault:
        error = str(fault) or type(fault).__name__
    return ForwardResult(status, response, error, round((time.monotonic() - started_at) * 1000))


def _read(chunks: Iterable[bytes]) -> str:
    """Return the first bytes of a body; what follows, which may never end, is not read."""
    kept = bytearray()
    for chunk in chunks:
        kept += chunk
        if len(kept) > _KEPT_BYTES:
            break
    return kept[:_KEPT_BYTES].decode(errors="replace")


def _note(text: str) -> None:
    echo(f"ringback: {text}", err=True)


class _TextOutput:
    """For people: one line for each event."""

    def print_start(self, url: str, secret: str | None) -> None:
        echo(f"Forwarding events to {url}; Ctrl-C ends it")
        echo(f"Signed with {secret}" if secret else "Signed with the given secret")

    def print_result(self, event: Mapping[str, Any], result: ForwardResult) -> None:
        moment = time.strftime("%H:%M:%S")
        outcome = result.status if result.status is not None else result.error
        data = event.get("data") or {}
        subject = data.get("task_id") or data.get("id") or ""  # the second is a run's, in the run's own events
        line = f"{moment}  #{event['sequence']}  {event['type']}  {subject}  {outcome} in {result.duration_ms} ms"
        if result.status is not None and result.status >= HTTPStatus.MULTIPLE_CHOICES:
            line += f": {' '.join(result.response.split())[:_SHOWN_CHARACTERS]}"
        echo(line)


class _JsonOutput:
    """For programs: one line of JSON with the URL and the secret, then one for each event."""

    def print_start(self, url: str, secret: str | None) -> None:
        self._print({"forward_to": url, "secret": secret})

    def print_result(self, event: Mapping[str, Any], result: ForwardResult) -> None:
        self._print(
            {
                "id": event["id"],
                "sequence": event["sequence"],
                "type": event["type"],
                "task_id": (event.get("data") or {}).get("task_id"),
                "status": result.status,
                "response": result.response,
                "error": result.error,
                "duration_ms": result.duration_ms,
            }
        )

    def _print(self, value: Mapping[str, Any]) -> None:
        print_json_line(value)


Output = _TextOutput | _JsonOutput


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
