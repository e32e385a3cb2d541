"""`ringback dashboard`: opens the dashboard, signed in."""

from typing import Annotated, Any

import typer

from receiver.cli.console import Json, echo, print_json, spinner

_BEGINNING = "/sign-in?link="


def dashboard(
    print_only: Annotated[bool, typer.Option("--print", help="Print the link instead of opening it.")] = False,
    as_json: Json = False,
) -> None:
    """Open the dashboard in a browser, signed in with the key RINGBACK_API_KEY.

    The link that it opens works once, within 60 seconds, and may do what the key may do.
    """
    from receiver.cli.service import service
    from receiver.settings import client_settings

    with spinner("signing in", as_json), service() as client:
        link = client.call("POST", "/api/v1/dashboard-links")
    url = client_settings()[0].rstrip("/") + _path(link)
    if as_json:
        print_json({**link, "url": url})
    elif print_only or not _opened(url):
        echo(url)


def _path(link: Any) -> str:
    """Return the path of a link. Raises `Failure` for one that leads to anything else than a sign-in."""
    from receiver.cli.failure import Failure, Status

    path = link.get("path") if isinstance(link, dict) else None
    if not isinstance(path, str) or not path.startswith(_BEGINNING) or not path.isprintable() or " " in path:
        raise Failure(Status.UNREACHABLE, "the service does not answer as Ringback does; check RINGBACK_URL")
    return path


def _opened(url: str) -> bool:
    import webbrowser

    return webbrowser.open(url)
