"""A real PgBouncer in front of the PostgreSQL of the tests."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from tests.fakes.ports import free_port
from tests.fakes.postgresql_programs import run_options, server_folder

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
"""Where the program is; None if it is not installed."""
_CONFIGURATION = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
"""


@asynccontextmanager
async def pgbouncer(url: str, mode: str, *, size: int = 30) -> AsyncIterator[str]:
    """Run PgBouncer for the server of a URL that names its socket; yield the URL of the same database through it."""
    assert PROGRAM is not None
    folder, port, parts = server_folder(), free_port(), urlsplit(url)
    host = parse_qs(parts.query)["host"][0]
    file = folder / "pgbouncer.ini"
    file.write_text(_CONFIGURATION.format(host=host, port=port, mode=mode, size=size))
    options = {**run_options(folder), "stderr": subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(PROGRAM, str(file), **options)
    try:
        assert process.stderr is not None
        while b"process up" not in (line := await process.stderr.readline()):
            assert line, "pgbouncer ended"
        yield f"postgresql://postgres@127.0.0.1:{port}{parts.path}"
    finally:
        process.kill()
        await process.communicate()
        shutil.rmtree(folder, ignore_errors=True)
