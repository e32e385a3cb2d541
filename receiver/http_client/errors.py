"""What can go wrong with a request. No text names a URL or repeats a header: both may have a secret."""

import ssl


class NotConnected(Exception):
    """No connection was made, so nothing of the request was sent; `cause` is what the system said."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(type(cause).__name__)
        self.cause = cause


class NameUnresolved(NotConnected):
    """No address of the server's name may be connected to; `cause` is what the resolver raised."""


class ConnectRefused(NotConnected):
    """None of the server's addresses took a connection."""


class TlsRefused(NotConnected):
    """The server took the connection, and no TLS connection could be made on it."""


class CertificateRefused(TlsRefused):
    """The server's certificate is not trusted, or is another host's."""

    @property
    def fault(self) -> str:
        """What is wrong with the certificate."""
        return self.cause.verify_message if isinstance(self.cause, ssl.SSLCertVerificationError) else "not valid"


class ConnectTimedOut(NotConnected):
    """No connection was made in time."""


class ConnectionLost(NotConnected):
    """The connection was made, and closed before anything was written to it."""


class NoPlace(Exception):
    """As many connections as may be are in use, for as long as it was to be waited; nothing was sent."""


class PoolClosed(RuntimeError):
    """No connection is made any more; nothing was sent."""

    def __init__(self) -> None:
        super().__init__("the connections are closed")


class RequestBroken(Exception):
    """The body of a request could not be had to its end, so the request was not sent whole."""


class ClosedUnanswered(Exception):
    """The server closed the connection, and no status had arrived. It may have handled the request."""


class ClosedEarly(Exception):
    """The server closed the connection within the response."""


class NotHTTP(Exception):
    """What the server sent is not a response of HTTP, or has no end within the bounds."""
