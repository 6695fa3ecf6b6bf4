"""The layer between a connection to a proxy and the application's protocol.

Below, L{ProxiedTransport} is the protocol of the connection to the proxy; above, it is the
transport of the application's protocol, for as long as the connection lasts. It stays in the path
and replaces nobody's C{transport.protocol}, because only so do such layers stack: on TLS to the
proxy, and on each other.

Until the negotiation is over everything that arrives goes to the L{Passage} that negotiates;
then to the application; and after C{startTLS} to a TLS layer between the two. TLS with the
destination must begin in this layer: the connection's own C{startTLS} would begin below TLS to
the proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast
from typing import Protocol as Shape

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    INegotiated,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITLSTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, implementer

from kumotwist.endpoints.hops import ProxyHop
from kumotwist.interfaces import IProxiedTransport

__all__ = ["Decrypted", "Passage", "ProxiedTransport", "Suspicion", "abort_transport", "is_tls"]

# What speaks of TLS in a transport: while there is none with the destination, these would show the
# proxy's certificate to an application that asks for its destination's.
_OF_TLS = frozenset({"getPeerCertificate", "negotiatedProtocol"})


Suspicion = Callable[[BaseException | None], Exception]


def is_tls(transport: object) -> bool:
    """Whether a transport is a TLS connection."""
    return bool(ISSLTransport.providedBy(transport) or INegotiated.providedBy(transport))


def abort_transport(transport: Any) -> None:
    """Close a connection now; what was not yet sent is dropped where the transport can do that."""
    abort = getattr(transport, "abortConnection", None)
    (transport.loseConnection if abort is None else abort)()


class Passage(Shape):
    """What decides about a connection to a proxy until the stream to the destination stands."""

    def opened(self, transport: ProxiedTransport) -> None:
        """The connection stands; everything else may begin."""

    def handshake_completed(self) -> None:
        """TLS with the proxy stands. Only told by transports that know."""

    def received(self, data: bytes) -> None:
        """Octets arrived from the proxy."""

    def closed(self, reason: Failure) -> None:
        """The connection is gone; or the proxy will send no more, which is as good."""


class Decrypted(Protocol):
    """Stands between a TLS layer that is inserted late and the protocol above it.

    That protocol was connected long ago and keeps its transport, so it is not told of a
    connection again.
    """

    def __init__(self, application: IProtocol) -> None:
        self._application = application
        if IHandshakeListener.providedBy(application):
            directlyProvides(self, IHandshakeListener)

    def dataReceived(self, data: bytes) -> None:
        self._application.dataReceived(data)

    def handshakeCompleted(self) -> None:
        cast(IHandshakeListener, self._application).handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._application.connectionLost(reason)


@implementer(
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProxiedTransport,
    IPushProducer,
    ITLSTransport,
    ITransport,
)
class ProxiedTransport(Protocol):
    """A stream to a destination that runs through a proxy; see the module's documentation.

    C{getPeer} is the destination. What lies between is C{getProxy}; C{getHost} is the local
    address of the connection to the proxy.
    """

    disconnecting = False

    def __init__(self, passage: Passage, destination: IAddress, clock: IReactorTime | None) -> None:
        """
        @param passage: who negotiates with the proxy.
        @param destination: what C{getPeer} answers.
        @param clock: for TLS with the destination; L{None} is the reactor of the connection.
        """
        self._passage: Passage | None = passage
        self._destination = destination
        self._clock = clock
        self._application: IProtocol | None = None
        self._upper: Any = None
        self._lower: Any = None
        self._hop: ProxyHop | None = None
        self._silence: Suspicion | None = None
        self._producer: tuple[Any, bool] | None = None
        self._held = b""
        self._paused = False
        self._aborted = False
        self._secured = False

    # -- to the connection below, this is a protocol ---------------------------------------------

    def connectionMade(self) -> None:
        """Begin to negotiate."""
        self._lower = self.transport
        if is_tls(self.transport):
            # Only now: Twisted's endpoints forward but one of several optional interfaces.
            alsoProvides(self, IHandshakeListener)
        if self._passage is not None:
            self._passage.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass octets to whoever is in charge of the stream."""
        if self._passage is not None:
            self._passage.received(data)
        elif self._upper is not None:
            self._silence = None
            if self._held:
                self._held += data
            else:
                self._upper.dataReceived(data)

    def handshakeCompleted(self) -> None:
        """TLS with the proxy stands. That is not the application's TLS and not its concern."""
        if self._passage is not None:
            self._passage.handshake_completed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever is in charge of the stream that it ended."""
        passage, self._passage = self._passage, None
        upper, self._upper = self._upper, None
        if self._silence is not None and not self.disconnecting:
            reason = Failure(self._silence(reason.value))
        self._silence = None
        if passage is not None:
            passage.closed(reason)
        elif upper is not None:
            upper.connectionLost(reason)
        self._application = None

    def readConnectionLost(self) -> None:
        """The other end will send no more."""
        if self._passage is not None:
            passage, self._passage = self._passage, None
            passage.closed(Failure(ConnectionDone()))
            abort_transport(self.transport)
        elif not self._secured and IHalfCloseableProtocol.providedBy(self._application):
            cast(IHalfCloseableProtocol, self._application).readConnectionLost()
        else:
            # Not the TLS layer's, which would wait for an answer that can no longer come.
            cast(ITransport, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        """What was written before C{loseWriteConnection} has been sent."""
        if IHalfCloseableProtocol.providedBy(self._application):
            cast(IHalfCloseableProtocol, self._application).writeConnectionLost()

    def logPrefix(self) -> str:
        """The application's, once there is one."""
        if self._application is None:
            return type(self).__name__
        if ILoggingContext.providedBy(self._application):
            return cast(ILoggingContext, self._application).logPrefix()
        return type(self._application).__name__

    # -- to whoever negotiates -------------------------------------------------------------------

    def abandon(self) -> None:
        """Close the connection at once; nobody is told any more."""
        self._passage = None
        if self.transport is not None:
            abort_transport(self.transport)

    @property
    def awaits_handshake(self) -> bool:
        """Whether this is on top of TLS that will tell when its handshake is completed.

        Endpoints that hide TLS below another layer (Twisted's C{ssl:}) do not tell.
        """
        return is_tls(self.transport) and getattr(self.transport, "wrappedProtocol", None) is self

    def connect(self, application: IProtocol, hop: ProxyHop, silence: Suspicion | None) -> None:
        """The negotiation is over: connect the application's protocol.

        @param silence: makes the error to report, of the one that came, if the stream ends before
            its first octet, unless the application itself ended it.
        """
        self._passage = None
        self._application = self._upper = application
        self._hop = hop
        self._silence = silence
        application.makeConnection(self)

    def deliver(self, data: bytes) -> None:
        """Give the application what arrived behind the negotiation, if it wants to read now."""
        if data and not self._aborted:
            self._silence = None
            self._held = data
            self._release()

    def _release(self) -> None:
        while self._held and not self._paused and self._upper is not None:
            data, self._held = self._held, b""
            self._upper.dataReceived(data)

    # -- to the application, this is a transport -------------------------------------------------

    def getProxy(self) -> ProxyHop | None:
        """The L{ProxyHop} that carries the stream (L{IProxiedTransport})."""
        return self._hop

    def getPeer(self) -> Any:
        """The destination: an IPv4Address, an IPv6Address or a HostnameAddress."""
        return self._destination

    def getHost(self) -> Any:
        """The local address of the connection to the proxy."""
        return self._lower.getHost()

    def write(self, data: bytes) -> None:
        """Send octets to the destination."""
        self._lower.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send octets to the destination."""
        self._lower.writeSequence(iovec)

    def loseConnection(self) -> None:
        """Close the stream after everything was sent."""
        self.disconnecting = True
        self._lower.loseConnection()

    def abortConnection(self) -> None:
        """Close the stream now."""
        self.disconnecting = self._aborted = True
        self._held = b""
        abort_transport(self._lower)

    def loseWriteConnection(self) -> None:
        """Half-close the stream, where the connection to the proxy can do that."""
        getattr(self._lower, "loseWriteConnection", self.loseConnection)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let a producer be paused and resumed as the connection fills and empties."""
        self._producer = (producer, streaming)
        self._lower.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None
        self._lower.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading."""
        self._paused = True
        self._lower.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        self._release()
        if not self._paused:
            self._lower.resumeProducing()

    def stopProducing(self) -> None:
        """Close the stream after everything was sent."""
        self.loseConnection()

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Begin TLS with the destination, as client.

        Afterwards this transport provides L{ISSLTransport}, C{getPeerCertificate} and
        C{negotiatedProtocol}, which speak of the destination.

        @param contextFactory: what L{twisted.internet.ssl.optionsForClientTLS} makes.
        @param normal: false to take the server's part.
        """
        if self._upper is None:
            return  # the stream has ended; the application has been, or is being, told
        if self._producer is not None:
            self._lower.unregisterProducer()
        relay = Decrypted(self._upper)
        clock = self._clock or getattr(self.transport, "reactor", None)
        factory = TLSMemoryBIOFactory(
            contextFactory, normal, Factory.forProtocol(lambda: relay), clock=clock
        )
        tls = factory.buildProtocol(self._destination)
        self._lower = self._upper = tls
        self._secured = True
        alsoProvides(self, ISSLTransport, INegotiated)
        tls.makeConnection(self.transport)
        if self._producer is not None:
            tls.registerProducer(*self._producer)

    def getTcpNoDelay(self) -> bool:
        """Whether Nagle's algorithm is off; false where the connection is not TCP."""
        return bool(self._tcp_option("getTcpNoDelay"))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Turn Nagle's algorithm off or on, where the connection is TCP."""
        self._tcp_option("setTcpNoDelay", enabled)

    def getTcpKeepAlive(self) -> bool:
        """Whether keepalive is on; false where the connection is not TCP."""
        return bool(self._tcp_option("getTcpKeepAlive"))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Turn keepalive on or off, where the connection is TCP."""
        self._tcp_option("setTcpKeepAlive", enabled)

    def _tcp_option(self, name: str, *arguments: bool) -> Any:
        method = getattr(self._lower, name, None)
        return None if method is None else method(*arguments)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the connection below has, except what it would say of the proxy's TLS."""
        if name.startswith("_"):
            raise AttributeError(name)
        lower = self.__dict__.get("_lower")
        hidden = not self._secured and (
            name in _OF_TLS or (name == "getHandle" and lower is not None and is_tls(lower))
        )
        if lower is None or hidden:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        return getattr(lower, name)
