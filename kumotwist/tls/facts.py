"""What a finished TLS handshake has established, as values for records and for policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from OpenSSL import SSL

if TYPE_CHECKING:
    from kumotwist.tls.resumption import KeptSession

__all__ = ["CheckedConnection", "PeerCheck", "TLSFacts", "tls_facts"]

#: The longest certificate subject, in characters, that is kept.
MAX_SUBJECT = 512


class PeerCheck:
    """What checking one peer's certificate has found so far.

    It travels with a L{CheckedConnection}: whoever verifies certificates writes to it, and
    L{tls_facts} reads it.

    @ivar verified: whether the chain leads to a trust anchor and the name is the expected one.
    @ivar error: why the certificate is not good enough; empty while nothing was found.
    @ivar resumed: the session that is resumed, whose findings these are; L{None} once the peer
        shows a certificate.
    """

    __slots__ = ("error", "resumed", "verified")

    def __init__(self) -> None:
        self.verified = False
        self.error = ""
        self.resumed: KeptSession | None = None


class CheckedConnection(SSL.Connection):
    """A connection that keeps what checking its peer has found.

    @ivar peer_check: the findings. (The application data is not the place: Twisted wants it.)
    """

    def __init__(self, context: SSL.Context, peer_check: PeerCheck) -> None:
        super().__init__(context, None)
        self.peer_check = peer_check


@attrs.define(frozen=True)
class TLSFacts:
    """What is known of a TLS session after its handshake.

    @ivar cipher: OpenSSL's name of the cipher suite, such as C{TLS_AES_256_GCM_SHA384}.
    @ivar protocol_version: such as C{TLSv1.3}.
    @ivar peer_subject: the subject of the peer's certificate (RFC 4514); empty without one.
    @ivar verified: whether the peer's certificate was checked, chain and name, and is good.
    @ivar verify_error: why it is not; empty if it is, or if nobody checked.
    @ivar resumed: whether an earlier session goes on, whose verdict this is.
    """

    cipher: str
    protocol_version: str
    peer_subject: str
    verified: bool
    verify_error: str
    resumed: bool = False


def tls_facts(transport: Any) -> TLSFacts | None:
    """Read the facts of the TLS session that a transport carries.

    @param transport: the transport of a protocol, wrapped or not.
    @return: L{None} if the transport has no TLS, or its handshake is not over.
    """
    get_handle = getattr(transport, "getHandle", None)
    connection = None if get_handle is None else get_handle()
    if not isinstance(connection, SSL.Connection):
        return None
    cipher = connection.get_cipher_name()
    if cipher is None:
        return None
    check = connection.peer_check if isinstance(connection, CheckedConnection) else PeerCheck()
    return TLSFacts(
        cipher=cipher,
        protocol_version=connection.get_protocol_version_name(),
        peer_subject=_subject(connection),
        verified=check.verified,
        verify_error=check.error,
        resumed=check.resumed is not None,
    )


def _subject(connection: SSL.Connection) -> str:
    """The subject of the peer's certificate; empty if there is none that can be read."""
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        return "" if certificate is None else certificate.subject.rfc4514_string()[:MAX_SUBJECT]
    except ValueError:
        return ""
