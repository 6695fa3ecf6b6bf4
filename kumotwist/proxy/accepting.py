"""Accepting clients on a bare socket, and what a session needs of a transport over one."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from kumotwist.proxy.descriptors import SpareDescriptor
from kumotwist.proxy.watching import READ, WRITE, WatchedSocket, Watcher

__all__ = ["ClientSocket", "Clients", "SessionProtocol"]

#: What a client says before the relay is short.
_READ = 4096
#: So many clients are accepted before others have their turn.
_ACCEPTS = 64
#: No descriptor or no memory is left.
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_DONE = Failure(ConnectionDone())
_LOST = Failure(ConnectionLost())
_ABORTED = Failure(ConnectionAborted())
_RESET = struct.pack("ii", 1, 0)


class SessionProtocol(Protocol):
    """What a client's socket calls: as much of a protocol as a session needs."""

    def makeConnection(self, transport: Any) -> None:
        """The client is connected."""

    def dataReceived(self, data: bytes) -> None:
        """It has sent something."""

    def readConnectionLost(self) -> None:
        """It will send no more."""

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""


class ClientSocket:
    """A client's connection until the relay takes it over.

    Closing and cutting are not deferred: C{connectionLost} may be called before they return.

    @param watcher: watches the socket.
    @param handle: the accepted socket.
    @param address: what accepting it told.
    @param session: the protocol.
    """

    def __init__(
        self, watcher: Watcher, handle: socket.socket, address: Any, session: SessionProtocol
    ) -> None:
        handle.setblocking(False)
        self._watcher = watcher
        self._address = address
        self._session = session
        self._unsent = b""
        self._reading = True
        self._closing = False
        self._socket: WatchedSocket | None = WatchedSocket(handle, self._ready)
        watcher.watch(self._socket, READ)

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """Whose connection it is."""
        if not isinstance(self._address, tuple):
            return UNIXAddress(None)
        kind = IPv4Address if len(self._address) == 2 else IPv6Address
        return kind("TCP", self._address[0], self._address[1])

    def write(self, data: bytes) -> None:
        """Send, now if the socket takes it."""
        if self._socket is None or self._closing:
            return
        if not self._unsent:
            try:
                sent = self._socket.handle.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # reading will tell that it is gone
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data
        self._watch()

    def pauseProducing(self) -> None:
        """Read no further."""
        self._reading = False
        self._watch()

    def resumeProducing(self) -> None:
        """Read again."""
        self._reading = True
        self._watch()

    def loseConnection(self) -> None:
        """Close when everything is sent."""
        self._closing = True
        self._reading = False
        if self._unsent:
            self._watch()
        else:
            self._finish(_DONE)

    def abortConnection(self) -> None:
        """Cut it."""
        if self._socket is not None:
            self._socket.handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._finish(_ABORTED)

    def detach(self) -> tuple[WatchedSocket, bytes]:
        """Give the socket away, with what has still to be sent on it; the session hears no more."""
        one, self._socket = self._socket, None
        assert one is not None
        unsent, self._unsent = self._unsent, b""
        return one, unsent

    def _watch(self) -> None:
        if self._socket is not None:
            events = (READ if self._reading else 0) | (WRITE if self._unsent else 0)
            self._watcher.watch(self._socket, events)

    def _finish(self, reason: Failure) -> None:
        one, self._socket = self._socket, None
        if one is not None:
            self._watcher.close(one)
            self._session.connectionLost(reason)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._unsent:
            self._send()
        if events & READ and self._reading and self._socket is not None:
            self._read(self._socket.handle)

    def _read(self, handle: socket.socket) -> None:
        try:
            data = handle.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._finish(_LOST)
            return
        if data:
            self._session.dataReceived(data)
            return
        self._reading = False
        self._watch()
        self._session.readConnectionLost()

    def _send(self) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.handle.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._finish(_LOST)
            return
        if self._closing and not self._unsent:
            self._finish(_DONE)
        else:
            self._watch()


class Clients:
    """Accepts the clients of a listening port in the reactor's place.

    @param watcher: watches the port's socket from now on, and those of the clients.
    @param port: a port that listens.
    @param spare: turns clients away when no descriptor is left.
    """

    def __init__(self, watcher: Watcher, port: Port, spare: SpareDescriptor) -> None:
        self._watcher = watcher
        self._port = port
        self._spare = spare
        port.stopReading()
        self._listener = WatchedSocket(port.socket, self._ready)
        watcher.watch(self._listener, READ)

    def stop(self) -> None:
        """Accept no more; to be called before the port is closed."""
        self._watcher.watch(self._listener, 0)
        self._spare.close()

    def _ready(self, events: int) -> None:
        listener = self._listener
        factory: Any = self._port.factory
        for _ in range(_ACCEPTS):
            if not listener.events:
                return
            try:
                handle, address = listener.handle.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._spare.turn_away(listener.handle, error)
                    return
                continue  # the client left before it was accepted
            session: SessionProtocol = factory.buildProtocol(None)
            session.makeConnection(ClientSocket(self._watcher, handle, address, session))
