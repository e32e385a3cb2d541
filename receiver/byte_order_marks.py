"""Byte order marks: what programs on Windows write before a text. In UTF-8 it is allowed for and removed; in UTF-16 (a
file that PowerShell's `>` has written) and UTF-32 it says what the encoding is.
"""

import codecs

_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""By mark; a mark of UTF-32 begins with one of UTF-16, so those come first."""
MOST_MARK_BYTES = 4


def encoding_of(start: bytes) -> str | None:
    """Return the encoding that a text announces by its first `MOST_MARK_BYTES`; None for one without a mark."""
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8"
    return next((encoding for mark, encoding in _WIDE if start.startswith(mark)), None)


def without_mark(text: bytes) -> bytes:
    """Return a text in UTF-8 and without a mark; the same bytes if it has none, or if it is not what its mark says."""
    encoding = encoding_of(text[:MOST_MARK_BYTES])
    if encoding is None:
        return text
    try:
        return text.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError:
        return text
