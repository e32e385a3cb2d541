"""The `ringback` command: only the command that is named is imported, and that imports late what is slow to import."""

import gc
import sys


def main() -> None:
    """Run the command line: the console script `ringback`."""
    if sys.argv[1:2] == ["serve"]:
        from receiver.serving.early_signals import handle_early_signals

        handle_early_signals()
        gc.disable()  # enabled after the start: nothing that is imported and created until then is garbage
    from receiver.cli.commands import command_line

    command_line(sys.argv[1:])(prog_name="ringback")
