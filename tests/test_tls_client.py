"""The client's TLS: real handshakes in memory with good and bad certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.python.failure import Failure
from twisted.test.iosim import connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.tls.client import ClientTrust, client_tls_options, system_trust
from kumotwist.tls.facts import TLSFacts, tls_facts
from tests.memory_tls import TLSFakeTransport, authority_certificate, server_options


class Side(Protocol):
    """One side of a connection, which says something as soon as TLS lets it."""

    def __init__(self, options: Any, word: bytes) -> None:
        self.options = options
        self.word = word
        self.heard = b""
        self.lost: Failure | None = None
        self.facts: TLSFacts | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.startTLS(self.options)
        transport.write(self.word)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.facts = tls_facts(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class ClientTLSTests(SynchronousTestCase):
    """L{client_tls_options} and L{tls_facts}."""

    def setUp(self) -> None:
        self.trust = ClientTrust([authority_certificate()], system=False)

    def shake(
        self, host_name: str, server: CertificateOptions, *, verify: bool = True
    ) -> tuple[Side, Side]:
        """Let a client and a server do a handshake."""
        creator = client_tls_options(host_name, verify=verify, trust=self.trust)
        client, other = Side(creator, b"hello"), Side(server, b"welcome")
        connect(other, TLSFakeTransport(other, True), client, TLSFakeTransport(client, False))
        return client, other

    def assert_good(self, host_name: str, server: CertificateOptions) -> TLSFacts:
        """The handshake succeeds and says that it was verified."""
        client, other = self.shake(host_name, server)
        self.assertEqual((client.heard, other.heard), (b"welcome", b"hello"))
        assert client.facts is not None
        self.assertTrue(client.facts.verified)
        self.assertEqual(client.facts.verify_error, "")
        return client.facts

    def assert_bad(self, host_name: str, server: CertificateOptions, error: str) -> None:
        """Verifying, the handshake fails; else it succeeds and says what is wrong."""
        client, other = self.shake(host_name, server)
        self.assertEqual((client.heard, other.heard), (b"", b""), "nothing is said")
        assert client.lost is not None
        self.assertTrue(client.lost.check(SSL.Error))
        client, other = self.shake(host_name, server, verify=False)
        self.assertEqual((client.heard, other.heard), (b"welcome", b"hello"))
        assert client.facts is not None
        self.assertFalse(client.facts.verified)
        self.assertIn(error, client.facts.verify_error)

    def test_interface(self) -> None:
        """The options are what C{startTLS} wants."""
        creator = client_tls_options("mx.example.com", verify=True, trust=self.trust)
        verifyObject(IOpenSSLClientConnectionCreator, creator)

    def test_good_certificate(self) -> None:
        """A certificate for the host's name from a trusted authority is good."""
        facts = self.assert_good("mx.example.com", server_options("mx.example.com"))
        self.assertEqual(facts.protocol_version, "TLSv1.3")
        self.assertIn("TLS_", facts.cipher)
        self.assertIn("trustme", facts.peer_subject)

    def test_spellings_of_the_name(self) -> None:
        """A final dot, capitals and U-labels do not matter; a wildcard stands for one label."""
        server = server_options("mx.example.com", "*.wild.example", "xn--bcher-kva.example")
        for name in ("mx.example.com.", "MX.Example.COM", "a.wild.example", "bücher.example"):
            self.assert_good(name, server)
        self.assert_bad("a.b.wild.example", server, "not for a.b.wild.example")

    def test_address(self) -> None:
        """A host without a name is checked by its address."""
        self.assert_good("192.0.2.1", server_options("192.0.2.1"))
        self.assert_good("2001:db8::1", server_options("2001:db8::1"))
        self.assert_bad("192.0.2.2", server_options("192.0.2.1"), "not for 192.0.2.2")

    def test_wrong_name(self) -> None:
        """A certificate for another host is not good."""
        server = server_options("mx.example.org")
        self.assert_bad("mx.example.com", server, "the certificate is not for mx.example.com")

    def test_untrusted(self) -> None:
        """A certificate from an unknown authority is not good."""
        server = server_options("mx.example.com", trusted=False)
        self.assert_bad("mx.example.com", server, "issuer is not")

    def test_without_names(self) -> None:
        """A certificate that has a common name alone, as many a self-signed one, is no obstacle
        where it need not be good."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.example.com")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        server = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(certificate),
        )
        self.assert_bad("mx.example.com", server, "self-signed")

    def test_expired(self) -> None:
        """A certificate whose time is over is not good."""
        server = server_options("mx.example.com", expired=True)
        self.assert_bad("mx.example.com", server, "expired")

    def test_server_name_indication(self) -> None:
        """The server is told the name in A-labels; an address is not told (RFC 6066, 3)."""
        asked: list[bytes | None] = []
        for name in ("bücher.example.", "192.0.2.1"):
            options = CertificateOptions(
                privateKey=server_options("mx.example.com").privateKey,
                certificate=server_options("mx.example.com").certificate,
            )
            options.getContext().set_tlsext_servername_callback(
                lambda connection: asked.append(connection.get_servername())
            )
            self.shake(name, options, verify=False)
        self.assertEqual(asked, [b"xn--bcher-kva.example", None])

    def test_old_protocol(self) -> None:
        """TLS 1.1 is not spoken; TLS 1.2 is."""
        material = server_options("mx.example.com")
        for version, works in ((TLSVersion.TLSv1_1, False), (TLSVersion.TLSv1_2, True)):
            options = CertificateOptions(
                privateKey=material.privateKey,
                certificate=material.certificate,
                insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
                lowerMaximumSecurityTo=version,
            )
            client, _ = self.shake("mx.example.com", options)
            self.assertEqual(client.heard, b"welcome" if works else b"")

    def test_context_is_shared(self) -> None:
        """The expensive part is built once for all hosts."""
        self.assertIs(self.trust.context, self.trust.context)
        self.assertIs(system_trust(), system_trust())

    def test_no_name(self) -> None:
        """What is no name is refused at once."""
        for name in ("", ".", "a b", "*.example.com"):
            self.assertRaises(ValueError, client_tls_options, name, verify=True, trust=self.trust)

    def test_facts_without_tls(self) -> None:
        """A transport without TLS has no facts."""
        self.assertIsNone(tls_facts(object()))
        self.assertIsNone(tls_facts(TLSFakeTransport(Protocol(), False)))
