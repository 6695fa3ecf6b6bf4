"""The outgoing side: a socket that is bound to its source when BIND asks, and connected later."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IReactorFDSet,
    IReactorSocket,
    IWriteDescriptor,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from kumotwist.settings.types import IPAddress
from kumotwist.wire.socks5.format import Address, Rep

__all__ = ["Dialer", "IDialer", "IOutgoing", "Keepalive", "describe", "rep_for"]

# Python names it from 3.12 on; the number is Linux's.
_BIND_ADDRESS_NO_PORT = (
    getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24) if sys.platform == "linux" else None
)

_REPS = {
    errno.ENETUNREACH: Rep.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Rep.HOST_UNREACHABLE,
    errno.ECONNREFUSED: Rep.CONNECTION_REFUSED,
    errno.ETIMEDOUT: Rep.TTL_EXPIRED,
}


class IOutgoing(Interface):
    """One connection to a destination, from its BIND on."""

    local = Attribute("L{Address}: what it is bound to; after C{connect} what it leaves from.")
    handle = Attribute("The L{socket.socket} once connected, or L{None} if there is none.")

    def connect(destination: Address) -> Deferred[Address]:
        """Connect; fires with C{local} as it is then, or fails with L{OSError}.

        Cancelling closes the socket at once.
        """

    def attach(protocol: IProtocol) -> None:
        """Make a transport of the connected socket for C{protocol}.

        @raise OSError: the connection is lost already.
        """

    def close() -> None:
        """Give the socket up; nothing happens if it was attached or closed before."""


class IDialer(Interface):
    """Where a proxy gets its outgoing connections from."""

    def bind(source: IPAddress, port: int) -> IOutgoing:
        """Bind a new socket; port 0 leaves the choice to the system.

        @raise OSError: the address is not this host's, or no descriptor is left, …
        """

    def source_for(destination: IPAddress) -> IPAddress:
        """The address that the system would connect from if nobody chose one.

        @raise OSError: there is no way to the destination.
        """

    def is_local(address: IPAddress) -> bool:
        """Whether an address is one of this host's."""


@define(frozen=True)
class Keepalive:
    """TCP keepalive as C{[proxy:NAME]} configures it.

    @ivar enabled: whether it is used at all.
    @ivar time: seconds of silence before the first probe.
    @ivar interval: seconds between probes.
    @ivar retries: unanswered probes before the connection is given up.
    """

    enabled: bool = True
    time: float = 300.0
    interval: float = 30.0
    retries: int = 3

    def apply(self, handle: socket.socket) -> None:
        """Set it, and TCP_NODELAY, on a TCP socket; a socket of another kind is left alone."""
        if handle.family not in (socket.AF_INET, socket.AF_INET6):
            return
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.enabled:
            return
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", max(1, int(self.time))),
            ("TCP_KEEPINTVL", max(1, int(self.interval))),
            ("TCP_KEEPCNT", self.retries),
        ):
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def rep_for(error: OSError) -> Rep:
    """The reply code that an error of connecting becomes."""
    return _REPS.get(error.errno or 0, Rep.GENERAL_FAILURE)


def describe(error: OSError) -> str:
    """An error as a log names it: C{EADDRNOTAVAIL (Cannot assign requested address)}."""
    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _address_of(sockaddr: Any) -> Address:
    return Address(ipaddress.ip_address(sockaddr[0]), sockaddr[1])


class _OneProtocol(Factory):
    """Hands out a protocol that exists already."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


@implementer(IOutgoing, IWriteDescriptor)
class _OutgoingSocket:
    """An L{IOutgoing} over a non-blocking socket that the reactor watches while it connects."""

    def __init__(self, reactor: Any, handle: socket.socket) -> None:
        self._reactor = reactor
        self._handle: socket.socket | None = handle
        self._waiting: Deferred[Address] | None = None
        self.local = _address_of(handle.getsockname())

    @property
    def handle(self) -> socket.socket | None:
        return self._handle

    def connect(self, destination: Address) -> Deferred[Address]:
        assert self._handle is not None
        waiting: Deferred[Address] = Deferred(lambda _: self.close())
        self._waiting = waiting
        error = self._handle.connect_ex((str(destination.host), destination.port))
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            IReactorFDSet(self._reactor).addWriter(self)
        else:
            self._settle(error)
        return waiting

    def attach(self, protocol: IProtocol) -> None:
        handle, self._handle = self._handle, None
        assert handle is not None
        with handle:  # the transport has a descriptor of its own
            factory: Any = _OneProtocol(protocol)
            IReactorSocket(self._reactor).adoptStreamConnection(
                handle.fileno(), handle.family, factory
            )

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is None:
            return
        if self._waiting is not None:
            self._waiting = None
            IReactorFDSet(self._reactor).removeWriter(self)
        handle.close()

    def _settle(self, error: int) -> None:
        """The connection stands, or C{error} says why it does not."""
        waiting, self._waiting = self._waiting, None
        handle = self._handle
        if waiting is None or handle is None:
            return
        IReactorFDSet(self._reactor).removeWriter(self)
        if not error:
            try:
                self.local = _address_of(handle.getsockname())
            except OSError as lost:
                error = lost.errno or errno.ECONNRESET
        if error:
            self.close()
            waiting.errback(Failure(OSError(error, os.strerror(error))))
        else:
            waiting.callback(self.local)

    def _pending_error(self) -> int:
        if self._handle is None:
            return 0
        return self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    # -- IWriteDescriptor: how the reactor tells that connecting is over -------------------------

    def fileno(self) -> int:
        return -1 if self._handle is None else self._handle.fileno()

    def doWrite(self) -> None:
        self._settle(self._pending_error())

    def connectionLost(self, reason: Failure) -> None:
        self._settle(self._pending_error() or errno.ECONNRESET)

    def logPrefix(self) -> str:
        return "KumoProxy"


@implementer(IDialer)
class Dialer:
    """Real sockets.

    @param reactor: provides L{IReactorFDSet} and L{IReactorSocket}.
    @param keepalive: for the outgoing connections.
    """

    def __init__(self, reactor: Any, keepalive: Keepalive) -> None:
        self._reactor = reactor
        self._keepalive = keepalive

    def bind(self, source: IPAddress, port: int) -> IOutgoing:
        if source.is_multicast or source.packed == b"\xff\xff\xff\xff":
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        handle = socket.socket(_family(source), socket.SOCK_STREAM)
        try:
            handle.setblocking(False)
            self._keepalive.apply(handle)
            if port:
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            elif _BIND_ADDRESS_NO_PORT is not None:
                # The port is then chosen when connecting, and only has to be free for that
                # destination: a source does not run out after 28,000 connections to many.
                _set_if_known(handle, socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT)
            handle.bind((str(source), port))
            return _OutgoingSocket(self._reactor, handle)
        except BaseException:
            handle.close()
            raise

    def source_for(self, destination: IPAddress) -> IPAddress:
        # Connecting a datagram socket sends nothing; the system only looks up the route.
        with socket.socket(_family(destination), socket.SOCK_DGRAM) as probe:
            probe.connect((str(destination), 9))
            return ipaddress.ip_address(probe.getsockname()[0])

    def is_local(self, address: IPAddress) -> bool:
        try:
            with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
                probe.bind((str(address), 0))
        except OSError:
            return False
        return True


def _set_if_known(handle: socket.socket, level: int, option: int) -> None:
    """Switch an option on that an old system may not know."""
    try:
        handle.setsockopt(level, option, 1)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP):
            raise
