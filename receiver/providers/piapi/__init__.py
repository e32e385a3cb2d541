"""The adapter for PiAPI, whose API is described in `receiver/providers/piapi/CONTRACT.md`."""

from receiver.providers.piapi.adapter import PiAPI

__all__ = ["PiAPI"]
