"""How many values a JSON text may have, counted before it is parsed.

Every value takes time and memory wherever it passes: at parsing, at each look for secrets and files, at storing. A text
of a megabyte may be one picture, or half a million numbers that take a thousand times as long.
"""

MOST_VALUES = 100_000
"""In what a provider sends: an hour of speech with the time of each word has half of it."""
MOST_REQUEST_VALUES = 200_000
"""In the body of a client's request, which may be a thousand tasks."""
_STRUCTURE = (b",", b"{", b"[")


def has_more_values(body: bytes, most: int) -> bool:
    """Return whether a JSON text has more than about `most` values: what is between commas and after brackets.

    It takes milliseconds for megabytes, whatever they are. Commas within texts do not count, if it is in UTF-8.
    """
    if len(body) <= most or _count(body) <= most:
        return False
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # A text is a value or a name, and has two quotes.
    return plain.count(b'"') > 4 * most or _count(b" ".join(plain.split(b'"')[::2])) > most


def _count(text: bytes) -> int:
    return sum(map(text.count, _STRUCTURE))
