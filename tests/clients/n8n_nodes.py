"""`n8n-nodes-piapi`, built in a folder: every node's `execute()`, with a context that stands for n8n's own."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.clients.driving import HOOK, Driving, Outcome, value_at
from tests.clients.reads import N8N_NODES

CLIENT = "n8n-nodes-piapi"
_SCRIPT = Path(__file__).with_name("n8n_nodes.cjs")


async def drive(driving: Driving, folder: Path) -> list[Outcome]:
    """Run every node, and compare its result with what its users read."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "--require",
        HOOK,
        _SCRIPT,
        folder,
        env={"PATH": os.environ["PATH"], **driving.environment()},
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(300):
        out, err = await process.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    if process.returncode:
        return [Outcome(CLIENT, "start", err.decode()[-500:])]
    done = {line["operation"]: line for line in lines}
    return [Outcome(CLIENT, name, _fault(done.get(name), paths)) for name, paths in N8N_NODES.items()]


def _fault(line: dict[str, Any] | None, paths: tuple[str, ...]) -> str | None:
    if line is None:
        return "the operation was not run"
    if "error" in line:
        return str(line["error"])
    result = line["result"]
    # Most nodes hand on what is in `data`, some the whole answer; those of language models have a form of their own.
    wanted = paths or ("image_url",)
    missing = [path for path in wanted if not (value_at(result, path) or value_at({"data": result}, path))]
    if missing:
        return f"nothing at {missing}: {json.dumps(result)[:400]}"
    if line["operation"] == "status binary" and value_at(line, "binary.data.mimeType") != "image/png":
        return f"not a picture: {line.get('binary')}"
    return None
