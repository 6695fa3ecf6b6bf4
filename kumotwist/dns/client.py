"""Answers for everybody who asks: from the cache, from a look-up under way, or from a server."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from kumotwist.dns.answers import Answer, Question
from kumotwist.dns.cache import ExpiringCache
from kumotwist.dns.datagram import OpenSocket, open_socket
from kumotwist.dns.errors import DNSError
from kumotwist.dns.exchange import Exchange, SocketCount
from kumotwist.dns.turns import Ticket, Turns
from kumotwist.settings.types import HostPort, IPNetwork

__all__ = ["Asker", "DNSClient"]

_CACHE_SIZE = 32768
#: So many look-ups at once; the others wait for their turn. One that waits costs a socket.
_CONCURRENCY = 512
#: A look-up has a second socket only while fewer than this are open.
_SOCKETS = 512
#: Seconds for which a question that was not answered gives way to others: longer than the usual
#: pause between two attempts.
_LATE_FOR = 86400.0
#: A failure is remembered for a moment, so that a broken domain is not asked for again by
#: every message that goes there (RFC 9520, 3.2).
_FAILURE_TTL = 5.0
#: Aliases that are followed where the server does not do it; dnspython's bound is the same.
_MAX_ALIASES = 16


class Asker(Protocol):
    """Whatever can be asked: the real client, or a fake one."""

    def ask(self, question: Question, whose: str = "") -> Deferred[Answer]:
        """Fires with the answer; fails with L{DNSError}."""


class DNSClient:
    """Asks name servers, remembers what they said, and asks the same question only once at a
    time."""

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[HostPort],
        timeout: float,
        opener: OpenSocket = open_socket,
        trusted: Iterable[IPNetwork] = (),
    ) -> None:
        """@param reactor: provides C{IReactorTime}, C{IReactorFDSet} and C{IReactorTCP}.
        @param servers: at least one.
        @param timeout: seconds for one look-up.
        @param opener: opens UDP sockets.
        @param trusted: where the servers are that validate DNSSEC and are believed.
        """
        self._reactor = reactor
        self._servers = list(servers)
        self._timeout = timeout
        self._opener = opener
        networks = tuple(trusted)
        self._trusted = frozenset(
            server
            for server in self._servers
            if any(ipaddress.ip_address(server.host) in network for network in networks)
        )
        self._cache: ExpiringCache[Answer | DNSError] = ExpiringCache(_CACHE_SIZE, reactor.seconds)
        self._failed_lately: ExpiringCache[bool] = ExpiringCache(_CACHE_SIZE, reactor.seconds)
        self._turns = Turns(_CONCURRENCY)
        self._sockets = SocketCount(_SOCKETS)
        self._under_way: dict[Question, _Lookup] = {}
        self._heard_at = float("-inf")

    def ask(self, question: Question, whose: str = "") -> Deferred[Answer]:
        """Look a name up.

        @param whose: who takes turns with others where many ask; see L{kumotwist.dns.turns}.
        @return: fires with the answer; fails with L{DNSError}. Cancelling it ends the look-up if
            nobody else waits for it.
        """
        known = self._cache.get(question)
        if isinstance(known, Answer):
            return succeed(known)
        if known is not None:
            return fail(
                DNSError(
                    known.domain,
                    known.text,
                    permanent=known.permanent,
                    unanswered=known.unanswered,
                )
            )
        lookup = self._under_way.get(question)
        if lookup is None:
            lookup = self._under_way[question] = _Lookup(self._reactor.seconds())
            waiter = lookup.wait()
            late = bool(self._failed_lately.get(question))
            ticket = self._turns.take(partial(self._exchange, question), whose, late=late)
            lookup.ticket = ticket
            ticket.result.addBoth(self._done, question, lookup)
            return waiter
        if lookup.ticket is not None:
            self._turns.join(lookup.ticket, whose)
        return lookup.wait()

    def _exchange(self, question: Question) -> Deferred[Answer]:
        return self._ask_servers(question).addCallback(self._follow, question, 1)

    def _ask_servers(self, question: Question) -> Deferred[Answer]:
        exchange = Exchange(
            self._reactor,
            question,
            tuple(self._servers),
            self._timeout,
            self._opener,
            self._trusted,
            self._sockets,
        )
        return exchange.start().addCallback(self._prefer, exchange)

    def _follow(self, answer: Answer, question: Question, hops: int) -> Answer | Deferred[Answer]:
        """Ask where an alias leads, if the server has not done so."""
        if answer.complete or answer.canonical is None:
            return answer
        if hops >= _MAX_ALIASES:
            text = f"the look-up of {question} failed: the chain of aliases has no end"
            raise DNSError(question.name.to_text(omit_final_dot=True), text)
        end = Question(answer.canonical, question.kind)

        def joined(further: Answer) -> Answer:
            return attrs.evolve(
                further,
                ttl=min(answer.ttl, further.ttl),
                secure=answer.secure and further.secure,
                canonical=further.canonical or answer.canonical,
            )

        following = self._ask_servers(end).addCallback(joined)
        return following.addCallback(self._follow, question, hops + 1)

    def _prefer(self, answer: Answer, exchange: Exchange) -> Answer:
        """Ask the server that answered first from now on: the others may be dead."""
        server = exchange.server
        if server is not None and server != self._servers[0]:
            self._servers.remove(server)
            self._servers.insert(0, server)
        return answer

    def _done(self, outcome: Answer | Failure, question: Question, lookup: _Lookup) -> None:
        if self._under_way.get(question) is lookup:
            del self._under_way[question]
        if isinstance(outcome, Answer):
            self._cache.put(question, outcome, outcome.ttl)
            self._heard_at = self._reactor.seconds()
            if self._failed_lately.get(question):
                self._failed_lately.put(question, False, _LATE_FOR)
        elif isinstance(outcome.value, DNSError):
            if not outcome.value.unanswered:
                self._heard_at = self._reactor.seconds()
            elif self._heard_at > lookup.begun:
                outcome.value.unanswered = False
            self._cache.put(question, outcome.value, _FAILURE_TTL)
            self._failed_lately.put(question, True, _LATE_FOR)
        lookup.fire(outcome)


class _Lookup:
    """A look-up under way and those who wait for it."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.ticket: Ticket | None = None
        self._waiters: list[Deferred[Answer]] = []

    def wait(self) -> Deferred[Answer]:
        """Wait, too."""
        waiter: Deferred[Answer] = Deferred(self._cancelled)
        self._waiters.append(waiter)
        return waiter

    def _cancelled(self, waiter: Deferred[Answer]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters and self.ticket is not None:
            self.ticket.result.cancel()

    def fire(self, outcome: Answer | Failure) -> None:
        """Tell everybody."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(outcome, Failure):
                waiter.errback(outcome)
            else:
                waiter.callback(outcome)
