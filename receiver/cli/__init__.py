"""The `ringback` command. Heavy imports wait inside the commands that need them, so that it starts at once."""


def main() -> None:
    """Run the command line; the console script `ringback`."""
    from receiver.cli.commands import app

    app(prog_name="ringback")
