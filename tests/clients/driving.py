"""What the drivers of all clients share: where to call, what a client did, and how values are found in its answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.recorder import Recorder
from tests.fakes.world import API_KEY, World

ROOT = Path(__file__).parents[2]
HOOK = Path(__file__).with_name("loopback_only.cjs")


@dataclass(frozen=True)
class Outcome:
    """What came of one operation of a client; `fault` is None if the client got what it expects."""

    client: str
    operation: str
    fault: str | None = None


@dataclass(frozen=True)
class Driving:
    """A running service for the clients: they call `base`, which the recorder serves."""

    base: str
    recorder: Recorder
    world: World

    def environment(self) -> dict[str, str]:
        """Return the variables that tell a client its key and, where it can be told, the address."""
        return {
            "PIAPI_API_KEY": API_KEY,
            "PIAPI_API_BASE": self.base,
            "PIAPI_LLM_BASE": f"{self.base}/v1",
            "CLIENTS_BASE": self.base,
            "NO_PROXY": "*",
        }


def value_at(data: Any, path: str) -> Any:
    """Return the value at a path such as `output.works.0.video`; None if there is none. `*` stands for any one name."""
    for name in path.split("."):
        if isinstance(data, list):
            data = data[int(name)] if name.isdigit() and int(name) < len(data) else None
        elif isinstance(data, Mapping):
            data = next(iter(data.values()), None) if name == "*" else data.get(name)
        else:
            return None
    return data
