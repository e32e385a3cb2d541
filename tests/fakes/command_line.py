"""The whole command line, for tests that run commands in their own process."""

from receiver.cli.commands import command_line

app = command_line()
