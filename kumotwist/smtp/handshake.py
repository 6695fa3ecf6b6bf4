"""The TLS handshake of a client's session, from the go-ahead to the EHLO behind it."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from kumotwist.smtp.session_errors import cause_words
from kumotwist.tls.client import HostTLS
from kumotwist.tls.facts import CheckedConnection, TLSFacts, tls_facts
from kumotwist.wire.smtp.replies import one_line

__all__ = ["ClientHandshake"]

#: Of a transport whose TLS cannot be asked.
_UNKNOWN_TLS = TLSFacts("", "", "", False, "the transport does not tell")


class ClientHandshake:
    """Begins TLS over a transport, and tells how that went.

    @ivar shaking_hands: the handshake has begun and is not known to be over.
    @ivar securing: it has begun, and the EHLO behind it has no answer yet.
    """

    def __init__(self, options: IOpenSSLClientConnectionCreator) -> None:
        self.shaking_hands = False
        self.securing = False
        self._options = options
        self._connection: CheckedConnection | None = None

    def begin(self, transport: Any) -> None:
        """Start TLS."""
        self.securing = self.shaking_hands = True
        transport.startTLS(self._options)
        get_handle = getattr(transport, "getHandle", None)
        handle = None if get_handle is None else get_handle()
        self._connection = handle if isinstance(handle, CheckedConnection) else None

    def secured(self, transport: Any) -> TLSFacts:
        """The EHLO has been answered: what TLS has come to."""
        self.securing = False
        return tls_facts(transport) or _UNKNOWN_TLS

    def ended(self) -> None:
        """The connection is gone, after a handshake that went well."""
        connection, self._connection = self._connection, None
        if connection is not None and isinstance(self._options, HostTLS):
            self._options.ended(connection)

    def failure_words(self, cause: BaseException | None) -> str | None:
        """Why the handshake failed, for one line of a log; L{None} if it did not."""
        if self.shaking_hands or (self.securing and isinstance(cause, SSL.Error)):
            known = self._connection.peer_check.error if self._connection is not None else ""
            return one_line(f"TLS handshake failed: {known or cause_words(cause)}", 400)
        return None
