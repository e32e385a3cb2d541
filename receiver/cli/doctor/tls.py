"""A TLS handshake with a server, and nothing after it: is its certificate accepted, and for how long."""

import asyncio
import ssl
from datetime import datetime

from cryptography import x509
from msgspec import Struct

from receiver.clock import wall_now

CONNECT_SECONDS = 10.0
FEW_DAYS = 14
"""A certificate that is renewed by itself has more days left than this."""


class Handshake(Struct, frozen=True):
    """What a handshake showed: why it failed, "" if it did not, and until when the certificate is good, if it was seen.

    `issuer` is who signed it.
    """

    fault: str
    until: datetime | None = None
    issuer: str = ""

    @property
    def days_left(self) -> int | None:
        """Whole days until the certificate ends; negative if it has ended."""
        return None if self.until is None else (self.until - wall_now()).days


async def handshake(address: str, port: int, name: str, context: ssl.SSLContext) -> Handshake:
    """Connect to an address, as the server of `name`; return what its certificate is like. Raises `OSError`."""
    try:
        return _read(await _certificate(address, port, name, context), "")
    except ssl.SSLCertVerificationError as error:
        fault = f"its certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        return Handshake(f"TLS does not come about ({error.reason or 'no reason'})")
    seeing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # only to read the dates of what is not accepted
    seeing.check_hostname, seeing.verify_mode = False, ssl.CERT_NONE
    try:
        return _read(await _certificate(address, port, name, seeing), fault)
    except OSError:
        return Handshake(fault)


async def _certificate(address: str, port: int, name: str, context: ssl.SSLContext) -> bytes:
    async with asyncio.timeout(CONNECT_SECONDS):
        _, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.transport.abort()


def _read(content: bytes, fault: str) -> Handshake:
    try:
        certificate = x509.load_der_x509_certificate(content)
        issuer = certificate.issuer.rfc4514_string()
    except ValueError:
        return Handshake(fault)
    return Handshake(fault, certificate.not_valid_after_utc, issuer)
