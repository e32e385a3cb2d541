"""The tasks that the demo creates: of several model families, and some that fail or are cancelled. Pure."""

import random
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

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
# The provider makes these tasks at once, but answers so late that the service is killed before.
_SLOW_CREATE = {"submit": "hang", "hang_seconds": 4.0, "duration": 5.0}


class Workload(Struct, frozen=True):
    """The bodies of the create calls. A task's number is its index, and is in its metadata as `demo`."""

    bodies: tuple[dict[str, Any], ...]
    burst: range
    """The numbers of the tasks that are created at once, shortly before the service is killed."""

    @property
    def callbacks(self) -> list[int]:
        """The numbers of the tasks with a callback of their own."""
        return [number for number, body in enumerate(self.bodies) if "config" in body]


def make_workload(count: int, *, seed: int, callback: Mapping[str, str]) -> Workload:
    """Return `count` tasks, the same for the same seed. `callback` is the `webhook_config` of every eighth task."""
    rng = random.Random(seed)  # noqa: S311 - for the tasks' durations, not for keys
    burst = range(count // 2, count // 2 + max(4, count // 10))
    return Workload(tuple(_body(number, rng, number in burst, callback) for number in range(count)), burst)


def _body(number: int, rng: random.Random, in_burst: bool, callback: Mapping[str, str]) -> dict[str, Any]:
    model, task_type, given = FAMILIES[number % len(FAMILIES)]
    script = {
        "duration": round(rng.uniform(*_DURATIONS), 2),
        "progress": rng.randrange(3),
        "outcome": _outcome(number),
        **(_SLOW_CREATE if in_burst and number % 4 == 0 else {}),
    }
    return {
        "model": model,
        "task_type": task_type,
        "input": {**given, "prompt": f"{given['prompt']}, take {number}", "sandbox": script},
        "metadata": {"demo": str(number)},
        **({"config": {"webhook_config": callback}} if number % _CALLBACK_EVERY == 0 else {}),
    }


def _outcome(number: int) -> str:
    if number % _FAILS_EVERY == _FAILS_EVERY - 1:
        return "failed"
    return "cancelled" if number % _CANCELLED_EVERY == _CANCELLED_EVERY - 1 else "completed"
