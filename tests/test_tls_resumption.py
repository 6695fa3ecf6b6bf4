"""Sessions that are taken up again: when, with which verdict, and when not."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import CertificateOptions, KeyPair, PrivateCertificate, TLSVersion
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.tls.client import ClientTrust, client_tls_options
from kumotwist.tls.facts import CheckedConnection
from kumotwist.tls.resumption import LIFETIME, SessionSlot, TLSSessions
from tests.memory_tls import authority, authority_certificate

NAME = "mx.example.com"


class Server:
    """A host that lets sessions be resumed, over connections in memory."""

    def __init__(self, newest: bool = True) -> None:
        leaf = authority().issue_cert(NAME)
        private = PrivateCertificate.fromCertificateAndKeyPair(
            TwistedCertificate.loadPEM(leaf.cert_chain_pems[0].bytes()),
            KeyPair.load(leaf.private_key_pem.bytes(), 1),
        )
        highest = None if newest else TLSVersion.TLSv1_2
        self.context: SSL.Context = CertificateOptions(
            privateKey=private.privateKey.original,
            certificate=private.original,
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_2,
            lowerMaximumSecurityTo=highest,
            enableSessions=True,
            enableSessionTickets=True,
        ).getContext()


def pump(one: SSL.Connection, other: SSL.Connection) -> None:
    """Carry octets both ways until there are none."""
    moved = True
    while moved:
        moved = False
        for each in (one, other):
            try:
                each.do_handshake()
                each.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                pass
        for source, target in ((one, other), (other, one)):
            try:
                target.bio_write(source.bio_read(65536))
                moved = True
            except SSL.WantReadError:
                pass


class ResumptionCase(SynchronousTestCase):
    """Connections, one after another."""

    def setUp(self) -> None:
        """Nothing is kept yet."""
        self.clock = Clock()
        self.sessions = TLSSessions(self.clock.seconds)
        self.trust = ClientTrust([authority_certificate()], system=False)
        self.server = Server()

    def connect(
        self,
        slot: SessionSlot | None = None,
        *,
        name: str = NAME,
        verify: bool = True,
        trust: ClientTrust | None = None,
    ) -> CheckedConnection:
        """Connect, say something, and end."""
        options = client_tls_options(
            name, verify=verify, trust=trust or self.trust, slot=slot or self.slot()
        )
        client = options.clientConnectionForTLS(None)
        server = SSL.Connection(self.server.context, None)
        client.set_connect_state()
        server.set_accept_state()
        pump(client, server)
        server.send(b"250 ok\r\n")
        pump(client, server)
        assert isinstance(client, CheckedConnection)
        options.ended(client)
        return client

    def slot(self, source: str = "one", host: str = NAME) -> SessionSlot:
        """The place for a source's sessions with a host."""
        return self.sessions.slot(source, host, 25)


class ResumptionTests(ResumptionCase):
    """When a session is resumed."""

    def test_resumed(self) -> None:
        """The second handshake goes on with the first one's session and verdict."""
        for newest in (True, False):
            self.server = Server(newest)
            self.slot().forget()
            first, second, third = (self.connect() for _ in range(3))
            self.assertIsNone(first.peer_check.resumed)
            for each in (second, third):
                self.assertIsNotNone(each.peer_check.resumed, newest)
                self.assertTrue(each.peer_check.verified)
                self.assertIsNotNone(each.get_peer_certificate())
            self.assertEqual(len(self.sessions), 1)

    def test_other_source_or_name(self) -> None:
        """Another source, another host or another port has its own."""
        self.connect()
        for slot in (self.slot("two"), self.slot(host="mx2"), self.sessions.slot("one", NAME, 26)):
            self.assertIsNone(self.connect(slot).peer_check.resumed)

    def test_weaker_policy(self) -> None:
        """What was found without a good certificate is not resumed where one is demanded."""
        unknown = ClientTrust(system=False)
        for trust, verified in ((unknown, False), (self.trust, True)):
            self.slot().forget()
            first = self.connect(verify=False, trust=trust)
            again = self.connect(verify=False, trust=trust)
            self.assertEqual(first.peer_check.verified, verified)
            self.assertEqual(again.peer_check.verified, verified)
            self.assertEqual(again.peer_check.error, first.peer_check.error)
            self.assertIsNotNone(again.peer_check.resumed)
            slot = self.slot()
            self.assertEqual(slot.take(trust.context, verify=True) is not None, verified)

    def test_other_trust(self) -> None:
        """A session is not resumed under other trust anchors."""
        self.connect()
        slot = self.slot()
        self.assertIsNone(slot.take(ClientTrust(system=False).context, verify=False))
        self.assertFalse(slot.offered)

    def test_host_forgot(self) -> None:
        """A host that does not know the session shakes hands in full, and is checked again."""
        self.connect()
        self.server = Server()
        slot = self.slot()
        again = self.connect(slot)
        self.assertTrue(slot.offered)
        self.assertIsNone(again.peer_check.resumed)
        self.assertTrue(again.peer_check.verified)

    def test_wrong_name_after_an_offer(self) -> None:
        """A full handshake after an offer is judged by its own certificate."""
        self.connect()
        kept = self.slot()
        self.server = Server()
        other = client_tls_options(
            "mx.elsewhere.example", verify=False, trust=self.trust, slot=kept
        )
        client = other.clientConnectionForTLS(None)
        server = SSL.Connection(self.server.context, None)
        client.set_connect_state()
        server.set_accept_state()
        pump(client, server)
        assert isinstance(client, CheckedConnection)
        self.assertFalse(client.peer_check.verified)
        self.assertIn("not for mx.elsewhere.example", client.peer_check.error)

    def test_checked_again(self) -> None:
        """After an hour the certificate is looked at again, however often it was resumed."""
        self.connect()
        self.clock.advance(LIFETIME - 1)
        self.assertIsNotNone(self.connect().peer_check.resumed)
        self.clock.advance(2)
        self.assertIsNone(self.connect().peer_check.resumed)
        self.assertEqual(len(self.sessions), 1)

    def test_bounded(self) -> None:
        """Only so many are kept: those that were used last."""
        self.sessions = TLSSessions(self.clock.seconds, limit=2)
        for source in ("one", "two", "one", "three"):
            self.connect(self.slot(source))
        self.assertEqual(len(self.sessions), 2)
        self.assertIsNotNone(self.connect(self.slot("one")).peer_check.resumed)
        self.assertIsNone(self.connect(self.slot("two")).peer_check.resumed)

    def test_without_slot(self) -> None:
        """Without a slot nothing is offered and nothing kept."""
        options = client_tls_options(NAME, verify=True, trust=self.trust)
        client = options.clientConnectionForTLS(None)
        server = SSL.Connection(self.server.context, None)
        client.set_connect_state()
        server.set_accept_state()
        pump(client, server)
        assert isinstance(client, CheckedConnection)
        options.ended(client)
        self.assertEqual(len(self.sessions), 0)
