"""What `ringback serve` imports until it is ready: each module delays the start, and stays in memory."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.fakes.command import CLEAN
from tests.fakes.databases import MASTER_KEY, settings_in
from tests.fakes.ports import free_port

LATE = {
    "alembic",  # only a migration needs it
    "apprise",
    "jinja2",
    "markdown_it",
    "mcp",
    "models.classes",
    "models.tasks",
    "opentelemetry",
    "part_of_plugin",  # of pydantic
    "pygments",
    "receiver.api.description",
    "receiver.cli.task",  # as an example of the other commands
    "receiver.dashboard.pages",
    "receiver.dashboard.routes",
    "receiver.providers.declared.reading",
    "receiver.sandbox",
    "rich.console",
    "sentry_sdk",
    "sqlalchemy.orm",
    "sqlmodel",
}
"""Libraries that a service may never use, and parts of ours that are imported when they are first needed."""


def test_a_start_imports_nothing_that_may_never_be_used(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    port = free_port()
    given = {"RINGBACK_DATABASE_URL": settings.database_url, "RINGBACK_SECRET_KEY": MASTER_KEY}
    given["PYTHONPATH"] = str(with_plugin(tmp_path / "packages"))
    command = [sys.executable, "-X", "importtime", "-m", "receiver.cli", "serve", "--port", str(port)]
    with (tmp_path / "imports").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env={**CLEAN, **given}, stderr=log, stdout=log)
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=30) as client:
            assert client.get(f"http://127.0.0.1:{port}/readyz").is_success
            imported = names_in(tmp_path / "imports")
            assert {"receiver.app", "sqlalchemy", "structlog", "httpx"} <= imported
            assert imported & LATE == set()
            assert ("sqlalchemy.dialects.postgresql" in imported) == settings.database_url.startswith("postgresql")
            assert client.get(f"http://127.0.0.1:{port}/sign-in").is_success
            assert {"receiver.dashboard.pages", "jinja2"} <= names_in(tmp_path / "imports")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def with_plugin(packages: Path) -> Path:
    """Make a folder with an installed package that is a plugin of pydantic."""
    metadata = packages / "plugin-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nplugin = plugin:missing\n")
    (packages / "plugin.py").write_text("import part_of_plugin\n")
    (packages / "part_of_plugin.py").touch()
    return packages


def names_in(log: Path) -> set[str]:
    """Return the names of the modules that Python has written that it imported."""
    lines = log.read_text().splitlines()
    return {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}
