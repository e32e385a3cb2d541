"""The declared providers that ship, and further ones of the tests, as the sandbox and a world use them."""

import tomllib
from functools import cache
from pathlib import Path

from receiver.providers.declared.cases import Cases, read_cases
from receiver.providers.declared.files import SHIPPED
from receiver.sandbox.declared import Description
from receiver.sandbox.declared_proofs import SIGNING_SECRET

EXAMPLES = Path(__file__).parents[1] / "payloads" / "declared"
"""Providers that do not exist, with what those that ship have not."""


def path_of(name: str) -> Path:
    """Return the file of a provider."""
    return next(folder / f"{name}.toml" for folder in (SHIPPED, EXAMPLES) if (folder / f"{name}.toml").exists())


@cache
def description_of(name: str) -> Description:
    """Return what its twin in the sandbox is made of."""
    return Description(tomllib.loads(path_of(name).read_text()), cases_of(name).twin)


@cache
def cases_of(name: str) -> Cases:
    """Return its recorded cases."""
    cases = read_cases(path_of(name))
    assert cases is not None
    return cases


def account_of(name: str, base_url: str, key: str) -> dict[str, str]:
    """Return the environment of an account at its twin."""
    file = description_of(name).file
    credentials = dict.fromkeys(file.get("credentials", ["api_key"]), key)
    secrets = dict.fromkeys(file.get("optional_credentials", []), SIGNING_SECRET)
    values = {**credentials, **secrets, "base_url": base_url}
    return {f"RINGBACK_PROVIDER_{name.upper()}_{field.upper()}": value for field, value in values.items()}
