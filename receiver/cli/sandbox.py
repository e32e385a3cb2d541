"""`ringback sandbox`: the bundled provider by itself."""

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.console import echo
from receiver.cli.failure import Failure, Status
from receiver.cli.inputs import secret_of, typed_pairs
from receiver.cli.options import SHOWN_TO_OTHERS, SecretFile

if TYPE_CHECKING:
    from receiver.sandbox.declared import Description


def sandbox(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8090,
    duration: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How long a task stays in processing.")
    ] = None,
    lose_share: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="The share of webhooks that are never sent.")
    ] = None,
    duplicate_share: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="The share of webhooks that are sent twice.")
    ] = None,
    reorder_share: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SHARE", help="The share of tasks with reordered webhooks."),
    ] = None,
    webhook_retry_seconds: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="The time between the attempts to send a webhook.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of all random choices.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help=f"The only API key to accept; without it, any key. {SHOWN_TO_OTHERS}")
    ] = None,
    api_key_file: SecretFile = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Any other option, such as outcome=failed; may be repeated."),
    ] = None,
) -> None:
    """Run a provider with PiAPI's interface on this machine, which fails as requested.

    A task's `input.sandbox` sets what the provider does with that task; these options are the defaults.
    """
    named = {
        "duration": duration,
        "lose_share": lose_share,
        "duplicate_share": duplicate_share,
        "reorder_share": reorder_share,
        "webhook_retry_seconds": webhook_retry_seconds,
        "seed": seed,
        "api_key": secret_of(api_key, api_key_file, "--api-key"),
    }
    knobs = typed_pairs(option or (), "--option") | {name: value for name, value in named.items() if value is not None}
    _serve(host, port, knobs)


def _serve(host: str, port: int, knobs: dict[str, object]) -> None:
    import uvicorn

    from receiver.cli.listening import listen
    from receiver.sandbox import SandboxOptions, create_sandbox
    from receiver.sandbox.script import KnobRefused, patch_options

    with listen(host, port) as (listening, url):
        try:
            options = patch_options(SandboxOptions(), {"public_base_url": f"{url}/files", **knobs})
        except KnobRefused as error:
            raise Failure(Status.USAGE, f"--option {error}") from None
        echo(_how_to_use(url, options.api_key), lines=True)
        server = uvicorn.Server(
            uvicorn.Config(create_sandbox(options, _described()), log_level="warning", timeout_graceful_shutdown=2)
        )
        server.run(sockets=[listening])


def _described() -> "list[Description]":
    """Return what the twins of the declared providers that ship are made of."""
    import tomllib

    from receiver.providers.declared.cases import read_cases
    from receiver.providers.declared.files import SHIPPED
    from receiver.sandbox.declared import Description

    paths = [(path, read_cases(path)) for path in sorted(SHIPPED.glob("*.toml"))]
    return [Description(tomllib.loads(path.read_text(encoding="utf-8")), cases.twin) for path, cases in paths if cases]


def _how_to_use(url: str, api_key: str | None) -> str:
    return (
        f"The sandbox provider listens on {url}. To point Ringback at it:\n\n"
        f"  export RINGBACK_PIAPI_BASE_URL={url}\n"
        f"  export RINGBACK_PIAPI_API_KEY={'...' if api_key else 'any-key'}\n"
        "  export RINGBACK_PUBLIC_URL=http://127.0.0.1:8080\n"
        "  ringback serve\n\n"
        "Other providers have twins below their names, such as "
        f"RINGBACK_PROVIDER_FAL_BASE_URL={url}/fal, with a RINGBACK_PROVIDER_FAL_API_KEY.\n\n"
        f"Statistics: {url}/sandbox/stats. Ctrl-C stops the provider."
    )
