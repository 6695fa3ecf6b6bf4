"""Tests of the listener's TLS: contexts, the self-signed certificate, sessions under TLS."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import TestCase

from kumotwist.smtp.settings import SinkSettings
from kumotwist.smtp.sink import SinkReception, sink_factory
from kumotwist.tls.server import TLSCertificateError, self_signed, server_context_factory
from tests.memory_tls import TLSFakeTransport, authority

CLIENT = IPv4Address("TCP", "192.0.2.1", 40000)
SERVER = IPv4Address("TCP", "192.0.2.25", 25)
MESSAGE = (
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
    b"Subject: x\r\n\r\n.\r\nQUIT\r\n",
)


class FileTests(TestCase):
    """Certificates and keys in files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def file(self, name: str, octets: bytes) -> Path:
        """A file with some content."""
        path = self.directory / name
        path.write_bytes(octets)
        return path

    def test_good(self) -> None:
        """A certificate, its chain and its key make a context with TLS 1.2 as its floor."""
        leaf = authority().issue_cert("mx.example.com")
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems) + authority().cert_pem.bytes()
        options = server_context_factory(
            self.file("crt", chain), self.file("key", leaf.private_key_pem.bytes())
        )
        context = options.getContext()
        self.assertTrue(context.set_options(0) & SSL.OP_NO_TLSv1_1)
        self.assertFalse(context.set_options(0) & SSL.OP_NO_TLSv1_2)

    def test_errors_name_the_file(self) -> None:
        """Whatever is wrong with a file, the error says which and why."""
        leaf = authority().issue_cert("mx.example.com")
        other = authority().issue_cert("mx.example.com")
        good_certificate = self.file("good.crt", leaf.cert_chain_pems[0].bytes())
        good_key = self.file("good.key", leaf.private_key_pem.bytes())
        damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        for certificate, key, words in (
            (self.directory / "none", good_key, "cannot read .*none.*: No such file"),
            (good_certificate, self.directory / "none", "cannot read .*none.*: No such file"),
            (good_key, good_key, "no PEM certificate in .*good.key"),
            (good_certificate, good_certificate, "no PEM private key in .*good.crt"),
            (self.file("damaged", damaged), good_key, "a certificate in .*damaged.* is damaged"),
            (
                good_certificate,
                self.file("other.key", other.private_key_pem.bytes()),
                "key in .*other.key.* does not belong to the certificate in .*good.crt",
            ),
        ):
            error = self.assertRaises(TLSCertificateError, server_context_factory, certificate, key)
            self.assertRegex(str(error), words)

    def test_self_signed(self) -> None:
        """A self-signed certificate is made once, for its owner only, and used again."""
        files = self_signed("mx.example.com", self.directory)
        content = [path.read_bytes() for path in files]
        for path in files:
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(self_signed("mx.example.com", self.directory), files)
        self.assertEqual([path.read_bytes() for path in files], content)
        self.assertNotEqual(self_signed("other.example.com", self.directory), files)
        server_context_factory(*files)

    def test_self_signed_for_a_literal(self) -> None:
        """A host may be named by its address."""
        server_context_factory(*self_signed("[192.0.2.1]", self.directory))
        server_context_factory(*self_signed("[IPv6:2001:db8::1]", self.directory))

    def test_damaged_is_replaced(self) -> None:
        """If the files are not what they should be, they are made anew."""
        certificate, key = self_signed("mx.example.com", self.directory)
        os.truncate(key, 10)
        self_signed("mx.example.com", self.directory)
        server_context_factory(certificate, key)

    def test_cannot_be_kept(self) -> None:
        """If the directory cannot be made the error says so."""
        blocked = self.file("blocked", b"")
        error = self.assertRaises(TLSCertificateError, self_signed, "mx.example.com", blocked)
        self.assertIn("blocked", str(error))


class Client(Protocol):
    """Says one thing after the other, whenever it has heard something."""

    transport: Any

    def __init__(self, words: list[bytes | None], options: Any = None) -> None:
        self.words = words
        self.options = options
        self.heard = b""

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if not self.heard.endswith(b"\r\n") or not self.words:
            return
        word = self.words.pop(0)
        if word is None:
            self.transport.startTLS(self.options)
            word = self.words.pop(0)
            assert word is not None
        self.transport.write(word)


class SessionTests(TestCase):
    """Sessions whose TLS is real."""

    def setUp(self) -> None:
        self.log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        context = server_context_factory(*self_signed("sink.example.com", self.mktemp()))
        self.clock = Clock()
        self.context = context

    def assert_arrived(self, reception: object) -> None:
        """One message has come, under TLS."""
        assert isinstance(reception, SinkReception)
        self.assertEqual(reception.counts["messages"], 1)
        [event] = [event for event in self.log if "sender" in event]
        self.assertEqual(event["protocol"], "ESMTPS")
        self.assertRegex(event["tls"], r"^TLSv1\.[23] \w+")

    def test_starttls(self) -> None:
        """STARTTLS, EHLO again, a message, QUIT."""
        factory = sink_factory(self.clock, SinkSettings(), self.context, "sink.example.com")
        server = factory.buildProtocol(CLIENT)
        words = [MESSAGE[0], b"STARTTLS\r\n", None, *MESSAGE]
        client = Client(words, CertificateOptions())
        connect(
            server,
            TLSFakeTransport(server, True, hostAddress=SERVER, peerAddress=CLIENT),
            client,
            TLSFakeTransport(client, False, hostAddress=CLIENT, peerAddress=SERVER),
        )
        self.assertEqual(client.words, [])
        self.assertIn(b"221 2.0.0", client.heard)
        self.assertEqual(client.heard.count(b"STARTTLS"), 1)
        self.assert_arrived(factory.reception)

    def test_implicit(self) -> None:
        """A listener with implicit TLS greets inside TLS and does not offer STARTTLS."""
        factory = sink_factory(
            self.clock, SinkSettings(tls="implicit"), self.context, "sink.example.com"
        )
        server = factory.buildProtocol(CLIENT)
        inner = Client(list(MESSAGE))
        wrapping = TLSMemoryBIOFactory(
            CertificateOptions(), True, Factory.forProtocol(lambda: inner), self.clock
        )
        client = wrapping.buildProtocol(SERVER)
        pump = connect(
            server,
            FakeTransport(server, True, hostAddress=SERVER, peerAddress=CLIENT),
            client,
            FakeTransport(client, False, hostAddress=CLIENT, peerAddress=SERVER),
        )
        for _ in range(20):
            self.clock.advance(0)
            pump.flush()
        self.assertEqual(inner.words, [])
        self.assertIn(b"221 2.0.0", inner.heard)
        self.assertNotIn(b"STARTTLS", inner.heard)
        self.assert_arrived(factory.reception)
