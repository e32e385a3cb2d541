"""`piapi-skills` (PyPI): the command `piapi-cli`, run in its own environment against the service."""

import asyncio
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients.driving import ROOT, Driving, Outcome, value_at

CLIENT = "piapi-skills"
# The client's code as it is, in a process that can connect to loopback only.
_START = (
    "import sys; from tests.fakes.loopback import allow_loopback_only; allow_loopback_only(); "
    "from piapi_skills.cli import main; sys.exit(main(sys.argv[1:]))"
)
_PICTURE = "https://example.com/face.png"
_SECRET = "a-secret-of-the-client"
_QUICKLY = ("--poll-interval", "0.1", "--timeout", "20")


@dataclass(frozen=True)
class Printed:
    """What a run of the command printed, and its exit status."""

    status: int
    out: str
    err: str

    def at(self, path: str) -> object:
        """Return the value at a path of the JSON that it printed; None if it printed none."""
        try:
            return value_at(json.loads(self.out), path)
        except ValueError:
            return None


Check = Callable[[Printed], bool]


async def drive(driving: Driving, python: Path) -> list[Outcome]:
    """Run every command that calls the service."""
    return [await _outcome(driving, python, *operation) for operation in _OPERATIONS] + [
        await _cancel(driving, python),
        await _result(driving, python),
        await _callback(driving, python),
    ]


def _completed(*paths: str) -> Check:
    return lambda printed: (
        printed.status == 0
        and printed.at("data.status") == "completed"
        and all(str(printed.at(f"data.output.{path}")).startswith("http://127.0.0.1") for path in paths)
    )


_OPERATIONS: tuple[tuple[str, list[str], Check], ...] = (
    (
        "submit",
        ["submit", "Qubico/flux1-schnell", "txt2img", '{"prompt": "a hat"}', "--private"],
        lambda printed: printed.at("code") == 200 and bool(printed.at("data.task_id")),
    ),
    ("run", ["run", "luma", "video_generation", '{"prompt": "a hat"}', *_QUICKLY], _completed("video_raw.url")),
    ("imagine", ["imagine", "a hat", "--aspect", "16:9", *_QUICKLY], _completed("temporary_image_urls.3")),
    ("flux", ["flux", "a hat", "--width", "512", *_QUICKLY], _completed("image_url")),
    (
        "kling",
        ["kling", "a hat", "--image", _PICTURE, "--duration", "5", *_QUICKLY],
        _completed("video_url", "works.0.video.resource_without_watermark"),
    ),
    ("suno", ["suno", "a song", "--style", "folk", *_QUICKLY], _completed("songs.0.song_path")),
    ("faceswap", ["faceswap", "--src", _PICTURE, "--dst", _PICTURE, *_QUICKLY], _completed("image_url")),
    (
        "run that fails",
        ["run", "luma", "video_generation", '{"sandbox": {"outcome": "failed"}}', *_QUICKLY],
        lambda printed: printed.status == 1 and printed.at("data.error.message") == "task failed",
    ),
    (
        "result of an unknown task",
        ["result", str(uuid.UUID(int=7))],
        lambda printed: printed.status == 1 and "fetch failed [404]" in printed.err and '"message"' in printed.err,
    ),
    ("llm", ["llm", "gpt-4o-mini", "hello"], lambda printed: printed.out.strip() == "You said: hello"),
    (
        "llm --stream",
        ["llm", "gpt-4o-mini", "hello there", "--stream", "--system", "be brief"],
        lambda printed: printed.out.strip() == "You said: hello there",
    ),
    (
        "llm --json-mode",
        ["llm", "gpt-4o-mini", "hello", "--json-mode", "--raw", "--temperature", "0.5", "--max-tokens", "9"],
        lambda printed: printed.at("choices.0.message.content") == '{"answer":"hello"}',
    ),
)


async def _outcome(driving: Driving, python: Path, operation: str, arguments: list[str], check: Check) -> Outcome:
    printed = await _run(driving, python, operation, arguments)
    return Outcome(CLIENT, operation, None if check(printed) else _fault(printed))


async def _cancel(driving: Driving, python: Path) -> Outcome:
    waiting = '{"prompt": "a hat", "sandbox": {"pending_seconds": 3600}}'
    submitted = await _run(driving, python, "cancel", ["submit", "kling", "video_generation", waiting, "--id-only"])
    printed = await _run(driving, python, "cancel", ["cancel", submitted.out.strip()])
    return Outcome(CLIENT, "cancel", None if printed.at("code") == 200 else _fault(printed))


async def _result(driving: Driving, python: Path) -> Outcome:
    submitted = await _run(driving, python, "wait and result", ["submit", "Qubico/tts", "tts", "{}", "--id-only"])
    waited = await _run(driving, python, "wait and result", ["wait", submitted.out.strip(), *_QUICKLY])
    printed = await _run(driving, python, "wait and result", ["result", submitted.out.strip()])
    is_right = _completed("audio_url")(printed) and printed.out == waited.out
    return Outcome(CLIENT, "wait and result", None if is_right else _fault(printed))


async def _callback(driving: Driving, python: Path) -> Outcome:
    """The client's own callback brings its secret, which its own command verifies."""
    subscriber = driving.world.subscriber
    options = ["--webhook-url", f"{subscriber.base}/own", "--webhook-secret", _SECRET, "--id-only"]
    submitted = await _run(driving, python, "callback", ["submit", "Qubico/flux1-dev", "txt2img", "{}", *options])
    task_id = submitted.out.strip()
    if not task_id:
        return Outcome(CLIENT, "callback", _fault(submitted))
    await subscriber.until(lambda _: [each for each in subscriber.of(task_id) if b'"completed"' in each.body])
    secret = subscriber.of(task_id)[-1].headers.get("x-webhook-secret", "")
    verify = ["verify-webhook", "--header-secret", secret, "--expected", _SECRET]
    printed = await _run(driving, python, "callback", verify)
    return Outcome(CLIENT, "callback", None if printed.out.strip() == "valid" else _fault(printed))


async def _run(driving: Driving, python: Path, operation: str, arguments: list[str]) -> Printed:
    driving.recorder.operation = operation
    process = await asyncio.create_subprocess_exec(
        python,
        "-c",
        _START,
        *arguments,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **driving.environment()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Printed(process.returncode or 0, out.decode(), err.decode())


def _fault(printed: Printed) -> str:
    return f"exit {printed.status}: {printed.out[-300:]} {printed.err[-300:]}".strip()
