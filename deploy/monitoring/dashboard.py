"""Writes `ringback.json`, the dashboard for Grafana: `python deploy/monitoring/dashboard.py`.

A panel is a line here and thirty lines of JSON there. A test holds that the file is what this writes.
"""

import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("ringback.json")
_OF = 'job=~"$job", instance=~"$instance"'
_WIDTH, _HEIGHT = 8, 7
_COLUMNS = 24 // _WIDTH


def _sum(metric: str, by: str, more: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{_OF}{more}}}[$__rate_interval]))"


def _max(metric: str, by: str = "job") -> str:
    """Return the expression for a gauge of the database, which every replica reads."""
    return f"max by ({by}) ({metric}{{{_OF}}})"


def _quantiles(metric: str, by: str = "") -> list[tuple[str, str]]:
    of = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    rate = f"sum by ({of}) (rate({metric}_bucket{{{_OF}}}[$__rate_interval]))"
    return [(f"histogram_quantile({part}, {rate})", f"p{int(part * 100)}{legend}") for part in (0.5, 0.99)]


# Title, unit, and (expression, legend) of each line.
Panel = tuple[str, str, list[tuple[str, str]]]
ROWS: list[tuple[str, list[Panel]]] = [
    (
        "Is it well?",
        [
            ("Ready", "bool_yes_no", [(f"ringback_ready{{{_OF}}}", "{{instance}}")]),
            (
                "Oldest that is due",
                "s",
                [
                    (_max("ringback_tasks_oldest_due_seconds", "action"), "task to {{action}}"),
                    (_max("ringback_deliveries_oldest_due_seconds"), "delivery"),
                ],
            ),
            ("Webhook to told", "s", _quantiles("ringback_webhook_to_told_seconds", "by")),
            ("Ends of tasks a second", "ops", [(_sum("ringback_tasks_ended_total", "status, source"), "")]),
            ("Open tasks", "short", [(_max("ringback_tasks_open", "status"), "{{status}}")]),
            (
                "Exceptions and writes not stored, a second",
                "ops",
                [
                    (_sum("ringback_exceptions_total", "place"), "exception: {{place}}"),
                    (_sum("ringback_task_exceptions_total", "provider"), "task exception: {{provider}}"),
                    (_sum("ringback_writes_not_stored_total", "reason"), "not stored: {{reason}}"),
                ],
            ),
        ],
    ),
    (
        "Provider",
        [
            (
                "Inbound webhooks a second",
                "reqps",
                [
                    (_sum("ringback_inbound_received_total", "result"), "{{result}}"),
                    (_sum("ringback_inbound_refused_total", "provider"), "refused"),
                ],
            ),
            ("Calls a second", "reqps", [(_sum("ringback_provider_calls_total", "call, outcome"), "")]),
            ("Call duration", "s", _quantiles("ringback_provider_call_duration_seconds", "call")),
            (
                "Share of the limit that is used",
                "percentunit",
                [
                    (
                        f"{_sum('ringback_provider_turns_total', 'provider')} / "
                        f"{_max('ringback_provider_limit_calls_per_second', 'provider')}",
                        "{{provider}}",
                    )
                ],
            ),
            ("Wait for the limit", "s", _quantiles("ringback_provider_wait_seconds")),
            (
                "Pauses",
                "short",
                [
                    (_max("ringback_provider_paused_seconds", "provider"), "seconds left"),
                    (_sum("ringback_provider_pauses_total", "provider"), "pauses a second"),
                ],
            ),
        ],
    ),
    (
        "Subscribers",
        [
            ("Attempts a second", "ops", [(_sum("ringback_delivery_attempts_total", "outcome"), "{{outcome}}")]),
            ("Attempt duration", "s", _quantiles("ringback_delivery_attempt_duration_seconds", "outcome")),
            (
                "Deliveries that are due",
                "short",
                [
                    (_max("ringback_deliveries_due"), "due"),
                    (_max("ringback_deliveries_overdue"), "overdue"),
                    (_max("ringback_fan_outs_waiting"), "events to fan out"),
                ],
            ),
            (
                "Webhooks",
                "short",
                [
                    (_max("ringback_webhooks_disabled"), "disabled"),
                    (_max("ringback_webhooks_failing"), "failing"),
                ],
            ),
            (
                "Open streams and long polls",
                "short",
                [
                    (f"sum by (instance) (ringback_streams_open{{{_OF}}})", "{{instance}}, streams"),
                    (f"sum by (instance) (ringback_long_polls_waiting{{{_OF}}})", "{{instance}}, long polls"),
                ],
            ),
            (
                "Tasks that are due",
                "short",
                [
                    (_max("ringback_tasks_due", "action"), "to {{action}}"),
                    (_max("ringback_tasks_overdue", "action"), "to {{action}}, overdue"),
                ],
            ),
        ],
    ),
    (
        "Requests",
        [
            (
                "Requests a second",
                "reqps",
                [(_sum("ringback_http_request_duration_seconds_count", "route, status"), "")],
            ),
            ("Time to the answer", "s", _quantiles("ringback_http_request_duration_seconds", "route")),
            (
                "Refused a second",
                "reqps",
                [
                    (_sum("ringback_wrong_keys_total", "reason"), "key: {{reason}}"),
                    (_sum("ringback_connections_refused_total", "reason"), "connection: {{reason}}"),
                    (_sum("ringback_organization_refusals_total", "limit"), "limit: {{limit}}"),
                ],
            ),
        ],
    ),
    (
        "Process and database",
        [
            ("Loop lag", "s", _quantiles("ringback_loop_lag_seconds", "instance")),
            ("Commit duration", "s", _quantiles("ringback_commit_duration_seconds")),
            (
                "Writes",
                "short",
                [
                    (f"sum by (instance) (ringback_writer_waiting{{{_OF}}})", "waiting {{instance}}"),
                    (
                        f"{_sum('ringback_writer_batch_size_sum', 'instance')} / "
                        f"{_sum('ringback_writer_batch_size_count', 'instance')}",
                        "in a commit {{instance}}",
                    ),
                ],
            ),
            ("Processor", "percentunit", [(_sum("ringback_worker_cpu_seconds_total", "instance, worker"), "")]),
            ("Memory", "bytes", [(f"ringback_worker_resident_memory_bytes{{{_OF}}}", "{{instance}} {{worker}}")]),
            (
                "Database and disk",
                "bytes",
                [
                    (_max("ringback_database_size_bytes"), "database"),
                    (_max("ringback_sqlite_wal_bytes", "instance"), "WAL {{instance}}"),
                    (_max("ringback_disk_free_bytes", "instance"), "free {{instance}}"),
                ],
            ),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        for number, panel in enumerate(row):
            x, line = number % _COLUMNS * _WIDTH, number // _COLUMNS
            panels.append(_panel(len(panels) + 1, panel, x, y + 1 + line * _HEIGHT))
        y += 1 + -(-len(row) // _COLUMNS) * _HEIGHT
    return {
        "uid": "ringback",
        "title": "Ringback",
        "tags": ["ringback"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_source(), _variable("job", ""), _variable("instance", 'job=~"$job"')]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    title, unit, lines = panel
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": expression,
                "legendFormat": legend or "__auto",
            }
            for index, (expression, legend) in enumerate(lines)
        ],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(name: str, condition: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": f"label_values(ringback_build_info{{{condition}}}, {name})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
