"""Accepting clients on a bare socket, and what a session needs of a transport over one."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from kumotwist.proxy.descriptors import SpareDescriptor
from kumotwist.proxy.watching import ENDED, READ, WRITE, WatchedSocket, Watcher

__all__ = ["NO_WAIT", "ClientSocket", "Clients", "SessionProtocol", "make_acceptor"]

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
#: Reading and sending do not wait, whatever the socket's own mode: it saves a call for each client.
NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)


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

    @ivar accepted_from: the address; for whoever needs no object as C{getPeer} makes it.
    """

    __slots__ = (
        "_closing",
        "_reading",
        "_session",
        "_socket",
        "_unsent",
        "_watcher",
        "accepted_from",
    )

    def __init__(
        self, watcher: Watcher, handle: socket.SocketType, address: Any, session: SessionProtocol
    ) -> None:
        self._watcher = watcher
        self.accepted_from = address
        self._session = session
        self._unsent = b""
        self._reading = True
        self._closing = False
        self._socket: WatchedSocket | None = WatchedSocket(handle, self._ready)
        watcher.watch(self._socket, READ)

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """Whose connection it is."""
        address = self.accepted_from
        if not isinstance(address, tuple):
            return UNIXAddress(None)
        kind = IPv4Address if len(address) == 2 else IPv6Address
        return kind("TCP", address[0], address[1])

    def write(self, data: bytes) -> None:
        """Send, now if the socket takes it."""
        if self._socket is None or self._closing:
            return
        if not self._unsent:
            try:
                sent = self._socket.handle.send(data, NO_WAIT)
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
        del self._session  # which refers to this
        return one, unsent

    def _watch(self) -> None:
        if self._socket is not None:
            events = (READ if self._reading else 0) | (WRITE if self._unsent else 0)
            self._watcher.watch(self._socket, events)

    def _finish(self, reason: Failure) -> None:
        one, self._socket = self._socket, None
        if one is not None:
            self._watcher.close(one)
            session = self._session
            del self._session
            session.connectionLost(reason)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._unsent:
            self._send()
        one = self._socket
        if one is None or not (self._reading and events & READ):
            return
        try:
            data = one.handle.recv(_READ, NO_WAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._finish(_LOST)
            return
        if data:
            if events & ENDED or len(data) == _READ:
                self._watcher.again(one)
            self._session.dataReceived(data)
            return
        self._reading = False
        self._watch()
        self._session.readConnectionLost()

    def _send(self) -> None:
        assert self._socket is not None
        try:
            self._unsent = self._unsent[self._socket.handle.send(self._unsent, NO_WAIT) :]
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
        self._accept = make_acceptor(port.socket)
        port.stopReading()
        self._listener = WatchedSocket(port.socket, self._ready)
        watcher.watch(self._listener, READ)

    def stop(self) -> None:
        """Accept no more; to be called before the port is closed."""
        self._watcher.release(self._listener)
        self._spare.close()

    def _ready(self, events: int) -> None:
        listener, accept, watcher = self._listener, self._accept, self._watcher
        factory: Any = self._port.factory
        for _ in range(_ACCEPTS):
            if not listener.events:
                return
            try:
                handle, address = accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._spare.turn_away(self._port.socket, error)
                    break
                continue  # the client left before it was accepted
            session: SessionProtocol = factory.buildProtocol(None)
            session.makeConnection(ClientSocket(watcher, handle, address, session))
        watcher.again(listener)  # there may be more of them


def make_acceptor(listener: socket.socket) -> Callable[[], tuple[socket.SocketType, Any]]:
    """What accepts a client as a socket that does not wait.

    C{socket.accept} takes as long for its Python as for its call of the kernel; where the methods
    of the C{_socket} module can be had the Python is left out.
    """
    accept: Any = getattr(listener, "_accept", None)
    if accept is None or not NO_WAIT:

        def accept_slowly() -> tuple[socket.SocketType, Any]:
            handle, address = listener.accept()
            handle.setblocking(False)
            return handle, address

        return accept_slowly

    family, kind = int(listener.family), int(listener.type)

    def accept_fast() -> tuple[socket.SocketType, Any]:
        number, address = accept()
        try:
            return socket.SocketType(family, kind, 0, number), address
        except BaseException:
            os.close(number)
            raise

    return accept_fast
