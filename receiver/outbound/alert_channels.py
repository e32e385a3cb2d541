"""The operator's own channels for system events: whatever Apprise knows, such as Slack, mail or Telegram."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from typing import Any

from receiver.errors import SettingsError
from receiver.settings import Settings
from receiver.telemetry.log import get_logger

log = get_logger("outbound.alert_channels")

_SETTING = "RINGBACK_ALERT_URLS"
_BETWEEN = re.compile(r"[,\s]+(?=[a-z][a-z0-9+.-]*://)", re.I)
"""Between two URLs. One may have commas itself, as the addresses of mails."""


class AlertChannels:
    """Sends to channels, each known by the fingerprint of its URL."""

    def __init__(self, channels: dict[str, Any]) -> None:
        self._channels = channels

    @property
    def fingerprints(self) -> Sequence[str]:
        """The channels, in the order of the setting."""
        return list(self._channels)

    async def send(self, channel: str, title: str, body: str) -> bool:
        """Send one message; return whether the channel took it. It is sent by a thread: Apprise waits for answers."""
        return await asyncio.to_thread(_notify, self._channels[channel], title, body)


def alert_channels(settings: Settings) -> AlertChannels:
    """Return the channels of `RINGBACK_ALERT_URLS`, which may be none. Raises `SettingsError`; no URL is repeated."""
    urls = [] if settings.alert_urls is None else _BETWEEN.split(settings.alert_urls.get_secret_value())
    if not urls:
        return AlertChannels({})
    try:
        from apprise import Apprise
    except ImportError:
        raise SettingsError(f"{_SETTING}: needs Apprise; install it: pip install 'ringback[apprise]'") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its records have URLs, with the secrets in them
    channels = {}
    for number, url in enumerate(urls, start=1):
        channel = Apprise()
        if not channel.add(url):
            raise SettingsError(f"{_SETTING}: URL {number} of {len(urls)} is none that Apprise understands")
        channels[hashlib.sha256(url.encode()).hexdigest()[:16]] = channel
    return AlertChannels(channels)


def _notify(channel: Any, title: str, body: str) -> bool:
    try:
        return bool(channel.notify(title=title, body=body))
    except Exception as error:  # a plugin of Apprise's own
        log.warning("alert channel failed", error=type(error).__name__)
        return False
