"""What the sessions of one proxy have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet import interfaces
from twisted.internet.defer import Deferred

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.deadlines import Deadlines
from kumotwist.proxy.limits import SourceLimits
from kumotwist.proxy.outgoing import IDialer, IOutgoing
from kumotwist.proxy.relay import Relay
from kumotwist.proxy.rules import Rules
from kumotwist.proxy.sessionlog import SessionLog, no_method
from kumotwist.proxy.settings import ProxySettings

__all__ = ["MakeRelay", "Running", "SharedByProxy"]


#: A session that is so many seconds old is worth a time limit for each phase, and the calls that
#: switch keepalive on; at most half of each of the times that it may have.
_EARLY = 5.0


class Running(Protocol):
    """A session as its proxy sees it."""

    def abort(self, outcome: str) -> None:
        """End it now, whatever it does; C{outcome} says why."""


MakeRelay = Callable[[Any, IOutgoing, Callable[[str], None], Callable[[], None]], Relay]


@define
class SharedByProxy:
    """What all sessions of one proxy share.

    @ivar name: the proxy's name.
    @ivar title: the same as the log has it.
    @ivar settings: its settings.
    @ivar rules: who may go where.
    @ivar limits: how much may leave from one source.
    @ivar dialer: where outgoing connections come from.
    @ivar make_relay: makes the relay for a client's transport, a connected outgoing side, and what
        L{TransportRelay<kumotwist.proxy.relay.TransportRelay>} calls C{ended} and C{parted}.
    @ivar clock: drives the deadlines.
    @ivar early: the first seconds of a session, after which it is no short one.
    @ivar rest: what is left then of the time for a request.
    @ivar phases: the time for each phase before the stream and after it.
    @ivar silence: the time from then on for a stream in which nothing moves.
    @ivar turns: the time that a request beyond a limit may wait; L{None} if it may not.
    @ivar log: where the sessions leave their lines.
    @ivar source_matters: whether rules or limits ask for the source that the system would choose;
        where they do not, it is only known when the connection stands.
    @ivar resolver: for names, where they are allowed.
    @ivar checker: of logins; L{None} if there are none.
    @ivar counters: what is counted.
    @ivar sessions: those that run.
    @ivar draining: whether new requests are refused because the proxy shuts down.
    @ivar idle: fired, and forgotten, when the last session ends.
    """

    name: str
    settings: ProxySettings
    rules: Rules
    limits: SourceLimits
    dialer: IDialer
    make_relay: MakeRelay
    clock: interfaces.IReactorTime
    resolver: interfaces.IHostnameResolver
    checker: ICredentialsChecker | None = None
    counters: ProxyCounters = field(factory=ProxyCounters)
    sessions: set[Running] = field(factory=set)
    draining: bool = False
    idle: Deferred[None] | None = None
    phases: Deadlines = field(init=False)
    early: Deadlines = field(init=False)
    rest: Deadlines = field(init=False)
    silence: Deadlines = field(init=False)
    turns: Deadlines | None = field(init=False, default=None)
    log: SessionLog = field(init=False)
    source_matters: bool = field(init=False)
    title: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.title = f"[proxy:{self.name}]"
        timeout, idle = self.settings.timeout, self.settings.idle_timeout
        first = min(_EARLY, timeout / 2, idle / 2, self.settings.keepalive_time / 2)
        self.early = Deadlines(self.clock, first)
        self.rest = Deadlines(self.clock, timeout - first)
        self.phases = Deadlines(self.clock, timeout)
        self.silence = Deadlines(self.clock, idle - first)
        if self.settings.limit_wait:
            self.turns = Deadlines(self.clock, self.settings.limit_wait)
        self.log = SessionLog(self.clock)
        self.go_by(self.rules)

    def go_by(self, rules: Rules) -> None:
        """Decide by these rules from now on."""
        self.rules = rules
        self.source_matters = self.limits.limited or rules.look_at_sources

    def why_no_method(self, offered: bytes) -> str:
        """Why a client that can do these methods of authentication is turned away, in words."""
        return no_method(offered, self.checker is not None)

    def forget(self, session: Running) -> None:
        """A session has ended."""
        self.sessions.discard(session)
        if not self.sessions and self.idle is not None:
            idle, self.idle = self.idle, None
            idle.callback(None)
