"""The tasks that the demo wants done: several model families, and some that fail on purpose. Pure."""

import random
from dataclasses import dataclass
from typing import Any

FAMILIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Qubico/flux1-dev", "txt2img", {"prompt": "a lighthouse at dusk"}),
    ("kling", "video_generation", {"prompt": "a paper boat in the rain", "duration": 5}),
    ("luma", "video_generation", {"prompt": "clouds over a harbour"}),
    ("hailuo", "video_generation", {"prompt": "a fox crosses a street"}),
    ("Qubico/wanx", "txt2video-14b", {"prompt": "snow on a tin roof"}),
    ("midjourney", "imagine", {"prompt": "a map of an island", "aspect_ratio": "16:9"}),
    ("Qubico/ace-step", "txt2audio", {"prompt": "slow piano"}),
    ("Qubico/mmaudio", "video2audio", {"prompt": "waves"}),
    ("veo3", "veo3-video", {"prompt": "a market wakes up"}),
)
_FAILS_EVERY = 17
_CANCELLED_EVERY = 61
_CALLBACK_EVERY = 8
_DURATIONS = (0.3, 3.0)
_SLOW_ANSWER_SECONDS = 4.0
_SLOW_DURATION = 5.0


@dataclass(frozen=True)
class DemoTask:
    """One task: its number, the body of its create call, and whether it has a callback of its own."""

    number: int
    body: dict[str, Any]
    own_callback: bool


@dataclass(frozen=True)
class Workload:
    """The tasks, and those of them that are under way together when the service is killed."""

    tasks: tuple[DemoTask, ...]
    burst: range


def make_workload(count: int, *, seed: int, callback_url: str, callback_secret: str) -> Workload:
    """Return `count` tasks; the same seed gives the same tasks."""
    chance = random.Random(seed)  # noqa: S311 - how long a task takes, not a key
    burst = range(count // 2, count // 2 + max(4, count // 10))
    callback = {"webhook_config": {"endpoint": callback_url, "secret": callback_secret}}
    return Workload(tuple(_wanted(number, chance, number in burst, callback) for number in range(count)), burst)


def _wanted(number: int, chance: random.Random, in_burst: bool, callback: dict[str, Any]) -> DemoTask:
    model, task_type, given = FAMILIES[number % len(FAMILIES)]
    script: dict[str, Any] = {
        "duration": round(chance.uniform(*_DURATIONS), 2),
        "progress": chance.randrange(3),
        "outcome": _outcome(number),
    }
    if in_burst and number % 4 == 0:
        # Made at the provider at once, but answered so late that the service is dead by then.
        script |= {"submit": "hang", "hang_seconds": _SLOW_ANSWER_SECONDS, "duration": _SLOW_DURATION}
    body: dict[str, Any] = {
        "model": model,
        "task_type": task_type,
        "input": {**given, "prompt": f"{given['prompt']}, take {number}", "sandbox": script},
        "metadata": {"demo": str(number)},
    }
    own_callback = number % _CALLBACK_EVERY == 0
    if own_callback:
        body["config"] = callback
    return DemoTask(number, body, own_callback)


def _outcome(number: int) -> str:
    if number % _FAILS_EVERY == _FAILS_EVERY - 1:
        return "failed"
    return "cancelled" if number % _CANCELLED_EVERY == _CANCELLED_EVERY - 1 else "completed"
