"""Short sessions through KumoProxy, over socket pairs: one process, no network, no port.

What accepts clients and what connects to destinations is the test's: the count is of the session,
its rules, limits and deadlines, its relay and the watching of its sockets.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from benchmarks.counting import Meter
from kumotwist.proxy import ProxyRuleSettings, ProxySettings
from kumotwist.proxy.accepting import ClientSocket
from kumotwist.proxy.limits import SourceLimits
from kumotwist.proxy.outgoing import IDialer, IOutgoing
from kumotwist.proxy.relay import Relay
from kumotwist.proxy.rules import Rules
from kumotwist.proxy.session import ProxySession
from kumotwist.proxy.shared import SharedByProxy
from kumotwist.proxy.splice import SpliceRelay
from kumotwist.proxy.watching import READ, EpollWatcher, WatchedSocket
from kumotwist.settings.types import NETWORKS, PORTS, IPAddress
from kumotwist.wire.socks5.format import Address

__all__ = ["REQUESTS", "WayThroughProxy"]

_GREETING = b"\x05\x01\x00"
_BIND = b"\x05\x02\x00\x01\xcb\x00\x71\x07\x00\x00"
_CONNECT = b"\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"
_BANNER = b"220 mx.example ESMTP\r\n"
_CLIENT = ("198.51.100.1", 40000)
_LEAVES_FROM = Address(ipaddress.IPv4Address("203.0.113.7"), 40000)
_SESSIONS = 20

#: What a client may ask for, by the name of the way.
REQUESTS = {
    "proxy: a session, CONNECT": (_GREETING, _CONNECT),
    "proxy: a session, BIND and CONNECT": (_GREETING, _BIND, _CONNECT),
}


@implementer(IOutgoing)
class _Paired:
    """An outgoing side that is connected as soon as it is asked."""

    __slots__ = ("_one", "_watcher", "far", "local")

    def __init__(self, watcher: EpollWatcher, local: Address) -> None:
        self.far, near = socket.socketpair()
        self._watcher = watcher
        self._one = WatchedSocket(near, self._ready)
        self.local = local

    def _ready(self, events: int) -> None:
        """Nothing: it is given away before anything happens."""

    def connect(self, destination: Address, done: Callable[[OSError | None], None]) -> None:
        self._watcher.watch(self._one, READ)
        self.local = _LEAVES_FROM
        done(None)

    def attach(self, protocol: Any) -> None:
        raise NotImplementedError

    def detach(self) -> WatchedSocket:
        return self._one

    def keep_alive(self) -> None:
        """There is no TCP."""

    def close(self) -> None:
        self._watcher.close(self._one)


@implementer(IDialer)
class _Pairs:
    """Reaches everything.

    @ivar made: what was connected since somebody took them.
    """

    def __init__(self, watcher: EpollWatcher) -> None:
        self._watcher = watcher
        self.made: list[_Paired] = []

    def bind(self, local: Address) -> IOutgoing:
        self.made.append(_Paired(self._watcher, local))
        return self.made[-1]

    def open(self, destination: Address) -> IOutgoing:
        return self.bind(_LEAVES_FROM)

    def source_for(self, destination: IPAddress) -> IPAddress:
        raise NotImplementedError

    def is_local(self, address: IPAddress) -> bool:
        return False


class WayThroughProxy:
    """A L{Way<benchmarks.counting.Way>} of sessions that read a banner and the end.

    @param name: one of L{REQUESTS}.
    """

    messages = _SESSIONS

    def __init__(self, name: str) -> None:
        self.name = name
        self._requests = REQUESTS[name]
        reactor: Any = MemoryReactorClock()
        self._reactor = reactor
        self._watcher = EpollWatcher(reactor)
        self._pairs = _Pairs(self._watcher)
        rule = ProxyRuleSettings(
            destinations=NETWORKS.parse("192.0.2.0/24"), ports=PORTS.parse("25"), action="allow"
        )
        self._shared = SharedByProxy(
            name="bench",
            settings=ProxySettings(listen="tcp:5000"),
            rules=Rules([("bench", rule)]),
            limits=SourceLimits(reactor),
            dialer=self._pairs,
            make_relay=self._make_relay,
            clock=reactor,
            resolver=reactor,
        )

    def _make_relay(
        self,
        client: Any,
        outgoing: IOutgoing,
        ended: Callable[[str], None],
        parted: Callable[[], None],
    ) -> Relay:
        seconds, counters = self._reactor.seconds, self._shared.counters
        return SpliceRelay(seconds, self._watcher, client, outgoing, counters, None, ended, parted)

    def round(self, meter: Meter) -> None:
        """Sessions side by side: each step is done for all, then the proxy has its turn."""
        clients = []
        for _ in range(_SESSIONS):
            client, near = socket.socketpair()
            clients.append(client)
            meter.begin()
            session = ProxySession(self._shared)
            session.makeConnection(ClientSocket(self._watcher, near, _CLIENT, session))  # type: ignore[arg-type]
            meter.end()
        for request in self._requests:
            for client in clients:
                client.send(request)
            self._turn(meter)
            for client in clients:
                assert client.recv(100)[:1] == b"\x05"
        made, self._pairs.made = self._pairs.made, []
        for one in made:
            one.far.send(_BANNER)
            one.far.close()
        self._turn(meter)
        for client in clients:
            assert client.recv(100) == _BANNER
            client.close()
        self._turn(meter)
        assert not self._shared.sessions
        self._shared.log.flush()

    def _turn(self, meter: Meter) -> None:
        meter.begin()
        self._watcher.doRead()
        meter.end()
