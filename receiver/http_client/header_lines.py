"""The lines of a request's headers."""

from collections.abc import Collection


def header_lines(headers: Collection[tuple[str, str]]) -> str:
    """Return these headers, a line each. Raises ValueError for one that would be more than a line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if "\0" in lines or not lines.count("\r") == lines.count("\n") == len(headers):
        raise ValueError("a header with a line break or a zero byte")
    return lines
