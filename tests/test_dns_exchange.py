"""Name servers over UDP and TCP: answers, forgeries, silence; the cache in front of them."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.dns import DNSError
from kumotwist.dns.answers import Answer, Question, make_query, read_answer, read_response
from kumotwist.dns.cache import ExpiringCache
from kumotwist.dns.client import DNSClient
from kumotwist.dns.datagram import DatagramSocket
from kumotwist.settings.types import HostPort
from kumotwist.testing.dns import FakeNetwork, FakeSocket, reply_to

MX = Question(dns.name.from_text("example.com"), dns.rdatatype.MX)
RECORD = "example.com. 60 IN MX 10 mx.example.com."
SOA = "example.com. 60 IN SOA ns.example.com. me.example.com. 1 2 3 4 30"
FIRST = HostPort("192.0.2.1", 53)
SECOND = HostPort("2001:db8::2", 5353)


def address_of(name: str) -> Question:
    """The question for the IPv4 addresses of a host."""
    return Question(dns.name.from_text(name), dns.rdatatype.A)


class ClientTestCase(SynchronousTestCase):
    """A client, two name servers that are scripts, and a simulated clock."""

    def setUp(self) -> None:
        """Begin with an empty cache."""
        self.reactor = MemoryReactorClock()
        self.network = FakeNetwork(self.reactor)
        self.begin(FIRST, SECOND)

    def begin(self, *servers: HostPort) -> None:
        """Begin with these servers and an empty cache."""
        self.client = DNSClient(self.reactor, servers, 8.0, self.network.open_socket)

    def ask(self, question: Question = MX) -> Deferred[Answer]:
        """Ask a question."""
        return self.client.ask(question)

    def open_ports(self) -> list[FakeSocket]:
        """The sockets in use."""
        return [port for port in self.network.sockets if port.open]

    def assert_clean(self) -> None:
        """No socket and no timer is left."""
        self.assertEqual(self.open_ports(), [])
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def assert_answer(self, result: Deferred[Answer], *values: str) -> None:
        """The look-up is over and clean."""
        answer = self.successResultOf(result)
        self.assertEqual([str(value) for value in answer.values], list(values))
        self.assert_clean()

    def assert_temporary(self, result: Deferred[Answer], words: str) -> None:
        """The look-up has failed for now, and is clean."""
        failure = self.failureResultOf(result, DNSError)
        self.assertFalse(failure.value.permanent)
        self.assertIn(words, failure.value.text)
        self.assertEqual(failure.value.domain, "example.com")
        self.assert_clean()


def _error(number: int) -> OSError:
    """An error of the system's."""
    return OSError(number, os.strerror(number))


def _raise_unreachable(fake: FakeSocket, argument: object) -> None:
    raise _error(errno.ENETUNREACH)


class DatagramTests(ClientTestCase):
    """UDP."""

    def test_answer(self) -> None:
        """A question goes to the first server, from a port of its own, with EDNS."""
        result = self.ask()
        (port,) = self.network.sockets
        self.assertEqual(port.peer, ("192.0.2.1", 53))
        query = dns.message.from_wire(port.sent[0])
        self.assertTrue(query.flags & dns.flags.RD)
        self.assertEqual((query.edns, query.payload), (0, 1232))
        self.assertEqual(str(query.question[0]), "example.com. IN MX")
        port.answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_ids_differ(self) -> None:
        """Every query has an id of its own."""
        for _ in range(8):
            self.ask(Question(MX.name, dns.rdatatype.A)).addErrback(lambda _: None)
            self.reactor.advance(20)
        ids = {port.sent[0][:2] for port in self.network.sockets}
        self.assertGreater(len(ids), len(self.network.sockets) - 3)

    def test_forgeries(self) -> None:
        """Datagrams that answer something else are passed over, and the real one counts."""
        result = self.ask()
        (port,) = self.network.sockets
        other = make_query(Question(dns.name.from_text("evil.example"), dns.rdatatype.MX))

        def other_id(response: dns.message.Message) -> None:
            response.id ^= 1

        def no_response(response: dns.message.Message) -> None:
            response.flags &= ~dns.flags.QR

        def other_question(response: dns.message.Message) -> None:
            response.question = other.question

        for change in (other_id, no_response, other_question):
            port.answer("example.com. 60 IN MX 10 evil.example.", change=change)
        for junk in (b"", b"\0", os.urandom(40), port.sent[0][:20], port.sent[0]):
            port.receive(junk)
        self.assertNoResult(result)
        port.answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_authentic(self) -> None:
        """DNSSEC's verdict counts if it comes from a name server that is trusted."""

        def authentic(response: dns.message.Message) -> None:
            response.flags |= dns.flags.AD

        for networks, secure in (((), False), ((ipaddress.ip_network("192.0.2.1"),), True)):
            self.client = DNSClient(
                self.reactor, (FIRST, SECOND), 8.0, self.network.open_socket, networks
            )
            result = self.ask()
            port = self.network.sockets[-1]
            self.assertTrue(dns.message.from_wire(port.sent[0]).flags & dns.flags.AD)
            port.answer(RECORD, change=authentic)
            self.assertIs(self.successResultOf(result).secure, secure)

    def test_not_authentic(self) -> None:
        """A trusted name server that does not vouch for an answer makes it no more than that."""
        networks = (ipaddress.ip_network("192.0.2.1"),)
        self.client = DNSClient(self.reactor, (FIRST,), 8.0, self.network.open_socket, networks)
        result = self.ask()
        self.network.sockets[0].answer(RECORD)
        self.assertIs(self.successResultOf(result).secure, False)

    def test_alias_elsewhere(self) -> None:
        """An alias whose end the server does not mention is asked for, and kept as long as both
        may be."""
        result = self.ask()
        self.network.sockets[0].answer("example.com. 30 IN CNAME other.example.")
        self.network.sockets[1].answer("other.example. 60 IN MX 10 mx.other.example.")
        self.assert_answer(result, "10 mx.other.example.")
        answer = self.successResultOf(self.ask())
        self.assertEqual((str(answer.canonical), answer.ttl), ("other.example.", 30))

    def test_endless_aliases(self) -> None:
        """A chain of aliases without end is given up."""
        result = self.ask()
        for number in range(100):
            if number >= len(self.network.sockets):
                break
            query = dns.message.from_wire(self.network.sockets[number].sent[0])
            name = query.question[0].name
            self.network.sockets[number].answer(f"{name} 30 IN CNAME a{number}.example.")
        self.assertEqual(len(self.network.sockets), 16)
        self.assert_temporary(result, "no end")

    def test_aliases(self) -> None:
        """Aliases are followed within the answer."""
        result = self.ask()
        self.network.sockets[0].answer(
            "example.com. 5 IN CNAME a.example.", "a.example. 60 IN MX 10 mx.example.com."
        )
        self.assertEqual(self.successResultOf(result).ttl, 5)

    def test_no_such_name(self) -> None:
        """NXDOMAIN is an answer."""
        result = self.ask()
        self.network.sockets[0].answer(rcode="NXDOMAIN", authority=[SOA])
        self.assertEqual(self.successResultOf(result), Answer((), False, 30.0))
        self.assert_clean()

    def test_no_data(self) -> None:
        """A name without such records is an answer too."""
        result = self.ask()
        self.network.sockets[0].answer()
        self.assertEqual(self.successResultOf(result), Answer((), True, 0.0))

    def test_silence(self) -> None:
        """A silent server is asked again and the next one too; in the end it is a time-out."""
        result = self.ask()
        self.reactor.pump([2.0] * 3)
        self.assertEqual(
            [port.peer for port in self.network.sockets],
            [("192.0.2.1", 53), ("2001:db8::2", 5353)] * 2,
        )
        self.assertEqual(
            [port.family for port in self.network.sockets], [socket.AF_INET, socket.AF_INET6] * 2
        )
        self.assertNoResult(result)
        self.reactor.advance(2.0)
        self.assert_temporary(result, "failed: no answer within 8 seconds")

    def test_unanswered(self) -> None:
        """Whether anybody has answered anything is known, also from the cache."""
        for answers, unanswered in ((False, True), (True, False)):
            self.begin(FIRST)
            result = self.ask()
            if answers:
                self.network.sockets[-1].answer(rcode="SERVFAIL")
            self.reactor.advance(8)
            for failed in (result, self.ask()):
                failure = self.failureResultOf(failed, DNSError)
                self.assertIs(failure.value.unanswered, unanswered)

    def test_answered_elsewhere(self) -> None:
        """A silent domain is not taken for silent name servers while they answer others."""
        self.begin(FIRST)
        silent = self.ask()
        self.reactor.advance(1)
        self.ask(Question(dns.name.from_text("other.example"), dns.rdatatype.MX))
        self.network.sockets[-1].answer("other.example. 60 IN MX 10 mx.other.example.")
        self.reactor.advance(8)
        self.assertIs(self.failureResultOf(silent, DNSError).value.unanswered, False)

    def test_late_answer(self) -> None:
        """An answer to the first try counts while the second is under way."""
        result = self.ask()
        self.reactor.advance(2.0)
        self.assertEqual(len(self.open_ports()), 2)
        self.network.sockets[0].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_failing_server(self) -> None:
        """A server that cannot find out is not waited for: the next is asked at once."""
        result = self.ask()
        self.network.sockets[0].answer(rcode="SERVFAIL")
        self.assertEqual(len(self.network.sockets), 2)
        self.network.sockets[1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_all_fail(self) -> None:
        """When all servers fail, the error says how, and is temporary."""
        result = self.ask()
        for index, rcode in enumerate(["SERVFAIL", "REFUSED", "NOTIMP", "SERVFAIL"]):
            self.assertNoResult(result)
            self.network.sockets[index].answer(rcode=rcode)
        self.assert_temporary(
            result,
            "the look-up of MX of example.com failed: 192.0.2.1:53 answered SERVFAIL; "
            "[2001:db8::2]:5353 answered REFUSED; 192.0.2.1:53 answered NOTIMP; "
            "[2001:db8::2]:5353 answered SERVFAIL",
        )

    def test_malformed_answer(self) -> None:
        """A loop of aliases is the server's fault."""
        result = self.ask()
        for port in range(4):
            self.network.sockets[port].answer(
                "example.com. 5 IN CNAME a.example.", "a.example. 5 IN CNAME example.com."
            )
        self.assert_temporary(result, "malformed")

    def test_server_without_edns(self) -> None:
        """A server that does not understand EDNS is asked without it."""
        result = self.ask()
        self.network.sockets[0].answer(rcode="FORMERR")
        self.assertEqual(dns.message.from_wire(self.network.sockets[1].sent[0]).edns, -1)
        self.network.sockets[1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_refused(self) -> None:
        """Where nobody listens the next server is asked at once."""
        result = self.ask()
        for _ in range(4):
            self.network.sockets[-1].receive(_error(errno.ECONNREFUSED))
        self.assert_temporary(result, "[2001:db8::2]:5353 cannot be asked: Connection refused")

    def test_refused_under_epoll(self) -> None:
        """The same where the reactor reports the refusal as a lost connection."""
        result = self.ask()
        for _ in range(4):
            (reader,) = self.reactor.getReaders()
            assert isinstance(reader, DatagramSocket)
            reader.connectionLost(Failure(ConnectionDone()))
        self.assert_temporary(result, "cannot be asked: unreachable")

    def test_descriptor(self) -> None:
        """What is given to the reactor is what a reactor reads."""
        self.ask()
        (reader,) = self.reactor.getReaders()
        verifyObject(IReadDescriptor, reader)

    def test_flood(self) -> None:
        """A flood of junk is read in turns, and the answer behind it still counts."""
        result = self.ask()
        (port,) = self.network.sockets
        port.receive(*[b"junk"] * 20)
        port.answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_no_socket(self) -> None:
        """Without sockets a look-up fails for now."""
        for number in (errno.EMFILE, errno.ENETUNREACH):
            self.network.error = _error(number)
            self.begin(FIRST)
            self.assert_temporary(self.ask(), f"cannot be asked: {os.strerror(number)}")

    def test_no_way(self) -> None:
        """A socket that cannot be connected or written is closed again."""
        for method in ("connect", "send"):
            self.patch(FakeSocket, method, _raise_unreachable)
            self.begin(FIRST)
            self.assert_temporary(self.ask(), "Network is unreachable")

    def test_cancel(self) -> None:
        """Cancelling closes everything."""
        result = self.ask()
        self.reactor.advance(2.0)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assert_clean()


class StreamTests(ClientTestCase):
    """TCP, after an answer that did not fit."""

    def connect(self) -> tuple[Deferred[Answer], Any, StringTransport, bytes]:
        """Get a truncated answer and connect."""
        result = self.ask()
        self.network.sockets[-1].answer(truncated=True)
        self.assertEqual(self.open_ports(), [])
        host, port, factory, _, _ = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("192.0.2.1", 53))
        protocol: Any = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        sent = transport.value()
        self.assertEqual(int.from_bytes(sent[:2], "big"), len(sent) - 2)
        return result, protocol, transport, sent[2:]

    def test_answer(self) -> None:
        """The whole answer comes over TCP, however it is cut."""
        for size in (1, 3, 10_000):
            self.begin(FIRST, SECOND)
            result, protocol, transport, query = self.connect()
            answer = reply_to(query, RECORD)
            data = len(answer).to_bytes(2, "big") + answer + b"trailing"
            for start in range(0, len(data), size):
                protocol.dataReceived(data[start : start + size])
            self.assert_answer(result, "10 mx.example.com.")
            self.assertTrue(transport.disconnected)

    def test_closed(self) -> None:
        """A server that closes without an answer is passed over."""
        result, protocol, _, _ = self.connect()
        protocol.dataReceived(b"\0")
        protocol.connectionLost(Failure(ConnectionDone()))
        self.network.sockets[-1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_wrong_answer(self) -> None:
        """So is one that answers something else."""
        result, protocol, transport, _ = self.connect()
        protocol.dataReceived(b"\0\4junk")
        self.assertTrue(transport.disconnected)
        self.network.sockets[-1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_no_connection(self) -> None:
        """So is one that cannot be reached."""
        result = self.ask()
        self.network.sockets[0].answer(truncated=True)
        factory: Any = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.network.sockets[-1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")

    def test_timeout(self) -> None:
        """A connection that hangs ends with the look-up."""
        result, _, transport, _ = self.connect()
        self.reactor.advance(8.0)
        self.assert_temporary(result, "within 8 seconds")
        self.assertTrue(transport.disconnected)

    def test_timeout_while_connecting(self) -> None:
        """So does one that is never made."""
        result = self.ask()
        self.network.sockets[0].answer(truncated=True)
        self.reactor.advance(8.0)
        failure = self.failureResultOf(result, DNSError)
        self.assertFalse(failure.value.permanent)
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)


class CacheTests(ClientTestCase):
    """Nobody is asked twice."""

    def test_cached(self) -> None:
        """An answer is believed as long as it says."""
        first = self.ask()
        self.network.sockets[0].answer(RECORD)
        self.assert_answer(first, "10 mx.example.com.")
        self.reactor.advance(59)
        self.assert_answer(self.ask(), "10 mx.example.com.")
        self.assertEqual(len(self.network.sockets), 1)
        self.reactor.advance(1)
        self.assertNoResult(self.ask())

    def test_shared(self) -> None:
        """A question under way is not asked again; everybody gets the answer."""
        results = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.network.sockets), 1)
        results[0].cancel()
        self.failureResultOf(results[0], CancelledError)
        self.network.sockets[0].answer(RECORD)
        self.assert_answer(results[1], "10 mx.example.com.")
        self.assert_answer(results[2], "10 mx.example.com.")

    def test_case(self) -> None:
        """Names are the same whatever their case."""
        self.network.sockets.clear()
        self.ask()
        self.ask(Question(dns.name.from_text("EXAMPLE.com"), dns.rdatatype.MX))
        self.assertEqual(len(self.network.sockets), 1)

    def test_negative(self) -> None:
        """That there is no such name is remembered for five minutes at most."""
        result = self.ask()
        long = SOA.replace(" 60 ", " 86400 ").removesuffix("30") + "86400"
        self.network.sockets[0].answer(rcode="NXDOMAIN", authority=[long])
        self.assertEqual(self.successResultOf(result).ttl, 300)

    def test_failures(self) -> None:
        """A failure is remembered for a moment (RFC 9520)."""
        self.assert_fails()
        count = len(self.network.sockets)
        self.failureResultOf(self.ask(), DNSError)
        self.assertEqual(len(self.network.sockets), count)
        self.reactor.advance(5)
        self.assertNoResult(self.ask())

    def assert_fails(self) -> None:
        """Let a look-up time out."""
        result = self.ask()
        self.reactor.advance(8.0)
        self.failureResultOf(result, DNSError)

    def test_preferred_server(self) -> None:
        """The server that answered is asked first the next time."""
        result = self.ask()
        self.reactor.advance(2.0)
        self.network.sockets[1].answer(RECORD)
        self.assert_answer(result, "10 mx.example.com.")
        self.ask(Question(MX.name, dns.rdatatype.A))
        self.assertEqual(self.network.sockets[-1].peer, ("2001:db8::2", 5353))

    def test_concurrency(self) -> None:
        """One who asks has 256 look-ups under way at most; a cancelled one gives its turn away."""
        results = [self.ask(address_of(f"{n}.example")) for n in range(259)]
        self.assertEqual(len(self.network.sockets), 256)
        results[258].cancel()
        self.failureResultOf(results[258], CancelledError)
        results[0].cancel()
        self.failureResultOf(results[0], CancelledError)
        self.assertEqual(len(self.network.sockets), 257)
        self.network.sockets[1].answer("1.example. 60 IN A 192.0.2.1")
        self.successResultOf(results[1])
        self.assertEqual(len(self.network.sockets), 258)
        self.reactor.advance(8.0)
        for result in results[2:258]:
            self.failureResultOf(result, DNSError)
        self.assert_clean()

    def test_silent_domains_of_another(self) -> None:
        """Whoever asks for 1,500 domains that are silent delays nobody else, and repeating them
        delays not even their owner's first question for another domain."""
        silent = [address_of(f"{n}.silent.example") for n in range(1500)]
        owner, victim = address_of("new.example"), address_of("victim.example")
        results = [self.client.ask(question, "a") for question in silent]
        healthy = self.client.ask(victim, "b")
        self.network.sockets[-1].answer("victim.example. 60 IN A 192.0.2.1")
        self.successResultOf(healthy)
        for _ in range(100):
            self.assertLessEqual(len(self.open_ports()), 768)
            self.reactor.advance(0.5)
        for result in results:
            self.failureResultOf(result, DNSError)
        self.assert_clean()
        again = [self.client.ask(question, f"a{n % 7}") for n, question in enumerate(silent)]
        self.assertEqual(len(self.open_ports()), 256)
        healthy = self.client.ask(owner, "a0")
        self.network.sockets[-1].answer("new.example. 60 IN A 192.0.2.2")
        self.successResultOf(healthy)
        for _ in range(100):
            self.assertLessEqual(len(self.open_ports()), 768)
            self.reactor.advance(0.5)
        for result in again:
            self.failureResultOf(result, DNSError)
        self.assert_clean()

    def test_bounded(self) -> None:
        """The cache keeps what was used last."""
        cache: ExpiringCache[int] = ExpiringCache(2, self.reactor.seconds)
        cache.put("a", 1, 10)
        cache.put("b", 2, 10)
        self.assertEqual(cache.get("a"), 1)
        cache.put("c", 3, 10)
        cache.put("d", 4, 0)
        self.assertEqual([cache.get(key) for key in "abcd"], [1, None, 3, None])
        self.assertEqual(len(cache), 2)


class HostileOctetsTests(SynchronousTestCase):
    """Whatever arrives, reading it ends in a response or in nothing."""

    @given(st.binary(max_size=200))
    def test_anything(self, junk: bytes) -> None:
        """Octets behind a plausible header do no harm."""
        query = make_query(MX)
        wire = query.to_wire()
        for data in (junk, wire[:2] + junk, wire[:2] + b"\x81\x80" + junk):
            response = read_response(query, data)
            if response is not None:
                read_answer(response)

    @given(st.integers(0, 200), st.integers(0, 255))
    def test_damaged(self, position: int, octet: int) -> None:
        """An answer with one wrong octet does no harm."""
        query = make_query(MX)
        data = bytearray(reply_to(query.to_wire(), RECORD, authority=[SOA]))
        data[position % len(data)] = octet
        response = read_response(query, bytes(data))
        if response is not None:
            read_answer(response)
