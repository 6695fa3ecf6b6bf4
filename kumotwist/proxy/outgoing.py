"""The outgoing side: a socket that is bound to its source when BIND asks, and connected later."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IReactorSocket
from twisted.internet.protocol import Factory
from zope.interface import Attribute, Interface, implementer

from kumotwist.proxy.watching import BROKEN, WRITE, WatchedSocket, Watcher
from kumotwist.settings.types import IPAddress
from kumotwist.wire.socks5.format import Address, Rep

__all__ = [
    "Dialer",
    "IDialer",
    "IOutgoing",
    "Keepalive",
    "describe",
    "ip_of",
    "read_ip",
    "rep_for",
]

# Python names it from 3.12 on; the number is Linux's.
_BIND_ADDRESS_NO_PORT = (
    getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24) if sys.platform == "linux" else None
)

_IPV4, _IPV6 = socket.AF_INET, socket.AF_INET6
_NOWHERE4 = Address(ipaddress.IPv4Address("0.0.0.0"), 0)
_NOWHERE6 = Address(ipaddress.IPv6Address("::"), 0)
_ANYWHERE = ("0.0.0.0", "::")
_TCP, _NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY

_NO_WAIT = getattr(socket, "SOCK_NONBLOCK", 0)
_STREAM = socket.SOCK_STREAM | _NO_WAIT

_REPS = {
    errno.ENETUNREACH: Rep.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Rep.HOST_UNREACHABLE,
    errno.ECONNREFUSED: Rep.CONNECTION_REFUSED,
    # It accepted and hung up before we could say so: the destination's doing, not the proxy's.
    errno.ECONNRESET: Rep.CONNECTION_REFUSED,
    errno.EPIPE: Rep.CONNECTION_REFUSED,
    errno.ETIMEDOUT: Rep.TTL_EXPIRED,
}


class IOutgoing(Interface):
    """One connection to a destination, from its BIND on."""

    local = Attribute("L{Address}: what it is bound to; after C{connect} what it leaves from.")

    def connect(destination: Address, done: Callable[[OSError | None], None]) -> None:
        """Connect.

        @param done: called once, possibly before this returns, with L{None} when the connection
            stands and C{local} is what it leaves from, else with the error. It is not called any
            more after C{close}.
        """

    def attach(protocol: IProtocol) -> None:
        """Make a transport of the connected socket for C{protocol}.

        @raise OSError: the connection is lost already.
        """

    def detach() -> WatchedSocket:
        """Give the connected socket away; it may still be watched."""

    def keep_alive() -> None:
        """Have TCP keepalive watch the connection from now on, whoever has the socket."""

    def close() -> None:
        """Give the socket up; nothing happens if it was given away or closed before."""


class IDialer(Interface):
    """Where a proxy gets its outgoing connections from."""

    def bind(local: Address) -> IOutgoing:
        """Bind a new socket to an IP address; port 0 leaves the choice to the system, and so does
        the address 0.0.0.0 or C{::}.

        @raise OSError: the address is not this host's, or no descriptor is left, …
        """

    def open(destination: Address) -> IOutgoing:
        """A new socket for a destination, an IP address; the system chooses the source.

        @raise OSError: no descriptor is left, …
        """

    def source_for(destination: IPAddress) -> IPAddress:
        """The address that the system would connect from if nobody chose one.

        @raise OSError: there is no way to the destination.
        """

    def is_local(address: IPAddress) -> bool:
        """Whether an address is one of this host's."""


class Keepalive:
    """TCP keepalive as C{[proxy:NAME]} configures it.

    @param enabled: whether it is used at all.
    @param time: seconds of silence before the first probe.
    @param interval: seconds between probes.
    @param retries: unanswered probes before the connection is given up.
    """

    def __init__(
        self,
        enabled: bool = True,
        time: float = 300.0,
        interval: float = 30.0,
        retries: int = 3,
    ) -> None:
        self._options: list[tuple[int, int, int]] = []
        if enabled:
            # The time comes behind the switch: Linux then counts it from the last octets, however
            # late both are set.
            self._options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
            self._options += [
                (socket.IPPROTO_TCP, getattr(socket, name), value)
                for name, value in (
                    ("TCP_KEEPIDLE", max(1, int(time))),
                    ("TCP_KEEPINTVL", max(1, int(interval))),
                    ("TCP_KEEPCNT", retries),
                )
                if hasattr(socket, name)
            ]

    def apply(self, handle: socket.SocketType) -> None:
        """Set it on a TCP socket."""
        for level, option, value in self._options:
            handle.setsockopt(level, option, value)


def rep_for(error: OSError) -> Rep:
    """The reply code that an error of connecting becomes."""
    return _REPS.get(error.errno or 0, Rep.GENERAL_FAILURE)


def describe(error: OSError) -> str:
    """An error as a log names it: C{EADDRNOTAVAIL (Cannot assign requested address)}."""
    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)} ({os.strerror(number)})"


def _family(address: IPAddress) -> socket.AddressFamily:
    return _IPV4 if isinstance(address, ipaddress.IPv4Address) else _IPV6


#: Reads an address that a socket has; there are few, and reading one takes as long as a call.
read_ip: Callable[[str], IPAddress] = lru_cache(4096)(ipaddress.ip_address)


def ip_of(address: Address) -> IPAddress:
    """The IP address of a socket's name, which is never a host name."""
    assert not isinstance(address.host, str)
    return address.host


def _address_of(sockaddr: Any) -> Address:
    address = Address(read_ip(sockaddr[0]), sockaddr[1])
    address.sockaddr = sockaddr[:2]  # which it need not make then
    return address


def _new_socket(family: int) -> socket.SocketType:
    """A socket that does not wait and holds nothing back."""
    handle = socket.SocketType(family, _STREAM, 0)
    if not _NO_WAIT:
        handle.setblocking(False)
    handle.setsockopt(_TCP, _NODELAY, 1)
    return handle


class _OneProtocol(Factory):
    """Hands out a protocol that exists already."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._protocol


@implementer(IOutgoing)
class _OutgoingSocket:
    """An L{IOutgoing} over a non-blocking socket that is watched while it connects."""

    __slots__ = ("_dialer", "_done", "_handle", "_socket", "local")

    def __init__(self, dialer: Dialer, handle: socket.SocketType, local: Address) -> None:
        self._dialer = dialer
        self._handle = handle
        self._socket: WatchedSocket | None = WatchedSocket(handle, self._ready)
        self._done: Callable[[OSError | None], None] | None = None
        self.local = local

    def connect(self, destination: Address, done: Callable[[OSError | None], None]) -> None:
        assert self._socket is not None
        assert not isinstance(destination.host, str)
        self._done = done
        error = self._handle.connect_ex(destination.sockaddr)
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._dialer.watcher.watch(self._socket, WRITE)
        else:
            self._settle(error)

    def attach(self, protocol: IProtocol) -> None:
        one = self.detach()
        self._dialer.watcher.release(one)
        try:  # the transport has a descriptor of its own, of the same connection
            self.keep_alive()
            factory: Any = _OneProtocol(protocol)
            IReactorSocket(self._dialer.reactor).adoptStreamConnection(
                one.number, socket.AddressFamily(one.handle.family), factory
            )
        finally:
            one.handle.close()

    def detach(self) -> WatchedSocket:
        one, self._socket = self._socket, None
        assert one is not None
        return one

    def keep_alive(self) -> None:
        with contextlib.suppress(OSError):  # it is lost or closed, and whoever has it will hear
            self._dialer.keepalive.apply(self._handle)

    def close(self) -> None:
        one, self._socket = self._socket, None
        if one is not None:
            self._done = None
            self._dialer.watcher.close(one)

    def _ready(self, events: int) -> None:
        if self._socket is None:
            return
        error = 0
        if events & BROKEN:
            error = self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._settle(error)

    def _settle(self, error: int) -> None:
        """The connection stands, or C{error} says why it does not."""
        done, self._done = self._done, None
        if done is None or self._socket is None:
            return
        if not error:
            try:
                self.local = _address_of(self._handle.getsockname())
            except OSError as lost:
                error = lost.errno or errno.ECONNRESET
        if error:
            self.close()
            done(OSError(error, os.strerror(error)))
        else:
            done(None)


@implementer(IDialer)
class Dialer:
    """Real sockets.

    @param reactor: provides L{IReactorSocket}, for those that become transports.
    @param watcher: watches the sockets.
    @param keepalive: for the outgoing connections that last.
    """

    def __init__(self, reactor: Any, watcher: Watcher, keepalive: Keepalive) -> None:
        self.reactor = reactor
        self.watcher = watcher
        self.keepalive = keepalive

    def bind(self, local: Address) -> IOutgoing:
        text, port = local.sockaddr
        chosen = port or text not in _ANYWHERE
        if chosen and not _can_be_source(text):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        handle = _new_socket(_family(ip_of(local)))
        try:
            if chosen:
                self._bind(handle, local)
                if _BIND_ADDRESS_NO_PORT is None:
                    local = _address_of(handle.getsockname())
            return _OutgoingSocket(self, handle, local)
        except BaseException:
            handle.close()
            raise

    def open(self, destination: Address) -> IOutgoing:
        if isinstance(destination.host, ipaddress.IPv4Address):
            return _OutgoingSocket(self, _new_socket(_IPV4), _NOWHERE4)
        return _OutgoingSocket(self, _new_socket(_IPV6), _NOWHERE6)

    def _bind(self, handle: socket.SocketType, local: Address) -> None:
        if local.port:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif _BIND_ADDRESS_NO_PORT is not None:
            # The port is then chosen when connecting, and only has to be free for that
            # destination: a source does not run out after 28,000 connections to many.
            _set_if_known(handle, socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT)
        handle.bind(local.sockaddr)

    def source_for(self, destination: IPAddress) -> IPAddress:
        # Connecting a datagram socket sends nothing; the system only looks up the route.
        with socket.socket(_family(destination), socket.SOCK_DGRAM) as probe:
            probe.connect((str(destination), 9))
            return read_ip(probe.getsockname()[0])

    def is_local(self, address: IPAddress) -> bool:
        try:
            with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
                probe.bind((str(address), 0))
        except OSError:
            return False
        return True


@lru_cache(4096)
def _can_be_source(text: str) -> bool:
    """Whether connections can come from an address, as far as it says itself."""
    address = ipaddress.ip_address(text)
    return not (address.is_multicast or address.packed == b"\xff\xff\xff\xff")


def _set_if_known(handle: socket.SocketType, level: int, option: int) -> None:
    """Switch an option on that an old system may not know."""
    try:
        handle.setsockopt(level, option, 1)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL, errno.EOPNOTSUPP):
            raise
