"""A resolver over records in memory, and name servers that are scripts."""

from __future__ import annotations

import errno
import ipaddress
import os
import random
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFDSet
from zope.interface import implementer

from kumotwist.dns.answers import Answer, Question
from kumotwist.dns.errors import DNSError
from kumotwist.dns.exchangers import MailExchangers
from kumotwist.dns.resolver import Resolver
from kumotwist.dns.settings import DNSSettings
from kumotwist.dns.tlsa import TLSARecords
from kumotwist.interfaces import IResolver
from kumotwist.settings.types import IPAddress

__all__ = ["FakeAsker", "FakeNetwork", "FakeResolver", "FakeSocket", "reply_to"]


class FakeAsker:
    """Answers questions from records, at once.

    @ivar questions: what was asked, as C{"MX of example.com"}.
    """

    def __init__(
        self,
        records: Mapping[str, Sequence[str]],
        fail: Mapping[str, str] | None = None,
        insecure: Collection[str] = ("",),
    ) -> None:
        """@param insecure: domains below which nothing is signed; the empty one is everything."""
        self._insecure = tuple(insecure)
        self.questions: list[str] = []
        self._records = {name.lower(): list(texts) for name, texts in records.items()}
        self._fail = dict(fail or {})

    def ask(self, question: Question, whose: str = "") -> Deferred[Answer]:
        """Look into the records, following C{CNAME}."""
        self.questions.append(str(question))
        name = question.name.to_text(omit_final_dot=True).lower()
        secure, canonical = True, None
        for _ in range(8):
            secure = secure and not any(
                not zone or f".{name}".endswith(f".{zone}") for zone in self._insecure
            )
            if name in self._fail:
                return fail(DNSError(name, self._fail[name]))
            if name not in self._records:
                return succeed(Answer((), exists=False, secure=secure, canonical=canonical))
            typed = [text.partition(" ")[::2] for text in self._records[name]]
            alias = [data for kind, data in typed if kind == "CNAME"]
            if not alias or question.kind == dns.rdatatype.CNAME:
                break
            name = alias[0].lower().removesuffix(".")
            canonical = dns.name.from_text(name)
        values = tuple(
            dns.rdata.from_text(dns.rdataclass.IN, question.kind, _absolute(kind, data))
            for kind, data in typed
            if kind == question.kind.name
        )
        return succeed(Answer(values, ttl=60.0, secure=secure, canonical=canonical))


def _absolute(kind: str, data: str) -> str:
    return data + "." if kind in ("MX", "PTR", "CNAME") and not data.endswith(".") else data


@implementer(IResolver)
class FakeResolver:
    """A L{Resolver} whose records are given, and which answers at once.

    Order, null MX, implicit MX and errors are the real resolver's; chance is the same in each run.

    @ivar questions: what was asked, as C{"MX of example.com"}.
    """

    def __init__(
        self,
        records: Mapping[str, Sequence[str]],
        fail: Mapping[str, str] | None = None,
        insecure: Collection[str] = ("",),
    ) -> None:
        """@param records: by name, lines such as C{"MX 10 mx.example.com"}, C{"A 192.0.2.1"},
            C{"AAAA 2001:db8::1"}, C{"CNAME other.example.com"}, C{"PTR mx.example.com"}; no lines
            for a name without records. A name that is not there does not exist.
        @param fail: names whose look-up fails temporarily, with the error's text.
        @param insecure: domains below which nothing is signed with DNSSEC; the empty one, which
            is the default, is everything.
        """
        self._asker = FakeAsker(records, fail, insecure)
        self._resolver = Resolver(None, DNSSettings(), asker=self._asker, chance=random.Random(1))
        self.questions = self._asker.questions

    def lookup_mx(self, domain: str, whose: str = "") -> Deferred[MailExchangers]:
        """See L{Resolver.lookup_mx}."""
        return self._resolver.lookup_mx(domain, whose)

    def lookup_addresses(self, name: str) -> Deferred[tuple[IPAddress, ...]]:
        """See L{Resolver.lookup_addresses}."""
        return self._resolver.lookup_addresses(name)

    def lookup_tlsa(self, host: str, port: int) -> Deferred[TLSARecords | None]:
        """See L{Resolver.lookup_tlsa}."""
        return self._resolver.lookup_tlsa(host, port)

    def lookup_text(self, name: str) -> Deferred[tuple[bytes, ...]]:
        """See L{Resolver.lookup_text}."""
        return self._resolver.lookup_text(name)

    def lookup_pointer(self, address: IPAddress) -> Deferred[tuple[str, ...]]:
        """See L{Resolver.lookup_pointer}."""
        return self._resolver.lookup_pointer(address)

    def lookup_listing(
        self, address: IPAddress, zone: str
    ) -> Deferred[tuple[ipaddress.IPv4Address, ...]]:
        """See L{Resolver.lookup_listing}."""
        return self._resolver.lookup_listing(address, zone)


class FakeSocket:
    """A UDP socket in memory.

    @ivar family: IPv4 or IPv6.
    @ivar peer: the address that C{connect} named.
    @ivar sent: the datagrams that were sent.
    @ivar open: whether nobody has closed it.
    """

    def __init__(self, reactor: IReactorFDSet, family: socket.AddressFamily, number: int) -> None:
        self.family = family
        self.peer: tuple[str, int] | None = None
        self.sent: list[bytes] = []
        self.open = True
        self._reactor = reactor
        self._number = number
        self._arrived: list[bytes | OSError] = []

    def fileno(self) -> int:
        """A number of its own."""
        return self._number

    def connect(self, address: tuple[str, int]) -> None:
        """Take datagrams from one address only."""
        self.peer = address

    def send(self, datagram: bytes) -> int:
        """Send a datagram to that address."""
        self.sent.append(datagram)
        return len(datagram)

    def recv(self, size: int) -> bytes:
        """The next datagram."""
        if not self._arrived:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        arrived = self._arrived.pop(0)
        if isinstance(arrived, OSError):
            raise arrived
        return arrived[:size]

    def close(self) -> None:
        """Close it."""
        self.open = False

    def receive(self, *arrived: bytes | OSError) -> None:
        """Let datagrams arrive, and the reactor notice; or errors."""
        self._arrived.extend(arrived)
        for reader in self._reactor.getReaders():
            if reader.fileno() == self._number:
                reader.doRead()

    def answer(self, *records: str, **facts: Any) -> None:
        """Answer the query that was sent, see L{reply_to}."""
        self.receive(reply_to(self.sent[-1], *records, **facts))


class FakeNetwork:
    """Where UDP sockets are made in tests.

    @ivar sockets: every socket that was opened, in order.
    @ivar error: is raised instead of opening one, if set.
    """

    def __init__(self, reactor: IReactorFDSet) -> None:
        """@param reactor: a C{MemoryReactorClock}."""
        self.sockets: list[FakeSocket] = []
        self.error: OSError | None = None
        self._reactor = reactor

    def open_socket(self, family: socket.AddressFamily) -> FakeSocket:
        """Open one."""
        if self.error is not None:
            raise self.error
        made = FakeSocket(self._reactor, family, 1000 + len(self.sockets))
        self.sockets.append(made)
        return made


def reply_to(
    query: bytes,
    *records: str,
    rcode: str = "NOERROR",
    truncated: bool = False,
    authority: Sequence[str] = (),
    change: Callable[[dns.message.Message], object] | None = None,
) -> bytes:
    """Write a name server's response.

    @param query: the query's octets.
    @param records: the answer section in zone file syntax:
        C{"example.com. 60 IN MX 10 mx.example.com."}.
    @param authority: the authority section, likewise.
    @param change: alters the response before it is written, to make it wrong.
    """
    response = dns.message.make_response(dns.message.from_wire(query))
    response.set_rcode(dns.rcode.from_text(rcode))
    response.answer = [_rrset(record) for record in records]
    response.authority = [_rrset(record) for record in authority]
    if truncated:
        response.flags |= dns.flags.TC
    if change is not None:
        change(response)
    return response.to_wire()


def _rrset(record: str) -> dns.rrset.RRset:
    name, ttl, klass, kind, data = record.split(None, 4)
    return dns.rrset.from_text(name, int(ttl), klass, kind, data)
