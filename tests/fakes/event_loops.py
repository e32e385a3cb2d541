"""Tests that run on each event loop that the service may be told to use."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

EACH_LOOP = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
"""The mark of a module whose tests are all `on_each_loop`."""
_LONG = 30.0


def on_each_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run an async test with `run`: the service runs on uvloop, which it may be told not to use."""

    def runs(run: Callable[[Coroutine[None, None, None]], None], **arguments: Any) -> None:
        run(asyncio.wait_for(test(**arguments), _LONG))

    signature = inspect.signature(test)
    first = inspect.Parameter("run", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    vars(runs)["__signature__"] = signature.replace(parameters=[first, *signature.parameters.values()])
    return runs
