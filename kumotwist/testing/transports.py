"""An in-memory transport whose TLS, aborting and back-pressure are real.

Twisted's C{iosim} pretends to do TLS, and its transports neither abort nor stop reading. This
one does all three, so that what depends on them can be tested without a socket.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyClass

from kumotwist.endpoints.transport import Decrypted

__all__ = ["TLSFakeTransport"]


class _BelowTLS:
    """The transport as the TLS layer uses it."""

    def __init__(self, transport: TLSFakeTransport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.write_below_tls(data)

    def loseConnection(self) -> None:
        self._transport.disconnecting = True

    def abortConnection(self) -> None:
        self._transport.drop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@implementer(ITLSTransport, ITransport, IConsumer, IPushProducer)
class TLSFakeTransport(FakeTransport):
    """A transport for L{twisted.test.iosim} with real TLS.

    @ivar aborted: whether C{abortConnection} was called; what had not been sent is gone then.
    @ivar reading: whether the protocol wants to read; while it does not, nothing is delivered.
    """

    aborted = False
    reading = True

    def __init__(
        self,
        protocol: IProtocol,
        isServer: bool,
        hostAddress: IAddress | None = None,
        peerAddress: IAddress | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param clock: for the writes of TLS; also this transport's C{reactor}, where one is given.
        """
        super().__init__(protocol, isServer, hostAddress, peerAddress)  # type: ignore[no-untyped-call]
        self._clock = clock
        if clock is not None:
            self.reactor = clock
        self._tls: Any = None
        self._unread: list[bytes] = []

    # -- TLS -------------------------------------------------------------------------------------

    def startTLS(self, contextFactory: Any, beNormal: bool = True) -> None:
        """Insert a TLS layer, as a socket's transport does."""
        relay = Decrypted(self.protocol)
        factory = TLSMemoryBIOFactory(
            contextFactory,
            bool(self.isServer) != bool(beNormal),
            Factory.forProtocol(lambda: relay),
            clock=self._clock,
        )
        self._tls = self.protocol = factory.buildProtocol(self.peerAddress)
        directlyProvides(self, ISSLTransport)
        self._tls.makeConnection(_BelowTLS(self))

    def getPeerCertificate(self) -> Any:
        """The certificate of the other end."""
        return self._tls.getPeerCertificate()

    def write(self, data: bytes) -> None:
        """Send octets, encrypted if TLS was started."""
        if self._tls is not None:
            self._tls.write(data)
        else:
            super().write(data)  # type: ignore[no-untyped-call]

    def write_below_tls(self, data: bytes) -> None:
        """Send octets as they are."""
        super().write(data)  # type: ignore[no-untyped-call]

    # -- closing ---------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close after everything was sent."""
        if self._tls is not None:
            self._tls.loseConnection()
        else:
            super().loseConnection()  # type: ignore[no-untyped-call]

    def abortConnection(self) -> None:
        """Close now."""
        if self._tls is not None and not self.aborted:
            self._tls.abortConnection()
        self.drop()

    def drop(self) -> None:
        """Forget what was not sent and close."""
        self.aborted = self.disconnecting = True
        self.stream: list[bytes] = []

    # -- back-pressure ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """Deliver nothing for now."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Deliver what has come meanwhile, and what comes."""
        self.reading = True
        while self._unread and self.reading:
            super().bufferReceived(self._unread.pop(0))  # type: ignore[no-untyped-call]

    def bufferReceived(self, buf: bytes) -> None:
        """Deliver octets, or keep them until they are wanted; none arrive after an abort."""
        if self.aborted:
            return
        if self.reading:
            super().bufferReceived(buf)  # type: ignore[no-untyped-call]
        else:
            self._unread.append(buf)


for _interface in (ITLSTransport, ITransport, IConsumer, IPushProducer):
    verifyClass(_interface, TLSFakeTransport)
