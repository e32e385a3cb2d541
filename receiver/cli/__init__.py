"""The `ringback` command: only the command that is named is imported, and that imports late what is slow to import."""

import gc
import os
import sys


def main() -> None:
    """Run the command line: the console script `ringback`."""
    # pydantic would read the metadata of every installed package, to look for plugins of its own.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if sys.argv[1:2] == ["serve"]:
        from receiver.serving.early_signals import handle_early_signals

        handle_early_signals()
        gc.disable()  # enabled after the start: nothing that is imported and created until then is garbage
    from receiver.cli.commands import command_line

    command_line(sys.argv[1:])(prog_name="ringback")
