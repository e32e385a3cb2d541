"""The official `piapi-mcp-server`, built in a folder: its tools are called over the Model Context Protocol on stdio."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.clients.driving import HOOK, Driving, Outcome

CLIENT = "piapi-mcp-server"
_PICTURE = "https://example.com/face.png"
_VIDEO = "https://example.com/face.mp4"
_SOUND = "https://example.com/voice.mp3"
_TEXT = {"prompt": "a hat"}

# (tool, arguments, what the answer must contain, how many URLs of the service's provider it must list)
_TOOLS: tuple[tuple[str, dict[str, Any], str, int], ...] = (
    ("image_faceswap", {"swapImage": _PICTURE, "targetImage": _PICTURE}, "Image generated successfully", 1),
    ("image_rmbg", {"image": _PICTURE}, "Image generated successfully", 1),
    ("image_segment", {"image": _PICTURE, **_TEXT}, "Image generated successfully", 1),
    ("image_upscale", {"image": _PICTURE}, "Image generated successfully", 1),
    ("video_faceswap", {"swapImage": _PICTURE, "targetVideo": _VIDEO}, "successfully", 1),
    ("video_upscale", {"video": _VIDEO}, "successfully", 1),
    ("generate_image", _TEXT, "Image generated successfully", 1),
    ("modify_image", {**_TEXT, "referenceImage": _PICTURE, "model": "inpaint"}, "successfully", 1),
    ("derive_image", {**_TEXT, "referenceImage": _PICTURE}, "successfully", 1),
    ("generate_image_controlnet", {**_TEXT, "referenceImage": _PICTURE}, "successfully", 1),
    ("generate_video_hunyuan", _TEXT, "Video generated successfully", 1),
    ("generate_video_skyreels", {**_TEXT, "referenceImage": _PICTURE}, "successfully", 1),
    ("generate_video_wan", _TEXT, "successfully", 1),
    ("generate_music_for_video", {**_TEXT, "video": _VIDEO}, "Music generated successfully", 1),
    ("tts_zero_shot", {"genText": "hello", "refAudio": _SOUND}, "Speech generated successfully", 1),
    ("midjourney_imagine", {**_TEXT, "aspectRatio": "16:9"}, "Image generated successfully", 5),
    ("generate_video_kling", _TEXT, "Video generated successfully", 2),
    ("generate_video_effect_kling", {"image": _PICTURE}, "successfully", 2),
    ("generate_video_luma", _TEXT, "Video resolution: 1360x752", 2),
    # The client reads `clips` as a JavaScript Map, which no JSON is: PiAPI's own answer fails in the same way.
    ("generate_music_suno", _TEXT, "Invalid suno music output format", 0),
    ("generate_3d_model", {"image": _PICTURE}, "3d model generated successfully", 3),
    ("generate_video_hailuo", _TEXT, "Video generated successfully", 1),
)


class McpSession:
    """One server process, and the calls to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = count(1)

    async def call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result or error."""
        number = next(self._ids)
        await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters})
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            async for line in self._process.stdout:
                message = json.loads(line)
                if message.get("id") == number and "method" not in message:
                    return dict(message.get("result") or {"error": message.get("error")})
                if "id" in message and "method" in message:  # the server's own ping
                    await self._send({"jsonrpc": "2.0", "id": message["id"], "result": {}})
        raise AssertionError("the server ended")

    async def notify(self, method: str) -> None:
        """Send a notification."""
        await self._send({"jsonrpc": "2.0", "method": method})

    async def tool(self, name: str, arguments: dict[str, Any]) -> str:
        """Call a tool; return the text that it answers, errors included."""
        result = await self.call("tools/call", {"name": name, "arguments": arguments})
        parts = result.get("content") or [{"text": json.dumps(result)}]
        return "\n".join(str(part.get("text", part)) for part in parts)

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()


async def drive(driving: Driving, folder: Path) -> list[Outcome]:
    """Call every tool that calls the service, and one whose task fails."""
    async with _session(driving, folder) as session:
        listed = await session.call("tools/list", {})
        there = {tool["name"] for tool in listed["tools"]}
        outcomes = [await _outcome(driving, session, *tool) for tool in _TOOLS if tool[0] in there]
        untried = there - {tool[0] for tool in _TOOLS} - {"show_image"}
        outcomes += [Outcome(CLIENT, name, "no arguments for this tool are known") for name in sorted(untried)]
        missing = [tool[0] for tool in _TOOLS if tool[0] not in there]
        outcomes += [Outcome(CLIENT, name, "the server has no such tool") for name in missing]
        return [*outcomes, await _failure(driving, session)]


async def _outcome(
    driving: Driving, session: McpSession, name: str, arguments: dict[str, Any], text: str, urls: int
) -> Outcome:
    driving.recorder.operation = name
    answer = await session.tool(name, arguments)
    listed = [word for word in answer.split() if word.startswith("http://127.0.0.1")]
    # Kling lists the same video by two names; other tools list each file once.
    is_right = text in answer and len(listed) == urls and (len(set(listed)) == urls or "kling" in name)
    return Outcome(CLIENT, name, None if is_right else f"{len(listed)} URLs: {answer}")


async def _failure(driving: Driving, session: McpSession) -> Outcome:
    driving.recorder.operation = "a task that fails"
    await driving.world.provider_options(outcome="failed")
    answer = await session.tool("generate_image", _TEXT)
    await driving.world.provider_options(outcome="completed")
    fault = None if "Generation failed: task failed" in answer else answer
    return Outcome(CLIENT, "a task that fails", fault)


@asynccontextmanager
async def _session(driving: Driving, folder: Path) -> AsyncIterator[McpSession]:
    process = await asyncio.create_subprocess_exec(
        "node",
        "--require",
        HOOK,
        folder / "dist/index.js",
        "--env=production",
        cwd=folder,
        env={"PATH": os.environ["PATH"], **driving.environment()},
        stdin=PIPE,
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1 << 20,
    )
    try:
        session = McpSession(process)
        identity = {"name": "ringback-tests", "version": "1"}
        await session.call("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": identity})
        await session.notify("notifications/initialized")
        yield session
    finally:
        process.kill()
        await process.wait()
