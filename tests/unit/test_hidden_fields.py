"""No class of fields shows a secret that one of its objects has."""

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import pytest
from msgspec import Struct
from rich.pretty import pretty_repr

import receiver
from receiver.hidden_fields import HidesFields
from receiver.providers.target import read_target

_SECRET = re.compile(
    r"secret|token|password|dsn|credential|headers$|(api|admin|master)_keys?$|webhook_url|authorization|^form$"
)
_NONE = {
    "receiver.providers.capabilities.Capabilities.sends_secret",  # whether it does
    "receiver.storage.transaction.NewIntent.token",  # tells intents apart, and opens nothing
    "receiver.storage.leases.Intent.token",
    "receiver.cli.init.Prompt.is_secret",  # whether it is
}
_SANDBOX = "receiver.sandbox."
"""It imports nothing of ours, and has only the secrets of tests."""
_BY_THEMSELVES = {"receiver.providers.target.ProviderServer"}
"""Classes that show themselves in a way of their own."""


class _Both(HidesFields, Struct, frozen=True):
    hidden_fields: ClassVar[frozenset[str]] = frozenset({"secret", "headers"})

    name: str
    secret: str | None
    headers: dict[str, str]


def _classes(base: type[Any]) -> Iterator[type[Any]]:
    for each in base.__subclasses__():
        yield each
        yield from _classes(each)


def _fields() -> Iterator[tuple[type[Any], str]]:
    """Yield the fields of all classes of fields, of whatever kind."""
    for module in pkgutil.walk_packages(receiver.__path__, "receiver."):
        if not module.name.endswith("__main__"):
            found = vars(importlib.import_module(module.name)).values()
            for each in found:
                if isinstance(each, type) and each.__module__ == module.name and not module.name.startswith(_SANDBOX):
                    yield from ((each, name) for name in _names(each))


def _names(each: type[Any]) -> Iterable[str]:
    if is_dataclass(each):
        return [field.name for field in fields(each)]
    names = getattr(each, "__struct_fields__", getattr(each, "_fields", None))
    return names if isinstance(names, tuple) else ()


def _name(each: type[Any]) -> str:
    return f"{each.__module__}.{each.__qualname__}"


def test_fields_that_are_named_as_secrets_are_hidden() -> None:
    shown = {
        f"{_name(each)}.{name}"
        for each, name in _fields()
        if _SECRET.search(name)
        and _name(each) not in _BY_THEMSELVES
        and name not in getattr(each, "hidden_fields", frozenset())
    }
    assert shown == _NONE


def test_hidden_fields_are_fields_of_their_class() -> None:
    names = {f"{_name(each)}.{name}" for each, name in _fields()}
    hiding = [each for each in _classes(HidesFields) if each.__module__.startswith("receiver.")]
    assert {f"{_name(each)}.{name}" for each in hiding for name in each.hidden_fields} <= names
    assert len(hiding) > 10


@pytest.mark.parametrize("shown", [repr, str, pretty_repr, "{!r}".format, lambda each: f"{[each]}"])
def test_an_object_shows_what_is_not_hidden(shown: object) -> None:
    assert callable(shown)
    text = shown(_Both("mine", "planted", {"Authorization": "planted"}))
    assert "planted" not in text
    assert "mine" in text
    assert "Both" in text


def test_an_object_shows_that_a_hidden_field_has_no_value() -> None:
    assert repr(_Both("mine", None, {})) == "_Both(name='mine', secret=None, headers={})"


def test_a_server_shows_no_password_of_its_url() -> None:
    server = read_target("http://user:planted@provider.example:8080/a")[0]
    assert repr(server) == "ProviderServer(http://provider.example:8080)"
    assert "planted" not in f"{server} {pretty_repr([server])}"


def test_hiding_does_not_change_what_is_equal() -> None:
    one = _Both("mine", "a", {})
    assert one == _Both("mine", "a", {})
    assert one != _Both("mine", "b", {})
