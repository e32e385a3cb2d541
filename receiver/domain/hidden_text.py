"""Hides a secret in what is passed on as it arrives, part by part."""

_HIDDEN = b"*"


class HiddenText:
    """Hides a secret in a body that arrives in parts, also where two parts share it.

    The secret is replaced by as many asterisks, so that the body keeps its length. Of each part only the end that may
    be the beginning of the secret is held back until the next one. An empty secret hides nothing.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._held = b""

    def add(self, part: bytes) -> bytes:
        """Return what can be shown of the body with its next part."""
        if not self._secret:
            return part
        text = (self._held + part).replace(self._secret, _HIDDEN * len(self._secret))
        length = self._length_of_beginning(text)
        shown, self._held = text[: len(text) - length], text[len(text) - length :]
        return shown

    def rest(self) -> bytes:
        """Return what was held back, at the end of the body."""
        held, self._held = self._held, b""
        return held

    def _length_of_beginning(self, text: bytes) -> int:
        """Return how many of the last bytes are the longest possible beginning of the secret, without all of it."""
        longest = min(len(self._secret) - 1, len(text))
        return next((length for length in range(longest, 0, -1) if text.endswith(self._secret[:length])), 0)
