"""Several proxies that lead from the same source: which one is used, and in whose place another.

Each proxy has a health of its own. One connect walks through them within one deadline: the next
one is tried as soon as the one before has failed for a reason of its own, and beside it when that
one has not got through within its share of the deadline. What the destination answers is the
answer: another proxy would hear the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectBindError, ConnectingCancelledError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.egress.health import Health
from kumotwist.egress.source_settings import ProxyServer
from kumotwist.endpoints import describe_server
from kumotwist.endpoints.errors import (
    AddressTypeNotSupportedError,
    EgressError,
    GeneralFailureError,
    NotAllowedError,
)
from kumotwist.endpoints.hops import PlannedHop

__all__ = ["EveryProxyFailedError", "FailoverEndpoint", "Proxy", "ProxyGroup"]

#: Seconds, at most, that a proxy is waited for before the next one is tried beside it.
PATIENCE = 10.0

# A working proxy's answers to one destination: they say nothing of its health.
_CHOOSY = (GeneralFailureError, NotAllowedError, AddressTypeNotSupportedError)

WayThrough = Callable[["Proxy", float], IStreamClientEndpoint]
"""Makes the way to the destination through a proxy, with a timeout in seconds."""


class EveryProxyFailedError(EgressError):
    """None of a source's proxies could be used."""


@attrs.define(eq=False)
class Proxy:
    """One of a source's proxies.

    @ivar server: where it is, as configured.
    @ivar name: the same in words for records and errors.
    @ivar health: what is known against it.
    @ivar suspensions: how often it was passed over for a while from then on.
    @ivar open_to_all: whether it has been seen to ask for no login although one is configured.
    """

    server: ProxyServer
    name: str
    health: Health = attrs.field(factory=Health)
    open_to_all: bool = False
    suspensions: int = 0


class ProxyGroup:
    """The proxies of one source.

    @param servers: where they are, the preferred one first.
    @param balanced: begin with another one each time.
    """

    def __init__(self, servers: Sequence[ProxyServer], balanced: bool = False) -> None:
        self.proxies = tuple(Proxy(server, describe_server(server)) for server in servers)
        self._balanced = balanced
        self._turn = 0

    @property
    def name(self) -> str:
        """All of them, in words."""
        return ", ".join(proxy.name for proxy in self.proxies)

    def order(self, now: float) -> list[Proxy]:
        """The proxies in the order in which a connect tries them.

        Those that are held come last, the one whose hold ends first leading. One that was held is
        tried by one connect alone until something has succeeded.
        """
        proxies = self.proxies
        if self._balanced:
            proxies = proxies[self._turn :] + proxies[: self._turn]
            self._turn = (self._turn + 1) % len(proxies)
        ready = [proxy for proxy in proxies if proxy.health.next_try(now) <= 0]
        held = [proxy for proxy in proxies if proxy.health.next_try(now) > 0]
        for number, proxy in enumerate(ready):
            if proxy.health.troubled and number == 0:
                proxy.health.begin_try("")
        return ready + sorted(held, key=lambda proxy: proxy.health.held_until)

    def suspected(self, name: str, now: float, site: str, reason: str) -> bool:
        """A connection through one of the proxies ended in silence; nobody can tell why.

        @return: whether the proxy is held now, and another one is there to be used instead.
        """
        for proxy in self.proxies:
            if proxy.name == name:
                before = proxy.health.troubled
                proxy.health.suspected(now, site, reason)
                proxy.suspensions += proxy.health.troubled and not before
        return any(not proxy.health.troubled for proxy in self.proxies)

    def asked_no_login(self, name: str) -> bool:
        """A proxy did not ask for the login that is configured.

        @return: whether that is news.
        """
        for proxy in self.proxies:
            if proxy.name == name and not proxy.open_to_all:
                proxy.open_to_all = True
                return True
        return False

    def succeeded(self, name: str) -> None:
        """A connection through one of the proxies reached a destination."""
        for proxy in self.proxies:
            if proxy.name == name:
                proxy.health = Health()


@implementer(IStreamClientEndpoint)
class FailoverEndpoint:
    """The way to a destination through one of several proxies.

    @param reactor: tells the time.
    @param timeout: seconds for everything.
    @param hop: all the proxies as one, for an error that speaks of all of them.
    """

    def __init__(
        self, reactor: Any, group: ProxyGroup, through: WayThrough, timeout: float, hop: PlannedHop
    ) -> None:
        self._reactor = reactor
        self._group = group
        self._through = through
        self._timeout = timeout
        self._hop = hop

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect (L{IStreamClientEndpoint.connect}).

        @return: fires with the factory's protocol; fails with what the destination answered, or
            with an L{EgressError} that speaks of the proxies.
        """
        proxies = self._group.order(self._reactor.seconds())
        walk = _Walk(
            self._reactor, proxies, self._through, self._timeout, self._hop, protocolFactory
        )
        return walk.begin()

    def __repr__(self) -> str:
        return f"<endpoint {self._hop}>"


class _Walk:
    """One C{connect}: ends once, by the first success, the destination's answer, or the end."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        proxies: Sequence[Proxy],
        through: WayThrough,
        timeout: float,
        hop: PlannedHop,
        factory: IProtocolFactory,
    ) -> None:
        self._reactor = reactor
        self._several = len(proxies) > 1
        self._left = list(proxies)
        self._through = through
        self._hop = hop
        self._factory = factory
        self._ends = reactor.seconds() + timeout
        self._share = min(PATIENCE, timeout / len(self._left))
        self._running: dict[Proxy, Deferred[Any]] = {}
        self._errors: list[tuple[Proxy, Exception]] = []
        self._timer: Any = None
        self._over = False
        self._result: Deferred[IProtocol] = Deferred(self._cancelled)

    def begin(self) -> Deferred[IProtocol]:
        """Try the first proxy."""
        self._try_next()
        return self._result

    def _try_next(self) -> None:
        self._timer = None
        remaining = self._ends - self._reactor.seconds()
        if remaining <= 0:
            return
        proxy = self._left.pop(0)
        if self._left:
            self._timer = self._reactor.callLater(self._share, self._try_next)
        connecting = maybeDeferred(self._connect, proxy, remaining)
        if not self._over and not connecting.called:
            self._running[proxy] = connecting
        connecting.addCallbacks(
            self._connected, self._failed, callbackArgs=(proxy,), errbackArgs=(proxy,)
        )

    def _connect(self, proxy: Proxy, timeout: float) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._through(proxy, timeout).connect(self._factory)
        return connecting

    # -- over -------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        running, self._running = self._running, {}
        for proxy, connecting in running.items():
            connecting.cancel()
            proxy.health.end_try("", self._reactor.seconds())

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        self._finish()

    def _connected(self, protocol: IProtocol, proxy: Proxy) -> None:
        self._running.pop(proxy, None)
        if self._over:
            return
        for slower in self._running:
            # It had begun earlier, and did not get there.
            why = f"{proxy.name} got through while nothing was heard of {slower.name}"
            self._note_failure(slower, why)
        if self._hop.protocol == "haproxy":
            # HAProxy has only taken the connection; what comes of it shows later.
            proxy.health.end_try("", self._reactor.seconds())
        else:
            self._note_success(proxy)
        self._finish()
        self._result.callback(protocol)

    def _failed(self, failure: Failure, proxy: Proxy) -> None:
        self._running.pop(proxy, None)
        proxy.health.end_try("", self._reactor.seconds())
        if self._over or failure.check(CancelledError, ConnectingCancelledError):
            return
        error = failure.value
        if not isinstance(error, EgressError) or not (error.ambiguous or error.blames == "proxy"):
            self._answered(failure, proxy)
            return
        if error.ambiguous:
            self._note_suspicion(proxy, error)
        elif not isinstance(error, _CHOOSY) and not isinstance(error.cause, ConnectBindError):
            self._note_failure(proxy, error.problem)
        self._errors.append((proxy, error))
        if self._left and self._reactor.seconds() < self._ends:
            if self._timer is not None:
                self._timer.cancel()
            self._try_next()
        elif not self._running:
            self._finish()
            self._result.errback(self._summary())

    def _answered(self, failure: Failure, proxy: Proxy) -> None:
        """The destination's answer, or something that no proxy can help."""
        if isinstance(failure.value, EgressError) and failure.value.blames == "destination":
            self._note_success(proxy)
        self._finish()
        self._result.errback(failure)

    def _note_failure(self, proxy: Proxy, reason: str) -> None:
        if self._several and not proxy.health.troubled:
            # The mail goes on through the others: nothing else would tell.
            self._log.warn(
                "proxy {proxy} fails and is passed over for a while: {reason}",
                proxy=proxy.name, reason=reason,
            )  # fmt: skip
            proxy.suspensions += 1
        proxy.health.failed(self._reactor.seconds(), reason)

    def _note_suspicion(self, proxy: Proxy, error: EgressError) -> None:
        """Another proxy is asked, which shows who failed; the suspicion remains if it cannot."""
        before = proxy.health.troubled
        proxy.health.suspected(self._reactor.seconds(), error.hop, error.problem)
        if self._several and proxy.health.troubled and not before:
            self._log.warn(
                "proxy {proxy} is suspected and passed over for a while: {reason}",
                proxy=proxy.name, reason=error.problem,
            )  # fmt: skip
            proxy.suspensions += 1

    def _note_success(self, proxy: Proxy) -> None:
        if self._several and proxy.health.troubled:
            self._log.info("proxy {proxy} works again", proxy=proxy.name)
        proxy.health = Health()

    def _summary(self) -> Exception:
        """One error for all: a proxy that works and refused this destination knows it best."""
        for _, error in self._errors:
            if isinstance(error, _CHOOSY) or getattr(error, "ambiguous", False):
                return error
        if len(self._errors) == 1:
            return self._errors[0][1]
        words = []
        causes = []
        for proxy, error in self._errors:
            assert isinstance(error, EgressError)
            words.append(f"{proxy.name}: {error.problem}")
            causes.append(error.cause)
        phase = getattr(self._errors[-1][1], "phase", "connect")
        # This machine's own trouble is only that if no proxy had another.
        local = all(isinstance(cause, ConnectBindError) for cause in causes)
        return EveryProxyFailedError(
            self._hop, phase, f"no proxy could be used: {'; '.join(words)}",
            causes[-1] if local else None,
        )  # fmt: skip
