"""The `ringback` command. Each command imports what is slow to import when it runs, so that `ringback` starts fast."""


def main() -> None:
    """Run the command line: the console script `ringback`."""
    from receiver.cli.commands import app

    app(prog_name="ringback")
