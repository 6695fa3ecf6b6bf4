"""A KumoProxy without sockets: its service, clients of it, and destinations that obey a test."""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import EventLoggingObserver, MemoryReactorClock, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from kumotwist.proxy import ProxyRuleSettings, ProxyService, ProxySettings
from kumotwist.proxy.outgoing import IDialer, IOutgoing
from kumotwist.proxy.watching import WatchedSocket
from kumotwist.settings.types import NETWORKS, PORTS, IPAddress
from kumotwist.wire.socks5.format import Address

__all__ = [
    "BIND",
    "BOUND",
    "CONNECT",
    "GREETING",
    "Client",
    "ObedientDialer",
    "ObedientOutgoing",
    "ObedientTransport",
    "ProxyCase",
    "connect_to",
    "login",
    "refusal",
    "rule",
]

GREETING = b"\x05\x01\x00"
BIND = b"\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x00"  # 127.0.0.2, any port
BOUND = b"\x05\x00\x00\x01\x7f\x00\x00\x02\x00\x00"  # the reply to BIND
CONNECT = b"\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"  # 192.0.2.25:25
SOURCE = ipaddress.ip_address("127.0.0.2")
DEFAULT_SOURCE = ipaddress.ip_address("10.0.0.1")
DEFAULT_SOURCE6 = ipaddress.ip_address("2001:db8::1")


def refusal(rep: int) -> bytes:
    """The reply that says C{rep}."""
    return bytes((5, rep, 0, 1, 0, 0, 0, 0, 0, 0))


def login(username: bytes, password: bytes) -> bytes:
    """The octets of a login."""
    return bytes((1, len(username))) + username + bytes((len(password),)) + password


def connect_to(address: str, port: int = 25) -> bytes:
    """The octets of a CONNECT."""
    packed = ipaddress.ip_address(address).packed
    kind = b"\x01" if len(packed) == 4 else b"\x04"
    return b"\x05\x01\x00" + kind + packed + port.to_bytes(2, "big")


def rule(action: str, **texts: str) -> ProxyRuleSettings:
    """A rule as a file would write it."""
    values: dict[str, Any] = {}
    for key, text in texts.items():
        if key == "proxy":
            values[key] = text
        elif key == "users":
            values[key] = tuple(text.split(","))
        else:
            values[key] = (PORTS if key == "ports" else NETWORKS).parse(text)
    return ProxyRuleSettings(action=action, **values)


class ObedientTransport(StringTransport):
    """A transport that remembers how its ends were closed."""

    protocol: Any = None
    write_closed = False
    aborted = False

    def loseWriteConnection(self) -> None:
        """Close the writing direction."""
        self.write_closed = True

    def abortConnection(self) -> None:
        """Cut it."""
        self.aborted = True
        super().abortConnection()

    def lose(self, reason: Exception | None = None) -> None:
        """Tell the protocol that the connection is gone, as the reactor would."""
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def taken(self) -> bytes:
        """What was written since the last look."""
        written: bytes = self.value()
        self.clear()
        return written


@implementer(IOutgoing)
class ObedientOutgoing:
    """An outgoing side that connects when the test says so."""

    def __init__(self, local: Address) -> None:
        self.local = local
        self.destination: Address | None = None
        self.waiting: Callable[[OSError | None], None] | None = None
        self.cancelled = False
        self.closed = False
        self.lost_before_attach = False
        self.kept_alive = False
        self.transport = ObedientTransport()

    def connect(self, destination: Address, done: Callable[[OSError | None], None]) -> None:
        """Wait for C{succeed} or C{fail}."""
        self.destination = destination
        self.waiting = done

    def attach(self, protocol: IProtocol) -> None:
        """Connect the protocol to this object's transport."""
        if self.lost_before_attach:
            raise OSError(errno.ENOTCONN, "not connected")
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def detach(self) -> WatchedSocket:
        """There is no socket."""
        raise NotImplementedError

    def keep_alive(self) -> None:
        """Note it."""
        self.kept_alive = True

    def close(self) -> None:
        """Note it; while connecting it cancels that."""
        self.closed = True
        if self.waiting is not None:
            self.cancelled = True
            self.waiting = None

    def _done(self, error: OSError | None) -> None:
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        waiting(error)

    def succeed(self, port: int = 40000) -> None:
        """The destination accepts."""
        assert not isinstance(self.local.host, str)
        host = self.local.host
        if host.is_unspecified:
            host = DEFAULT_SOURCE if host.version == 4 else DEFAULT_SOURCE6
        self.local = Address(host, port)
        self._done(None)

    def fail(self, number: int) -> None:
        """Connecting fails with an errno."""
        self._done(OSError(number, os.strerror(number)))


@implementer(IDialer)
class ObedientDialer:
    """Owns some addresses and reaches everything.

    @ivar owned: the addresses that can be bound.
    @ivar made: every outgoing side so far.
    @ivar unreachable: an errno, if there is no way anywhere.
    @ivar bind_error: what binding an address that is not owned ends with.
    """

    def __init__(self) -> None:
        self.owned: set[IPAddress] = {
            SOURCE,
            DEFAULT_SOURCE,
            DEFAULT_SOURCE6,
            ipaddress.ip_address("0.0.0.0"),
            ipaddress.ip_address("::"),
        }
        self.made: list[ObedientOutgoing] = []
        self.unreachable: int | None = None
        self.bind_error = errno.EADDRNOTAVAIL

    def bind(self, local: Address) -> IOutgoing:
        """Bind an owned address."""
        if local.host not in self.owned:
            raise OSError(self.bind_error, os.strerror(self.bind_error))
        outgoing = ObedientOutgoing(local)
        self.made.append(outgoing)
        return outgoing

    def open(self, destination: Address) -> IOutgoing:
        """Make another one, bound to nothing."""
        assert not isinstance(destination.host, str)
        version = destination.host.version
        return self.bind(Address(ipaddress.ip_address("0.0.0.0" if version == 4 else "::"), 0))

    def source_for(self, destination: IPAddress) -> IPAddress:
        """10.0.0.1 or 2001:db8::1."""
        if self.unreachable is not None:
            raise OSError(self.unreachable, os.strerror(self.unreachable))
        return DEFAULT_SOURCE if destination.version == 4 else DEFAULT_SOURCE6

    def is_local(self, address: IPAddress) -> bool:
        """Whether it is owned."""
        return address in self.owned


class Client:
    """A client's connection to the proxy."""

    def __init__(self, protocol: Any, address: str, port: int = 5555) -> None:
        kind = IPv6Address if ":" in address else IPv4Address
        self.transport = ObedientTransport(peerAddress=kind("TCP", address, port))
        self.protocol = self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def say(self, *pieces: bytes) -> bytes:
        """Send pieces, each a segment; return what the proxy answered."""
        for piece in pieces:
            self.protocol.dataReceived(piece)
        return self.transport.taken()


class ProxyCase(TestCase):
    """A test case with a proxy."""

    def setUp(self) -> None:
        """Watch the log."""
        self.reactor: Any = MemoryReactorClock()
        self.dialer = ObedientDialer()
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)

    def start(
        self,
        rules: Sequence[tuple[str, ProxyRuleSettings]] = (),
        checker: ICredentialsChecker | None = None,
        pages: Callable[[], Sequence[tuple[str, int]]] = tuple,
        **settings: Any,
    ) -> ProxyService:
        """Start a proxy at port 5000."""
        self.service = ProxyService(
            self.reactor,
            "main",
            ProxySettings(listen="tcp:5000", **settings),
            rules,
            checker,
            dialer=self.dialer,
            pages=pages,
        )
        self.service.startService()
        return self.service

    def client(self, address: str = "198.51.100.7") -> Client:
        """Connect a client."""
        factory = self.reactor.tcpServers[-1][1]
        return Client(factory.buildProtocol(None), address)

    def relaying(self) -> tuple[Client, ObedientOutgoing]:
        """A client whose destination is connected."""
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        outgoing = self.dialer.made[-1]
        outgoing.succeed()
        client.transport.clear()
        return client, outgoing

    def lines(self) -> list[dict[str, Any]]:
        """What the log says of ended sessions."""
        return [session for event in self.observer for session in event.get("sessions", ())]

    def outcome(self) -> str:
        """How the only session ended."""
        [line] = self.lines()
        return str(line["outcome"])
