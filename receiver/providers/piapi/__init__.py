"""PiAPI, the first provider."""

from receiver.providers.piapi.adapter import PiAPI

__all__ = ["PiAPI"]
