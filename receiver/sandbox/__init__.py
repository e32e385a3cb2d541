"""PiAPI on loopback: a provider that behaves, and misbehaves on request. It is somebody else's service.

`create_sandbox(SandboxOptions())` is a Starlette app. What it does with one task is written in that task's
`input.sandbox` (see `Script`); what a task leaves out, the options decide.
"""

from receiver.sandbox.app import create_sandbox
from receiver.sandbox.script import SandboxOptions, Script, ScriptedError

__all__ = ["SandboxOptions", "Script", "ScriptedError", "create_sandbox"]
