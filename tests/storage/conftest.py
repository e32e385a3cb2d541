"""Fixtures of the storage tests: an empty database of the kind that the test runs on, and a later schema revision."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import migrations
from receiver.settings import Settings
from receiver.storage.database import Database
from tests.fakes.databases import settings_in

LATER_REVISION = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None
{readable}


def upgrade():
    op.execute("CREATE TABLE half_way (id INTEGER)")
    op.execute("UPDATE organization SET name = 'changed'")
    {last}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The settings of a new database, which has no schema yet."""
    return settings_in(tmp_path, migrated=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of the database `database`; on PostgreSQL it is on a socket."""
    return settings_in(tmp_path).database_url


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with this version's schema and no rows."""
    async with await Database.open(settings_in(tmp_path)) as database:
        yield database


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect the log records instead of writing them."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that turns this into a later version of Ringback, with revision 9999 after all real ones.

    Its argument is the last statement of that revision; a second call replaces it. `readable_from` is what the revision
    says of the versions that may run on it; None if it says nothing.
    """
    head = migrations.HEAD
    folder = tmp_path / "later"

    def add(last: str, readable_from: str | None = None) -> None:
        if not folder.exists():
            shutil.copytree(Path(migrations.__file__).parent, folder)
            monkeypatch.setattr(migrations, "__file__", str(folder / "__init__.py"))
            monkeypatch.setattr(migrations, "HEAD", "9999")
        readable = f'readable_from = "{readable_from}"' if readable_from is not None else ""
        text = LATER_REVISION.format(head=head, last=last, readable=readable)
        (folder / "versions" / "9999_later.py").write_text(text)

    return add
