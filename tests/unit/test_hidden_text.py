"""A secret is hidden in a body that arrives in parts, wherever the parts are cut."""

from hypothesis import given
from hypothesis import strategies as st

from receiver.domain.hidden_text import HiddenText

SECRETS = st.text("ab", min_size=1, max_size=6)


@given(SECRETS, st.lists(st.binary() | st.text("ab", max_size=8).map(str.encode)))
def test_the_secret_is_in_no_body_and_nothing_else_changes(secret: str, parts: list[bytes]) -> None:
    hidden = HiddenText(secret)
    shown = b"".join([*map(hidden.add, parts), hidden.rest()])
    whole = b"".join(parts)
    assert shown == whole.replace(secret.encode(), b"*" * len(secret))
    assert len(shown) == len(whole)


@given(st.lists(st.binary()))
def test_an_empty_secret_hides_nothing(parts: list[bytes]) -> None:
    hidden = HiddenText("")
    assert [hidden.add(part) for part in parts] == parts
    assert hidden.rest() == b""


@given(SECRETS, st.binary())
def test_no_more_than_a_beginning_of_the_secret_is_held_back(secret: str, part: bytes) -> None:
    hidden = HiddenText(secret)
    held = len(part) - len(hidden.add(part))
    assert held < len(secret)
    assert hidden.rest() == secret.encode()[:held]
