"""The `ringback` command. Each command imports what is slow to import when it runs, so that `ringback` starts fast."""

import sys


def main() -> None:
    """Run the command line: the console script `ringback`."""
    if sys.argv[1:2] == ["serve"]:
        from receiver.serving.early_signals import handle_early_signals

        handle_early_signals()
    from receiver.cli.commands import app

    app(prog_name="ringback")
