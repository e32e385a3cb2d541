"""`ringback top`: what the service does, live in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli.console import Json, age, cell, plain_table, print_json, print_view

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

ApiStats = Mapping[str, Any]
"""Statistics as the API returns them."""
_BARS = "▁▂▃▄▅▆▇█"
_LATE = 30


def top(
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="How often it is read.")] = 2.0,
    model: Annotated[str | None, typer.Option(help="Only tasks of this model.")] = None,
    as_json: Json = False,
) -> None:
    """Show tasks, models, deliveries, webhooks and providers live, until q or Ctrl-C.

    Without a terminal, one view is printed.
    """
    from receiver.cli.inputs import without_none
    from receiver.cli.live import has_terminal, watch
    from receiver.cli.service import service

    with service() as client:

        def read() -> ApiStats:
            found: ApiStats = client.call("GET", "/api/v1/stats", params=without_none({"model": model}))
            return found

        if as_json:
            print_json(read())
        elif has_terminal():
            watch(lambda: _view(read()), every_seconds=interval, is_due=lambda: False)
        else:
            print_view(_view(read()))


def _view(stats: ApiStats) -> "RenderableType":
    from rich.console import Group

    parts = [_tasks(stats), _models(stats["tasks"]["models"]), _deliveries(stats["deliveries"])]
    parts += [_webhooks(stats["webhooks"]["shown"])] if stats["webhooks"]["shown"] else []
    parts += [_providers(stats["providers"])] if stats["providers"] else []
    return Group(_title(stats), *parts)


def _title(stats: ApiStats) -> Any:
    service = stats["service"]
    text = cell(
        f"ringback {service['version']}  {service['replicas']} process(es)  since {stats['since']}"
        + (f"  model {stats['model']}" if stats["model"] else "")
    )
    behind = age(stats["counted_until"])
    if behind is not None and not (behind.endswith("s") and int(behind[:-1]) < _LATE):
        text.append_text(cell(f"  counted until {behind} ago"))
    text.stylize("bold")
    return text


def _tasks(stats: ApiStats) -> "Table":
    tasks, ends = stats["tasks"], stats["tasks"]["completed"] + stats["tasks"]["failed"] + stats["tasks"]["cancelled"]
    now = {name: _bounded(number, tasks["counted_up_to"]) for name, number in tasks["now"].items()}
    ways = {f"by {name}": _share(tasks[f"by_{name}"], ends) for name in ("webhook", "poll", "other")}
    numbers = {name: tasks[name] for name in ("created", "completed", "failed", "cancelled")}
    series = tasks["series"]
    return plain_table(
        ("tasks", "", ""),
        [
            ("now", _listed(now), _waits("oldest due", tasks["oldest_due_at"])),
            ("in", _listed({"created": numbers.pop("created")}), _line([each["created"] for each in series])),
            ("out", _listed(numbers), _line([each["completed"] + each["failed"] for each in series])),
            ("ends", _listed(ways), None),
        ],
    )


def _models(models: Iterable[Mapping[str, Any]]) -> "Table":
    names = ("created", "completed", "failed")
    took = ("p50_seconds", "p95_seconds", "p99_seconds")
    return plain_table(
        ("model", *names, "p50", "p95", "p99"),
        (
            (each["model"], *(each[name] for name in names), *map(_seconds, (each[name] for name in took)))
            for each in models
        ),
    )


def _deliveries(deliveries: Mapping[str, Any]) -> "Table":
    numbers = {name: deliveries[name] for name in ("attempts", "delivered", "failed", "dead")}
    took = {name: _milliseconds(deliveries[f"{name}_ms"]) for name in ("p50", "p95", "p99")}
    delivered = [each["delivered"] for each in deliveries["series"]]
    return plain_table(
        ("deliveries", "", ""),
        [
            ("attempts", _listed(numbers), _line(delivered)),
            ("latency", _listed(took), _waits("oldest due", deliveries["oldest_due_at"])),
        ],
    )


def _webhooks(webhooks: Iterable[Mapping[str, Any]]) -> "Table":
    return plain_table(
        ("webhook", "url", "state", "pending", "next"),
        (
            (each["webhook_id"], each["endpoint_url"], _state(each), each["pending"], each["next_due_at"])
            for each in webhooks
        ),
    )


def _providers(providers: Iterable[Mapping[str, Any]]) -> "Table":
    return plain_table(
        ("provider", "calls/s", "paused", "planned ahead", "key"),
        (
            (
                each["name"],
                each["calls_per_second"],
                _seconds(each["paused_seconds"]),
                _seconds(each["reserved_seconds"]),
                "refused" if each["key_is_refused"] else "accepted",
            )
            for each in providers
        ),
    )


def _state(webhook: Mapping[str, Any]) -> str:
    if not webhook["is_active"]:
        return f"off ({webhook['disabled_reason'] or 'by its owner'})"
    return f"failing for {age(webhook['failing_since'])}" if webhook["failing_since"] else "active"


def _listed(numbers: Mapping[str, Any]) -> str:
    return "  ".join(f"{number} {name}" for name, number in numbers.items())


def _bounded(number: int, most: int) -> str:
    return f"{number}+" if number >= most else str(number)


def _share(part: int, of: int) -> str:
    return f"{part} ({100 * part // of} %)" if of else str(part)


def _waits(name: str, moment: str | None) -> str | None:
    return None if moment is None else f"{name} for {age(moment)}"


def _seconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f} s"


def _milliseconds(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"


def _line(numbers: Sequence[int]) -> str:
    """Return a line of bars for numbers, the greatest of which is the highest."""
    most = max(numbers, default=0)
    return "".join(_BARS[number * (len(_BARS) - 1) // most if most else 0] for number in numbers)
