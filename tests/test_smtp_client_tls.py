"""STARTTLS as the delivery side does it: real handshakes in memory."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate
from twisted.internet.task import Clock
from twisted.test.iosim import IOPump
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SessionLost,
    SessionProtocolError,
    SessionRefused,
    SessionTLSError,
    SMTPSessionError,
    TransactionOutcome,
)
from kumotwist.smtp.client_factory import ESMTPClientFactory
from kumotwist.tls.client import ClientTrust, client_tls_options
from kumotwist.tls.facts import TLSFacts
from tests.memory_server import MemoryServer, pump_to
from tests.memory_tls import authority_certificate, server_options

MESSAGE = OutgoingTransaction("me@example.org", ("a@example.com",), b"Subject: hi\r\n\r\n.\r\n")


class TLSCase(SynchronousTestCase):
    """What the tests of both classes need."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.trust = ClientTrust([authority_certificate()], system=False)

    def failure_of(self, deferred: Deferred[Any], kind: type[SMTPSessionError]) -> SMTPSessionError:
        """The session error that a Deferred failed with."""
        error = self.failureResultOf(deferred, kind).value
        assert isinstance(error, SMTPSessionError)
        return error


class StartTLSTests(TLSCase):
    """L{ESMTPClient.start_tls}."""

    def start(
        self, server: Protocol, *, verify: bool = True, name: str = "mx.example.com"
    ) -> tuple[ESMTPClient, Deferred[TLSFacts], IOPump]:
        """Open a session and start TLS."""
        client = ESMTPClient(self.clock, hostname="me.example")
        pump = pump_to(server, client)
        self.successResultOf(client.open())
        started = client.start_tls(client_tls_options(name, verify=verify, trust=self.trust))
        pump.flush()
        return client, started, pump

    def test_verified(self) -> None:
        """With a good certificate the session goes on encrypted, and the facts say so."""
        server = MemoryServer(server_options("mx.example.com"))
        client, started, pump = self.start(server)
        facts = self.successResultOf(started)
        self.assertEqual((facts.protocol_version, facts.verified), ("TLSv1.3", True))
        self.assertIs(client.tls, facts)
        self.assertEqual(server.hellos, ["me.example", "me.example"])
        self.assertFalse(client.capabilities.starttls)
        sent = client.send(MESSAGE)
        pump.flush()
        self.assertTrue(self.successResultOf(sent).results[0].delivered)
        self.assertEqual(server.messages[0].body, MESSAGE.body)
        client.quit()
        pump.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deaf_wrapper(self) -> None:
        """TLS works also where a layer in between does not tell when the handshake is over."""
        client = ESMTPClient(self.clock, hostname="me.example")
        self.patch(client, "handshakeCompleted", lambda: None)
        pump = pump_to(MemoryServer(server_options("mx.example.com")), client)
        options = client_tls_options("mx.example.com", verify=True, trust=self.trust)
        started = client.start_tls(options)
        pump.flush()
        self.assertTrue(self.successResultOf(started).verified)
        self.clock.advance(59)
        self.assertTrue(client.usable)

    def test_large_body(self) -> None:
        """A large message goes through TLS unharmed."""
        server = MemoryServer(server_options("mx.example.com"))
        client, _, pump = self.start(server)
        body = b"\r\n.\r\nMAIL FROM:<smuggled@example.org>\r\n" * 20000
        sent = client.send(OutgoingTransaction("", ("a@example.com",), body))
        pump.flush()
        self.assertTrue(self.successResultOf(sent).results[0].delivered)
        self.assertEqual([message.body for message in server.messages], [body])

    def test_bad_certificate(self) -> None:
        """A certificate that is not good ends the session, in words; nothing was sent."""
        for options, words in (
            (server_options("mx.example.org"), "not for mx.example.com"),
            (server_options("mx.example.com", trusted=False), "issuer is not"),
            (server_options("mx.example.com", expired=True), "expired"),
        ):
            server = MemoryServer(options)
            client, started, pump = self.start(server)
            error = self.failure_of(started, SessionTLSError)
            self.assertEqual(error.phase, "starttls")
            self.assertIn(words, error.text)
            self.assertIsInstance(error.__cause__, SSL.Error)
            self.assertEqual(server.hellos, ["me.example"])
            self.assertFalse(client.usable)
            pump.flush()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unverified(self) -> None:
        """If it does not matter the session goes on, and the facts tell the truth."""
        server = MemoryServer(server_options("mx.example.com", trusted=False))
        _, started, _ = self.start(server, verify=False)
        facts = self.successResultOf(started)
        self.assertFalse(facts.verified)
        self.assertIn("issuer is not", facts.verify_error)

    def test_injected_replies(self) -> None:
        """Plain text behind the 220 refuses the session before any handshake."""
        server = MemoryServer(server_options("mx.example.com"), b"250-mx\r\n250 AUTH PLAIN\r\n")
        client, started, _ = self.start(server)
        error = self.failure_of(started, SessionProtocolError)
        self.assertEqual(error.phase, "starttls")
        self.assertIn("plain text behind the reply to STARTTLS", error.text)
        self.assertIsNone(client.tls)

    def test_refused(self) -> None:
        """A server that refuses STARTTLS leaves the session as it was."""
        client, started, pump = self.start(MemoryServer())
        error = self.failure_of(started, SessionRefused)
        self.assertEqual(error.phase, "starttls")
        assert error.reply is not None
        self.assertEqual(error.reply.code, 502)
        self.assertTrue(client.usable)
        sent = client.send(MESSAGE)
        pump.flush()
        self.assertTrue(self.successResultOf(sent).results[0].delivered)

    def shake_with(self, answer: bytes) -> tuple[Deferred[TLSFacts], Any, ESMTPClient]:
        """Start TLS with a server that then says something else."""

        class Impostor(Protocol):
            def connectionMade(self) -> None:
                self.say(b"220 mx\r\n")

            def dataReceived(self, data: bytes) -> None:
                if data.startswith(b"EHLO"):
                    self.say(b"250-mx\r\n250 STARTTLS\r\n")
                elif data.startswith(b"STARTTLS"):
                    self.say(b"220 go\r\n")
                elif answer:
                    self.say(answer)

            def say(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data)

        client = ESMTPClient(self.clock, hostname="me.example")
        server = Impostor()
        pump = pump_to(server, client)
        started = client.start_tls(
            client_tls_options("mx.example.com", verify=False, trust=self.trust)
        )
        pump.flush()
        return started, server, client

    def test_no_handshake(self) -> None:
        """Garbage, or a hang-up, instead of a handshake is a TLS error in words."""
        started, _, _ = self.shake_with(b"500 what?\r\n")
        error = self.failure_of(started, SessionTLSError)
        self.assertIn("TLS handshake failed: ", error.text)
        started, server, client = self.shake_with(b"")
        self.assertNoResult(started)
        server.transport.loseConnection()
        client.connectionLost()
        error = self.failure_of(started, SessionTLSError)
        self.assertIn("the connection was closed", error.text)

    def test_silent_handshake(self) -> None:
        """A handshake that gets no answer is given up after C{starttls_timeout}."""
        started, _, _ = self.shake_with(b"")
        self.clock.advance(4.9)
        self.assertNoResult(started)
        self.clock.advance(0.2)
        error = self.failure_of(started, SessionTLSError)
        self.assertIn("timed out after 5 s while starting TLS", error.text)

    def test_too_early(self) -> None:
        """TLS cannot be started before the session is open."""
        client = ESMTPClient(self.clock, hostname="me.example")
        options = client_tls_options("mx.example.com", verify=True, trust=self.trust)
        self.failure_of(client.start_tls(options), SessionLost)


class FactoryTests(TLSCase):
    """L{ESMTPClientFactory}: one message over whatever connects it."""

    def send(
        self, server: MemoryServer, tls: str = "Opportunistic"
    ) -> Deferred[TransactionOutcome]:
        """Send a message with a factory."""
        factory = ESMTPClientFactory(
            self.clock, "me@example.org", ["a@example.com"], b"Subject: hi\n\n.\n",
            hostname="me.example", peer_name="mx.example.com", tls=tls, trust=self.trust,
        )  # fmt: skip
        client = factory.buildProtocol(None)
        assert client is not None
        self.assertIsNone(factory.buildProtocol(None), "one message, one connection")
        pump_to(server, client)
        return factory.sent

    def test_sends(self) -> None:
        """The message arrives, its line ends made CRLF; QUIT leaves nothing behind."""
        for tls in (None, server_options("mx.example.com")):
            server = MemoryServer(tls)
            outcome = self.successResultOf(self.send(server))
            self.assertEqual(outcome.replies[0].code, 250)
            self.assertEqual(server.messages[0].body, MESSAGE.body)
            self.assertEqual(len(server.hellos), 1 if tls is None else 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_values_of_enable_tls(self) -> None:
        """The five values of C{enable_tls} do what they say."""
        good = server_options("mx.example.com")
        bad = server_options("mx.example.com", trusted=False)
        expected = {
            "Disabled": ("clear", "clear", "clear"),
            "Opportunistic": ("clear", "tls", "error"),
            "OpportunisticInsecure": ("clear", "tls", "tls"),
            "Required": ("error", "tls", "error"),
            "RequiredInsecure": ("error", "tls", "tls"),
        }
        for tls, results in expected.items():
            for context, result in zip((None, good, bad), results, strict=True):
                server = MemoryServer(context)
                sent = self.send(server, tls)
                if result == "error":
                    self.failure_of(sent, SessionTLSError)
                    self.assertEqual(server.messages, [])
                else:
                    self.assertTrue(self.successResultOf(sent).results[0].delivered)
                    self.assertEqual(len(server.hellos), 2 if result == "tls" else 1)

    def test_system_trust(self) -> None:
        """A certificate of an authority that the system does not know is not good."""
        self.trust = ClientTrust()
        sent = self.send(MemoryServer(server_options("mx.example.com")))
        self.assertIn("issuer is not", self.failure_of(sent, SessionTLSError).text)
        both = ClientTrust([Certificate.loadPEM(authority_certificate().dumpPEM())])
        self.trust = both
        self.successResultOf(self.send(MemoryServer(server_options("mx.example.com"))))
