"""TCP connections that take fewer steps than Twisted's, which they are otherwise."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import BaseConnector
from twisted.internet.error import ConnectBindError, ConnectionAborted, getConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Connector", "Port", "Stream", "connector_for"]

_log = Logger()

_DONE = Failure(CONNECTION_DONE)
_LOST = Failure(CONNECTION_LOST)
#: Linux 4.2; C{socket} has known it since Python 3.12.
_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
#: What C{connect} says of a socket that is being connected, and of one that is.
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)
_STANDS = (0, errno.EISCONN)


class Stream:
    """What connections that were made and those that were accepted have in common."""

    doConnect: Callable[[], Any]

    def write(self: Any, data: bytes) -> None:
        """Send octets, or buffer those that the socket does not take."""
        if (
            data
            and type(data) is bytes
            and not self._tempDataBuffer
            and not self.dataBuffer
            and self.connected
            and not self.TLS
            and not self.disconnecting
            and not self._writeDisconnected
            # A pull producer is asked for more when the loop finds the socket writable.
            and (self.producer is None or self.streamingProducer)
        ):
            try:
                sent = self.socket.send(data)
            except OSError:
                # Full, or broken: the loop will meet an error again and end the connection.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[misc]

    def writeSequence(self, iovec: Any) -> None:
        """Send several pieces as one."""
        self.write(b"".join(iovec))

    def doRead(self: Any) -> Any:
        """Hand on what has arrived; see L{twisted.internet.interfaces.IReadDescriptor}."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def lost(self: Any, why: BaseException) -> None:
        """The loop has found that there is nothing more to read, or that it is broken.

        @param why: what C{doRead} or C{doConnect} gave back, or raised.
        """
        failure = _LOST if why is CONNECTION_LOST else Failure(why)
        if why is CONNECTION_DONE:
            failure = _DONE
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.stopReading()
                self.readConnectionLost(failure)
                return
        self.connectionLost(failure)

    def loseConnection(self: Any) -> None:
        """End the connection: at the end of the turn if there is nothing to send."""
        if not self.connected or self.disconnecting:
            return
        if self.TLS or self._writeDisconnected or not self._is_idle:
            super().loseConnection()  # type: ignore[misc]
        else:
            self.disconnecting = 1
            self.reactor.forget(self)
            self.reactor.end_soon(self)

    @property
    def _is_idle(self: Any) -> bool:
        """Whether nothing has to be sent, and nobody wants to send more."""
        return not (
            self.dataBuffer
            or self._tempDataBuffer
            or self.producer is not None
            or self._writeDisconnecting
        )

    def end(self: Any) -> None:
        """The turn in which C{loseConnection} was called is over."""
        if not self.connected or self._aborting:
            return
        if self._is_idle:
            self.connectionLost(_DONE)
        else:
            # Something was written meanwhile: the loop ends it when that is sent.
            self.startWriting()

    def connectionLost(self: Any, reason: Failure) -> None:
        """The connection is over: let go of the socket and tell the protocol."""
        if not self.connected:
            super().connectionLost(reason)  # type: ignore[misc]
            return
        self.connected, self.disconnected = 0, 1
        if self.producer is not None:
            self.producer.stopProducing()
            FileDescriptor.unregisterProducer(self)
        self.reactor.forget(self)
        self._closeSocket(not isinstance(reason.value, ConnectionAborted))
        protocol = self.protocol
        del self.protocol, self.socket, self.fileno
        protocol.connectionLost(reason)


class _Server(Stream, tcp.Server):
    """A connection that was accepted."""

    def __init__(
        self,
        made: socket.socket,
        protocol: Any,
        address: IPv4Address | IPv6Address,
        port: Port,
        number: int,
        reactor: Any,
    ) -> None:
        """
        @param address: the client's.
        @param number: how many have been accepted before it.
        """
        FileDescriptor.__init__(self, reactor)
        made.setblocking(False)
        self.socket = made
        self.fileno = made.fileno
        self.protocol = protocol
        self.server = port
        self.sessionno = number
        self.hostname = address.host
        self._address = address
        self._addressType = type(address)
        self.connected = 1
        reactor.addReader(self)

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The client's address."""
        return self._address

    def logPrefix(self) -> str:
        """What log lines about the connection begin with."""
        return f"{self._getLogPrefix(self.protocol)},{self.sessionno},{self.hostname}"

    def __repr__(self) -> str:
        return f"<connection {self.sessionno} from {self.hostname}>"


class Port(tcp.Port):
    """Accepts connections."""

    def doRead(self: Any) -> None:
        """Accept those who wait, as many as there were the last time and a few more."""
        most = self.numberAccepts
        accepted = 0
        try:
            while accepted < most:
                try:
                    made, where = self.socket.accept()
                except BlockingIOError:
                    break
                except OSError:
                    # Twisted's own way meets the same error, and knows what to do about it.
                    super().doRead()  # type: ignore[no-untyped-call]
                    return
                accepted += 1
                self._accepted(made, where)
        except Exception:
            _log.failure("a connection could not be accepted")
        self.numberAccepts = most + 20 if accepted == most else max(1, accepted)

    def _accepted(self, made: socket.socket, where: Any) -> None:
        address: IPv4Address | IPv6Address
        if len(where) == 2:
            address = IPv4Address("TCP", *where)
        elif where[3]:
            numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
            address = IPv6Address("TCP", socket.getnameinfo(where, numeric)[0], *where[1:])
        else:
            address = IPv6Address("TCP", *where)
        assert self.factory is not None
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            made.close()
            return
        number = self.sessionno
        self.sessionno = number + 1
        protocol.makeConnection(_Server(made, protocol, address, self, number, self.reactor))


class _Client(Stream, tcp.Client):
    """A connection to a host that is given by its name, or in an unusual way."""

    def connectionLost(self: Any, reason: Failure) -> None:
        """The connection is over: tell the connector too."""
        stood = self.connected
        super().connectionLost(reason)
        if stood:
            self.connector.connectionLost(reason)


class _DirectClient(_Client):
    """A connection to an address."""

    def __init__(self: Any, connector: _DirectConnector) -> None:
        reactor: Any = connector.reactor
        FileDescriptor.__init__(self, reactor)
        self.connector = connector
        self.addr = self.realAddress = connector.address
        self.addressFamily = connector.family
        self._addressType = connector._addressType
        self.protocol = None
        failure: Exception | None = None
        try:
            made = _bound_socket(connector.family, connector.bindAddress)
        except OSError as error:
            failure = ConnectBindError(error.errno, error.strerror)
        else:
            self.socket = made
            self.fileno = made.fileno
            code = made.connect_ex(connector.address)
            if code == 0 or code in _UNDER_WAY:
                reactor.watch(self)
            elif code == errno.EADDRNOTAVAIL and connector.bindAddress is not None:
                # It would have been C{bind} that failed, had it looked for a port.
                failure = ConnectBindError(code, os.strerror(code))
            else:
                failure = getConnectError((code, os.strerror(code)))
        if failure is not None:
            reactor.callLater(0, self.failIfNotConnected, failure)

    def doConnect(self: Any) -> None:
        """Something has happened to the socket: the connection stands, or has failed."""
        # Asked again, connecting tells how it stands: an event may have been that of a socket which
        # had the same number until a moment ago.
        code = self.socket.connect_ex(self.connector.address)
        if code in _UNDER_WAY:
            return
        if code not in _STANDS:
            self.failIfNotConnected(getConnectError((code, os.strerror(code))))
            return
        self.reactor.stands(self)
        self.protocol = self.connector.buildProtocol(self.getPeer())
        self.connected = 1
        if self.protocol is None:
            self.protocol = Protocol()
            self.loseConnection()
        else:
            self.protocol.makeConnection(self)

    def logPrefix(self) -> str:
        """What log lines about the connection begin with."""
        return f"{self._getLogPrefix(self.protocol)},client"


class Connector(tcp.Connector):
    """Makes connections to hosts that are given in any way."""

    def _makeTransport(self) -> tcp.Client:
        make: Any = _Client
        client: tcp.Client = make(self.host, self.port, self.bindAddress, self, self.reactor)
        return client


class _DirectConnector(Connector):
    """Makes connections to an address."""

    def __init__(
        self, address: Any, family: int, factory: Any, timeout: Any, bind_address: Any, reactor: Any
    ) -> None:
        BaseConnector.__init__(self, factory, timeout, reactor)
        self.address = address
        self.family: Any = family
        self.host, self.port = address[:2]
        self.bindAddress: Any = bind_address
        if family == socket.AF_INET6:
            self._addressType = IPv6Address

    def _makeTransport(self) -> tcp.Client:
        make: Any = _DirectClient
        client: tcp.Client = make(self)
        return client


def connector_for(
    host: Any, port: Any, factory: Any, timeout: Any, bind_address: Any, reactor: Any
) -> tcp.Connector:
    """What makes a connection; the parameters are those of C{connectTCP}."""
    family = _family(host) if type(host) is str else None
    usual = type(port) is int and 0 < port < 65536
    if bind_address is not None:
        usual = usual and type(bind_address) is tuple and _family(bind_address[0]) is family
    if family is None or not usual:
        return Connector(host, port, factory, timeout, bind_address, reactor)
    address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    return _DirectConnector(address, family, factory, timeout, bind_address, reactor)


@functools.lru_cache(maxsize=1024)
def _family(host: str) -> int | None:
    """The family of an address; L{None} for a name, and for an address with a scope."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return family
    return None


def _bound_socket(family: int, bind_address: tuple[str, int] | None) -> socket.socket:
    """A socket that does not block, bound if it shall be."""
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if bind_address is None:
        return made
    if bind_address[1] == 0:
        with contextlib.suppress(OSError):  # a kernel that does not know it: bind takes a port
            made.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
    try:
        made.bind(bind_address)
    except OSError:
        made.close()
        raise
    return made
