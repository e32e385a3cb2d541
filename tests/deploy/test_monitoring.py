"""The metrics follow Prometheus' rules, and what is shipped for Prometheus and Grafana names no other ones."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from receiver.telemetry import metrics, sampled
from tests.deploy.proxies import program

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
GUIDE = (ROOT / "deploy" / "guides" / "monitoring.md").read_text(encoding="utf-8")
ALERTS = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
OURS = re.compile(r"\bringback_[a-z0-9_]+")
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": (), "gauge": ()}
NOT_BASE_UNITS = re.compile(r"_(ms|milliseconds|us|minutes|hours|days|kb|mb|kilobytes|megabytes|percent)(_|$)")
WITHOUT_UNIT = frozenset({"ringback_writer_batch_size"})
"""Histograms of what has no unit."""
LABELS = frozenset(
    {"provider", "reason", "result", "source", "did", "status", "call", "outcome", "purpose", "what", "clock", "place"}
    | {"direction", "limit", "worker", "route", "method", "by", "kind", "action"}
    | {"version", "python", "database", "schema"}
)
"""Those whose values are few: words of ours, and words of a provider that are bounded where they are counted.

`tests/integration/test_request_metrics.py` shows it for those of requests.
"""


def families() -> dict[str, MetricWrapperBase]:
    """Return every metric of ours by its name."""
    found = [each for module in (metrics, sampled) for each in vars(module).values()]
    ours = [each for each in found if isinstance(each, MetricWrapperBase)]
    return {f"{each._name}{'_total' if each._type == 'counter' else ''}": each for each in ours}


def series() -> set[str]:
    """Return the name of every series."""
    named = families().items()
    return {f"{name}{part}" for name, each in named for part in PARTS[str(each._type)] or ("",)}


@pytest.mark.parametrize("name", sorted(families()))
def test_a_metric_follows_the_rules_of_names(name: str) -> None:
    each = families()[name]
    assert re.fullmatch(r"ringback_[a-z][a-z0-9_]*[a-z0-9]", name)
    assert name.endswith("_total") == (each._type == "counter")
    assert not NOT_BASE_UNITS.search(name)
    assert each._type != "histogram" or name.endswith(("_seconds", "_bytes")) or name in WITHOUT_UNIT
    assert not name.endswith(PARTS["histogram"])
    assert set(each._labelnames) <= LABELS


@pytest.mark.parametrize("name", sorted(families()))
def test_a_metric_has_a_help_text_and_a_row_in_the_guide(name: str) -> None:
    each = families()[name]
    text = each._documentation
    assert re.fullmatch(r"[A-Z0-9].*[^.]", text), text
    assert len(text) <= 120
    labels = ", ".join(f"`{label}`" for label in each._labelnames)
    assert f"| `{name}` | {each._type} | {labels} | {text} |" in GUIDE


def test_the_guide_names_no_other_metrics() -> None:
    assert [name for name in OURS.findall(GUIDE) if name not in series() | families().keys()] == []


def shipped() -> Iterator[tuple[str, str]]:
    """Yield (where, metric) for each metric that an alert, its test or a panel names."""
    for file in ("alerts.yml", "alerts.test.yml"):
        for name in OURS.findall((MONITORING / file).read_text(encoding="utf-8")):
            yield file, name
    for where, expression in panels():
        for name in OURS.findall(expression):
            yield where, name


def panels() -> Iterator[tuple[str, str]]:
    """Yield (title, expression) of each line and variable of the dashboard."""
    board = json.loads((MONITORING / "ringback.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in board["templating"]["list"]:
        yield variable["name"], variable["query"]


def test_alerts_and_panels_name_metrics_that_exist() -> None:
    assert [found for found in shipped() if found[1] not in series()] == []


def test_each_alert_has_its_part_in_the_guide_and_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS)
    assert re.findall(r"^### (Ringback\w+)$", GUIDE, re.MULTILINE) == names
    assert re.findall(r"runbook_url: deploy/guides/monitoring\.md#(\S+)", ALERTS) == [each.lower() for each in names]
    for text in ("summary", "description", "severity"):
        assert len(re.findall(rf"^ +{text}: \S", ALERTS, re.MULTILINE)) == len(names)
    tested = re.findall(r"- name: (\w+ (?:fires|does not fire))", (MONITORING / "alerts.test.yml").read_text("utf-8"))
    assert tested == [f"{name} {what}" for name in names for what in ("fires", "does not fire")]


def test_the_dashboard_is_what_its_program_writes() -> None:
    spec = importlib.util.spec_from_file_location("dashboard", MONITORING / "dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert (MONITORING / "ringback.json").read_text(encoding="utf-8") == program.text()


def promtool(*arguments: str, folder: Path = MONITORING) -> str:
    """Run promtool in a folder; return what it says. Skip the test where it is not installed."""
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_accepts_the_scrape_configuration_and_the_alerts(tmp_path: Path) -> None:
    for file in ("prometheus.yml", "alerts.yml"):
        shutil.copy(MONITORING / file, tmp_path)
    (tmp_path / "ringback-metrics-token").write_text("a-token\n")
    said = promtool("check", "config", "prometheus.yml", folder=tmp_path)
    assert f"{ALERTS.count('- alert: ')} rules found" in said


def test_each_alert_fires_on_one_series_and_not_on_another() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


def test_prometheus_can_read_each_expression_of_the_dashboard(tmp_path: Path) -> None:
    lines = ["groups:", "  - name: dashboard", "    rules:"]
    for number, (_, expression) in enumerate(panels()):
        if not expression.startswith(("label_values", "prometheus")):
            plain = expression.replace("$__rate_interval", "1m")
            lines += [f"      - record: panel_{number}", f"        expr: {json.dumps(plain)}"]
    (tmp_path / "panels.yml").write_text("\n".join(lines) + "\n")
    promtool("check", "rules", "panels.yml", folder=tmp_path)
