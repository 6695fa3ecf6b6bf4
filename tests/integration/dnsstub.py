"""A name server for tests: answers from a table, over UDP, in the test's reactor."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorUDP
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import TestCase

__all__ = ["NameServer", "start_name_server"]


class NameServer(DatagramProtocol):
    """Answers what its table has, NXDOMAIN for a name that is not in it.

    @ivar zone: C{(name, type)} to texts of records: C{("example.com", "MX")} to
        C{["10 mx1.example.com."]}. Names are in lower case, without their last dot.
    @ivar fail: names that are answered with SERVFAIL.
    @ivar questions: what was asked.
    """

    def __init__(self, zone: dict[tuple[str, str], list[str]]) -> None:
        self.zone = zone
        self.fail: set[str] = set()
        self.questions: list[tuple[str, str]] = []

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self.transport is not None
        address = self.transport.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    def datagramReceived(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Answer one question."""
        query = dns.message.from_wire(datagram)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in self.fail:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, kind) in self.zone:
            texts = self.zone[name, kind]
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        elif name not in {known for known, _ in self.zone}:
            response.set_rcode(dns.rcode.NXDOMAIN)
        assert self.transport is not None
        self.transport.write(response.to_wire(), address)


def start_name_server(test: TestCase, zone: dict[tuple[str, str], list[str]]) -> NameServer:
    """Start it on a free port; it is gone when the test is over."""
    server = NameServer(zone)
    port = IReactorUDP(global_reactor).listenUDP(0, server, "127.0.0.1", 8192)
    test.addCleanup(maybeDeferred, port.stopListening)
    return server
