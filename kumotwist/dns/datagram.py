"""A UDP socket for one query."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.settings.types import HostPort

__all__ = ["DatagramSocket", "OpenSocket", "open_socket"]

OpenSocket = Callable[[socket.AddressFamily], Any]

_LARGEST = 4096
#: So many datagrams are read before others get their turn.
_READS = 16


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """Open a UDP socket that does not block; the kernel gives it a random port."""
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setblocking(False)
    return opened


@implementer(IReadDescriptor)
class DatagramSocket:
    """A socket that is connected to one server and takes datagrams from nobody else.

    Not C{listenUDP}: a port of Twisted's logs two lines in its life, and under epoll it takes the
    refusal of a connected peer for an orderly end, which makes a name server that is down look
    like one that is slow.
    """

    def __init__(
        self,
        reactor: Any,
        server: HostPort,
        received: Callable[[bytes], object],
        failed: Callable[[str], object],
        opener: OpenSocket = open_socket,
    ) -> None:
        """@param reactor: provides C{IReactorFDSet}.
        @param server: an IP address and a port.
        @param received: is called with each datagram.
        @param failed: is called when the server cannot be reached, with words that say why.
        @param opener: opens the socket.
        @raise OSError: if that is not possible, or there is no way to the server.
        """
        self._reactor = reactor
        self._received = received
        self._failed = failed
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self._socket: Any = opener(family)
        try:
            self._socket.connect((server.host, server.port))
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def send(self, datagram: bytes) -> None:
        """Send a datagram.

        @raise OSError: if it cannot leave.
        """
        self._socket.send(datagram)

    def close(self) -> None:
        """Close the socket; nothing is called any more."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            closing, self._socket = self._socket, None
            closing.close()

    # -- IReadDescriptor, for the reactor ------------------------------------------------------

    def fileno(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return -1 if self._socket is None else int(self._socket.fileno())

    def logPrefix(self) -> str:
        """What the reactor calls it."""
        return "DNS"

    def doRead(self) -> None:
        """Hand over what has arrived."""
        for _ in range(_READS):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error.strerror or "error")
                return
            self._received(datagram)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw an error on the socket: the server's host refuses datagrams."""
        if self._socket is not None:
            self.doRead()
        if self._socket is not None:
            self._failed("unreachable")
