"""What a process that delivers mail has in common with the other processes of its node."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from zope.interface import implementer

from kumotwist.egress.health import Hold
from kumotwist.interfaces import ILimits, ITrace
from kumotwist.journal.trace import TraceEvent
from kumotwist.service.listening import socket_address

__all__ = ["ForwardedTrace", "SharedPort", "Sharing"]


@attrs.define(frozen=True)
class Sharing:
    """A node's process as one of several.

    @ivar worker: its number, from 1.
    @ivar workers: how many there are.
    @ivar limits: the node's.
    @ivar trace: where events go.
    @ivar sockets: descriptors of sockets that listen already, by what they are for.
    @ivar tell: told why no mail is taken (empty if it is) whenever that changes, and how many
        messages the spool had, L{None} until that is known.
    @ivar tell_source: told what is found out of the health of a source, see L{SourceHealth}.
    @ivar informed: fires when the process knows the node's orders: no mail moves before.
    """

    worker: int
    workers: int
    limits: ILimits
    trace: ITrace
    sockets: Mapping[str, int] = attrs.field(factory=dict)
    tell: Callable[[str, int | None], None] = lambda reason, waiting: None
    tell_source: Callable[[str, Hold | None], None] = lambda source, hold: None
    informed: Deferred[None] = attrs.field(factory=lambda: succeed(None))


class SharedPort(Service):
    """Accepts connections from a socket that several processes listen on.

    @param descriptor: the socket, which another process has bound; it is closed here.
    """

    def __init__(self, reactor: Any, descriptor: int, factory: Any) -> None:
        self._reactor = reactor
        self._descriptor = descriptor
        self._factory = factory
        self._port: IListeningPort | None = None

    @property
    def socket_address(self) -> tuple[str, int] | None:
        """The IP address and the port; L{None} while it does not listen on any."""
        return socket_address(self._port)

    def startService(self) -> None:
        """Accept connections."""
        super().startService()  # type: ignore[no-untyped-call]
        with socket.socket(fileno=os.dup(self._descriptor)) as handle:
            family = handle.family
        self._port = self._reactor.adoptStreamPort(self._descriptor, family, self._factory)
        os.close(self._descriptor)
        _accept_one_by_one(self._port)

    def stopService(self) -> Deferred[None]:
        """Accept no more; the other processes go on."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        stopping: Deferred[None] = maybeDeferred(cast("Any", port).stopListening)
        return stopping


def _accept_one_by_one(port: Any) -> None:
    """Have a port take one connection in each turn of the reactor.

    It would take all that wait, up to a hundred: whoever comes first then has all clients of a
    burst, for as long as they stay, and the other processes have none.
    """
    accept = port.doRead

    def accept_one() -> None:
        port.numberAccepts = 1
        accept()

    port.doRead = accept_one


@implementer(ITrace)
class ForwardedTrace:
    """Hands events to the process where the watchers are.

    @param seconds: dates the events.
    @param send: carries an event.
    @ivar watched: whether anybody watches there.
    """

    def __init__(self, seconds: Callable[[], float], send: Callable[[TraceEvent], None]) -> None:
        self.watched = False
        self._seconds = seconds
        self._send = send

    def emit(self, event: str, message_ids: Any, **facts: Any) -> None:
        """Tell the watchers."""
        if self.watched:
            self._send(TraceEvent(self._seconds(), event, tuple(message_ids), facts))
