"""All checks, in their order: what a check needs comes before it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from msgspec import Struct

from receiver.cli.doctor.result import DoctorOutcome, DoctorResult, bad, skipped
from receiver.domain.keyring import KeyRing
from receiver.errors import RingbackError
from receiver.settings import Settings

Section = tuple[str, Callable[[], Awaitable[list[DoctorResult]]]]
"""What is checked, for a person who waits, and the function that does it."""
_NO_DATABASE = "the database cannot be read"


async def sections(settings: Settings, *, slow: bool) -> AsyncIterator[Section]:
    """Yield the parts of an examination; each is to be awaited before the next one is asked for."""
    examined = _Examined(settings)
    yield "the database", examined.database
    async with AsyncExitStack() as stack:
        await examined.begin(stack)
        yield "the master keys", examined.keys
        yield "the clock", examined.clock
        yield "the provider", examined.provider
        yield "the public URL", examined.public
        if slow:
            yield "the proxy's time limits (a minute and a half)", examined.slow
        yield "the webhooks", examined.webhooks
        yield "the backlog", examined.backlog


class _Examined(Struct):
    settings: Settings
    is_readable: bool = False
    is_public: bool = False
    """Whether the public URL was reached, with a certificate that is accepted."""
    read: Any = None
    keyring: KeyRing | None = None
    key_fault: str = ""

    async def database(self) -> list[DoctorResult]:
        from receiver.cli.doctor.database_checks import database_findings, disk, permissions

        results, self.is_readable = await database_findings(self.settings)
        if not self.settings.is_sqlite or self.settings.sqlite_path.exists():
            results += [disk(self.settings), *permissions(self.settings)]
        return results

    async def begin(self, stack: AsyncExitStack) -> None:
        from receiver.serving.master_keys import key_file, master_keys
        from receiver.storage.reading import reading

        if self.settings.secret_key is None and not key_file(self.settings).exists():
            self.key_fault = f"there is none: {key_file(self.settings)} does not exist"  # the doctor makes none
        else:
            try:
                self.keyring = KeyRing(master_keys(self.settings))
            except RingbackError as error:
                self.key_fault = error.message
        if self.is_readable:
            self.read = await stack.enter_async_context(reading(self.settings))

    async def keys(self) -> list[DoctorResult]:
        from receiver.cli.doctor.database_checks import master_keys

        if self.keyring is None:
            mend = "put the key back; on a new installation, start the service once, which makes it"
            return [bad("master keys", self.key_fault, mend)]
        if self.read is None:
            return [skipped("master keys", _NO_DATABASE)]
        return [await master_keys(self.read, self.keyring)]

    async def clock(self) -> list[DoctorResult]:
        from receiver.cli.doctor.clock_checks import clock_of_database

        if self.read is None:
            return [skipped("clock", _NO_DATABASE)]
        return [await clock_of_database(self.settings, self.read)]

    async def provider(self) -> list[DoctorResult]:
        from receiver.cli.doctor.provider_checks import account_checks, provider_checks

        results = await provider_checks(self.settings)
        if self.read is not None and self.keyring is not None:
            results += await account_checks(self.settings, self.read, self.keyring)
        return results

    async def public(self) -> list[DoctorResult]:
        from receiver.cli.doctor.public_url import probe, public_client, resolves_and_connects

        if self.settings.public_url is None:
            mend = "set RINGBACK_PUBLIC_URL, if providers can reach this machine"
            return [skipped("public URL", "none is set: tasks are tracked by polling alone", mend)]
        results = await resolves_and_connects(self.settings)
        self.is_public = all(each.outcome is not DoctorOutcome.BAD for each in results)
        if not self.is_public:
            return [*results, skipped("probe", "the public URL is to be mended first")]
        if self.keyring is None:
            return [*results, skipped("probe", "there is no master key to sign it with")]
        async with public_client(self.settings) as client:
            return [*results, *await probe(self.settings, self.keyring, client)]

    async def slow(self) -> list[DoctorResult]:
        from receiver.cli.doctor.proxy_timeouts import long_poll, stream
        from receiver.cli.doctor.public_url import public_client
        from receiver.settings import client_settings

        if not self.is_public or self.keyring is None:
            return [skipped("long poll", "the public URL is to be mended first"), skipped("stream", "the same")]
        async with public_client(self.settings) as client:
            return [
                await long_poll(self.settings, self.keyring, client),
                await stream(self.settings, client_settings()[1], client),
            ]

    async def webhooks(self) -> list[DoctorResult]:
        from receiver.cli.doctor.webhook_checks import webhook_checks

        return (
            [skipped("webhooks", _NO_DATABASE)] if self.read is None else await webhook_checks(self.settings, self.read)
        )

    async def backlog(self) -> list[DoctorResult]:
        from receiver.cli.doctor.backlog_checks import backlog_checks

        return [skipped("backlog", _NO_DATABASE)] if self.read is None else await backlog_checks(self.read)
