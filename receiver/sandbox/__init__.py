"""A provider with PiAPI's interface on loopback, which behaves well or fails as requested.

It stands for a third party's service, so it shares no code with the rest of Ringback.

`create_sandbox(SandboxOptions())` is a Starlette app. A task's `input.sandbox` (see `Script`) sets what the sandbox
does with that task; the options are the defaults.
"""

from receiver.sandbox.app import create_sandbox
from receiver.sandbox.script import SandboxOptions, Script, ScriptedError

__all__ = ["SandboxOptions", "Script", "ScriptedError", "create_sandbox"]
