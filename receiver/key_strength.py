"""Estimates how hard it is to guess a key that a person chose, and says why a weak one is weak.

Keys that Ringback makes have 256 random bits. A person may set another one, and who guesses that has all
tasks. How many guesses it stands is estimated by reading the key as parts, and adding up what each part is worth:

| part | bits |
|---|---|
| a word of examples and placeholders (`changeme`, `secret`), also with digits for letters (`s3cret`) | 7 |
| what stood in the key before, of four characters and more | 5 |
| five or more neighbours of the alphabet, of the digits or of the keyboard (`12345`, `qwerty`) | 6 |
| letters that follow each other as in words, five and more | 2.2 each |
| `-`, `_`, `.` | 1 |
| any other character | the logarithm of how many such characters there are (4 for a hexadecimal digit) |

It is an estimate: it need not find every weak key, but it must accept every random one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

LEAST_BITS = 60.0
"""What a key must be worth. Sixteen random hexadecimal digits have 64 bits; four common words have about 45."""
ADVICE = "use a random one, for example from `openssl rand -hex 32`"

_FEWEST_CHARACTERS = 6
"""Different characters. Sixteen random hexadecimal digits have fewer in one case of a million."""
_TRIED_FIRST = """
about access account admin administrator all and any api apikey auth bearer bench cafebabe change changeit
changeme client company correct credential database deadbeef default demo dev development dummy empty enter
example fake first fixme foo for free from guest have hello here hook insert internal iloveyou key letmein live
local login long longer love master me more monkey must mysecret name new none not nothing old only open
operator own pass passphrase passwd password phrase piapi placeholder please private prod production public
random replace ringback root sample second secret secure security server service set shared should simple some
staging super temp temporary test tests that the these this todo token two use user very webhook welcome
with word xxx your
"""
_WORDS = {
    letter: tuple(sorted((word for word in _TRIED_FIRST.split() if word[0] == letter), key=len, reverse=True))
    for letter in "abcdefghijklmnopqrstuvwxyz"
}
"""By their first letters, the longest first."""
_LETTERS = str.maketrans("013457@$!", "oieastasi")
"""What is written for letters in words."""
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890", "qwertzuiop", "azertyuiop")
_IN_WORDS = (
    "thheineranrendatonnthaesstenedtoitoueahiisortiasteetngofaldeselesasiarveraldurmeroriicnellcomacelyio"
    "talaelhonoussolichbewailwiutomditrpracecssemunloopaypogepenartapiradrsowshketteeckctrycaplmo"
)
_PAIRS = frozenset(_IN_WORDS[at : at + 2] for at in range(0, len(_IN_WORDS), 2))
"""The commonest pairs of letters in English words: about four of five there, one of six in random letters."""
_WORDLIKE_SHARE = 0.5
_SHORTEST_WORDLIKE = 5
_SHORTEST_COPY = 4
_SHORTEST_SEQUENCE = 5
_SHORTEST_ALTERNATING = 8
_SHORTEST_INSIDE = 4
"""A shorter word counts only where it stands alone: by chance it is in many random keys."""
_SHORTEST_IN_DIGITS = 5
_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_HEXADECIMAL = re.compile(r"[0-9a-f]+|[0-9A-F]+")
_REASONS = {
    "word": "it has words that examples have and that are tried first",
    "copy": "it repeats itself",
    "sequence": "it has neighbours of the alphabet, the digits or the keyboard in a row",
    "wordlike": "it reads like words",
    "other": "it is too short for characters of its kind",
}


class _Part(Struct, frozen=True):
    kind: str
    length: int
    bits: float


_NOTHING = _Part("", 0, 0.0)


def weakness(key: str) -> str | None:
    """Return why a key could be guessed, as the end of a sentence; None for a strong key. Never repeats the key."""
    different = len(set(key))
    if different < _FEWEST_CHARACTERS:
        return f"it has only {different} different characters"
    each = _bits_of_a_character(key)
    parts = list(_parts(key, each))
    if sum(part.bits for part in parts) >= LEAST_BITS:
        return None
    saved: Counter[str] = Counter()
    for part in parts:
        saved[part.kind] += round(part.length * each - part.bits)
    return _REASONS[max(saved, key=lambda kind: (saved[kind], kind != "other"))]


def check_newest_master_key(keys: Sequence[str]) -> None:
    """Raise `ValueError` if the last of the master keys, which signs and encrypts, could be guessed.

    Those before it must stay while stored secrets need them, so a weak one is no error.
    """
    if reason := weakness(keys[-1]):
        raise ValueError(
            f"the last master key could be guessed: {reason}; {ADVICE}. Where the service has run with the present "
            "key, add the new one behind it, after a comma: what is stored is encrypted with it"
        )


def _parts(key: str, each: float) -> Iterator[_Part]:
    """Read the key from the left: the part that is worth least for its length, else one character."""
    small = key.lower()
    in_letters = small.translate(_LETTERS)
    reads_words = _HEXADECIMAL.fullmatch(key) is None
    position, part = 0, _NOTHING
    while position < len(key):
        begins = part.kind != "other" or not key[position - 1].isalpha()
        known = (
            _Part("copy", _copied(small, position), 5.0),
            _Part("sequence", _in_sequence(small, position), 6.0),
            _Part("word", _word(small, in_letters, position), 7.0),
            _wordlike(key, position) if reads_words and begins else _NOTHING,
        )
        part = min(known, key=lambda found: found.bits / found.length if found.length else math.inf)
        if part.bits >= part.length * each:
            part = _Part("other", 1, 1.0 if key[position] in "-_." else each)
        yield part
        position += part.length


def _bits_of_a_character(key: str) -> float:
    """Return the bits of one random character of the kinds that the key has."""
    if _HEXADECIMAL.fullmatch(key) and not key.isdigit():
        return 4.0
    kinds = ((r"[0-9]", 10), (r"[a-z]", 26), (r"[A-Z]", 26), (r"[^0-9A-Za-z_.-]", 20))
    return math.log2(sum(size for pattern, size in kinds if re.search(pattern, key)) or 2)


def _copied(text: str, position: int) -> int:
    """Return how many characters from here on are a copy of what begins before."""
    longest = 0
    for start in range(position):
        length = 0
        while position + length < len(text) and text[start + length] == text[position + length]:
            length += 1
        longest = max(longest, length)
    return longest if longest >= _SHORTEST_COPY else 0


def _in_sequence(text: str, position: int) -> int:
    longest = 0
    for step in (-1, 1):
        end = position + 1
        while end < len(text) and text[end].isalnum() and ord(text[end]) - ord(text[end - 1]) == step:
            end += 1
        longest = max(longest, end - position)
    end = position + 2  # such as a1b2c3d4
    while end < len(text) and ord(text[end]) - ord(text[end - 2]) == 1:
        end += 1
    if end - position >= _SHORTEST_ALTERNATING:
        longest = max(longest, end - position)
    for row in _ROWS:
        for ordered in (row, row[::-1]):
            end = position
            while end < len(text) and text[position : end + 1] in ordered:
                end += 1
            longest = max(longest, end - position)
    return longest if longest >= _SHORTEST_SEQUENCE else 0


def _word(small: str, in_letters: str, position: int) -> int:
    for word in _WORDS.get(in_letters[position], ()):
        end = position + len(word)
        if small.startswith(word, position):
            stands_alone = not small[max(position - 1, 0) : position].isalnum() and not small[end : end + 1].isalnum()
            if len(word) >= _SHORTEST_INSIDE or stands_alone:
                return len(word)
        elif len(word) >= _SHORTEST_IN_DIGITS and in_letters.startswith(word, position):
            return len(word)
    return 0


def _wordlike(text: str, position: int) -> _Part:
    match = _RUN.match(text, position)
    run = match[0].lower() if match is not None else ""
    pairs = len(run) - 1
    if (
        len(run) < _SHORTEST_WORDLIKE
        or sum(run[at : at + 2] in _PAIRS for at in range(pairs)) < _WORDLIKE_SHARE * pairs
    ):
        return _NOTHING
    return _Part("wordlike", len(run), 2.2 * len(run))
