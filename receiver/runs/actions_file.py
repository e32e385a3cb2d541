"""Reads the actions file, once at the start."""

import tomllib
from pathlib import Path

from receiver.byte_order_marks import without_mark
from receiver.domain.actions import Actions, parse_actions
from receiver.errors import SettingsError
from receiver.providers.registry import DEFAULT_PROVIDER, provider_names


def read_actions(path: Path | None, providers_dir: Path | None = None) -> Actions:
    """Return the actions in the file that `RINGBACK_ACTIONS_FILE` names. Without a file, only `model:task_type` works.

    They may name the providers that ship, and those of `providers_dir`. Raises `SettingsError`, which names the file
    and everything that is wrong with it.
    """
    if path is None:
        return Actions(DEFAULT_PROVIDER)
    try:
        data = tomllib.loads(without_mark(path.read_bytes()).decode())
        return parse_actions(data, providers=provider_names(providers_dir), default_provider=DEFAULT_PROVIDER)
    except OSError as error:
        raise _fault(path, str(error.strerror)) from None
    except UnicodeDecodeError:
        raise _fault(path, "not a text in UTF-8: save it in that encoding") from None
    except tomllib.TOMLDecodeError as error:
        raise _fault(path, f"not valid TOML: {error}") from None
    except SettingsError as error:
        raise _fault(path, error.message) from None


def _fault(path: Path, message: str) -> SettingsError:
    return SettingsError(f"RINGBACK_ACTIONS_FILE: {path}: {message}")
