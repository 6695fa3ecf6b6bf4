"""DANE: TLSA records against certificates, alone and in real handshakes in memory."""

from __future__ import annotations

import datetime
import hashlib

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions
from twisted.test.iosim import connect
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.tls.client import client_tls_options
from kumotwist.tls.dane import DANE, TLSARecord, mismatch, usable_records
from tests.memory_tls import TLSFakeTransport
from tests.test_tls_client import Side

NAME = "mx.b.example"
LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


def _load(blob: trustme.Blob) -> x509.Certificate:
    return x509.load_pem_x509_certificate(blob.bytes())


def _whole(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _key(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


ROOT = trustme.CA()
MIDDLE = ROOT.create_child_ca()
LEAF_CERT = MIDDLE.issue_cert(NAME)
OLD_CERT = MIDDLE.issue_cert(
    NAME, not_before=LONG_AGO - datetime.timedelta(days=365), not_after=LONG_AGO
)
LEAF, OLD = _load(LEAF_CERT.cert_chain_pems[0]), _load(OLD_CERT.cert_chain_pems[0])
CHAIN = [LEAF, _load(MIDDLE.cert_pem), _load(ROOT.cert_pem)]


def sha256(octets: bytes) -> bytes:
    """The digest of matching type 1."""
    return hashlib.sha256(octets).digest()


def sha512(octets: bytes) -> bytes:
    """The digest of matching type 2."""
    return hashlib.sha512(octets).digest()


class UsableTests(SynchronousTestCase):
    """Which records count."""

    def test_usages(self) -> None:
        """Usages 2 and 3 do, with a known selector and a digest of the right length; the PKIX
        usages do not, nor does what makes no sense."""
        good = [
            TLSARecord(3, 1, 1, bytes(32)), TLSARecord(2, 0, 2, bytes(64)),
            TLSARecord(3, 0, 0, _whole(LEAF)), TLSARecord(2, 1, 0, _key(LEAF)),
        ]  # fmt: skip
        bad = [
            TLSARecord(0, 0, 1, bytes(32)), TLSARecord(1, 1, 1, bytes(32)),
            TLSARecord(3, 2, 1, bytes(32)), TLSARecord(3, 1, 3, bytes(32)),
            TLSARecord(3, 1, 1, bytes(31)), TLSARecord(2, 0, 2, bytes(32)),
            TLSARecord(3, 1, 0, _whole(LEAF)), TLSARecord(3, 0, 0, b""), TLSARecord(4, 0, 0, b"x"),
        ]  # fmt: skip
        for record in good:
            self.assertEqual(usable_records([record]), (record,), str(record))
        self.assertEqual(usable_records(bad), ())
        self.assertEqual(usable_records([*bad, good[0]]), (good[0],))

    def test_strongest_digest(self) -> None:
        """Of one usage and selector the stronger digest counts alone, beside whole data."""
        weak, strong = TLSARecord(3, 1, 1, bytes(32)), TLSARecord(3, 1, 2, bytes(64))
        other, whole = TLSARecord(2, 1, 1, bytes(32)), TLSARecord(3, 1, 0, _key(LEAF))
        self.assertEqual(usable_records([weak, strong, other, whole]), (strong, other, whole))
        self.assertEqual(usable_records([TLSARecord(3, 1, 2, b"short"), weak]), (weak,))

    def test_bounded(self) -> None:
        """A flood of records is not gone through."""
        self.assertEqual(len(usable_records([TLSARecord(3, 1, 1, bytes(32))] * 1000)), 20)

    @given(st.binary(max_size=300))
    def test_anything(self, octets: bytes) -> None:
        """Whatever stands in a record, it is usable or it is not."""
        for usage, selector in ((2, 0), (3, 1)):
            usable_records([TLSARecord(usage, selector, 0, octets)])


class MatchTests(SynchronousTestCase):
    """Chains against records."""

    def check(self, record: TLSARecord, chain: list[x509.Certificate], *names: str) -> str:
        """Why a chain is not authentic."""
        return mismatch(DANE(NAME, (record,), names or (NAME,)), chain)

    def test_end_entity(self) -> None:
        """Usage 3 compares the host's own certificate or key, in each of the three ways."""
        for selector, octets in ((0, _whole(LEAF)), (1, _key(LEAF))):
            for matching, data in ((0, octets), (1, sha256(octets)), (2, sha512(octets))):
                record = TLSARecord(3, selector, matching, data)
                self.assertEqual(self.check(record, [LEAF]), "", str(record))
                wrong = record._replace(data=bytes([data[0] ^ 1]) + data[1:])
                self.assertIn("no TLSA record", self.check(wrong, [LEAF]))

    def test_end_entity_ignores_the_rest(self) -> None:
        """For usage 3 names and dates do not matter; an authority's certificate is no match."""
        record = TLSARecord(3, 1, 1, sha256(_key(OLD)))
        self.assertEqual(self.check(record, [OLD], "other.example"), "")
        record = TLSARecord(3, 0, 1, sha256(_whole(CHAIN[1])))
        self.assertIn("no TLSA record", self.check(record, CHAIN))

    def test_trust_anchor(self) -> None:
        """Usage 2 takes any authority of the chain, and one that is in the record as a whole."""
        for anchor in CHAIN[1:]:
            for selector, octets in ((0, _whole(anchor)), (1, _key(anchor))):
                for matching, data in ((0, octets), (1, sha256(octets)), (2, sha512(octets))):
                    record = TLSARecord(2, selector, matching, data)
                    self.assertEqual(self.check(record, CHAIN), "", str(record))
        self.assertEqual(self.check(TLSARecord(2, 0, 0, _whole(CHAIN[2])), CHAIN[:2]), "")

    def test_trust_anchor_checks_the_rest(self) -> None:
        """For usage 2 names, dates and signatures matter, and the host's own certificate is no
        authority."""
        record = TLSARecord(2, 0, 1, sha256(_whole(CHAIN[2])))
        self.assertIn("none of other.example", self.check(record, CHAIN, "other.example"))
        self.assertEqual(self.check(record, CHAIN, "other.example", NAME), "")
        self.assertIn("expired", self.check(record, [OLD, *CHAIN[1:]]))
        stranger = _load(trustme.CA().issue_cert(NAME).cert_chain_pems[0])
        self.assertIn("not valid", self.check(record, [stranger, *CHAIN[1:]]))
        record = TLSARecord(2, 0, 1, sha256(_whole(LEAF)))
        self.assertIn("no TLSA record", self.check(record, CHAIN))

    def test_rollover(self) -> None:
        """One record that matches is enough."""
        records = (TLSARecord(3, 1, 1, bytes(32)), TLSARecord(3, 1, 1, sha256(_key(LEAF))))
        self.assertEqual(mismatch(DANE(NAME, records, (NAME,)), [LEAF]), "")

    def test_nothing_presented(self) -> None:
        """No certificate is no match."""
        self.assertIn("no certificate", self.check(TLSARecord(3, 1, 1, bytes(32)), []))


class HandshakeTests(SynchronousTestCase):
    """Real handshakes."""

    def shake(self, record: TLSARecord, *, verify: bool = True) -> tuple[Side, Side]:
        """Let a client with DANE and a server with the whole chain do a handshake."""
        creator = client_tls_options(NAME, verify=verify, dane=DANE(NAME, (record,), (NAME,)))
        server = CertificateOptions(
            privateKey=crypto.load_privatekey(
                crypto.FILETYPE_PEM, LEAF_CERT.private_key_pem.bytes()
            ),
            certificate=crypto.X509.from_cryptography(LEAF),
            extraCertChain=[crypto.X509.from_cryptography(one) for one in CHAIN[1:]],
        )
        client, other = Side(creator, b"hello"), Side(server, b"welcome")
        connect(other, TLSFakeTransport(other, True), client, TLSFakeTransport(client, False))
        return client, other

    def test_good(self) -> None:
        """A match makes the session verified, though no authority is trusted."""
        for record in (
            TLSARecord(3, 1, 1, sha256(_key(LEAF))),
            TLSARecord(2, 0, 1, sha256(_whole(CHAIN[2]))),
            TLSARecord(2, 1, 1, sha256(_key(CHAIN[1]))),
        ):
            client, other = self.shake(record)
            self.assertEqual((client.heard, other.heard), (b"welcome", b"hello"))
            assert client.facts is not None
            self.assertTrue(client.facts.verified)

    def test_bad(self) -> None:
        """Without a match nothing is said at all."""
        client, other = self.shake(TLSARecord(3, 1, 1, bytes(32)))
        self.assertEqual((client.heard, other.heard), (b"", b""))
        assert client.lost is not None
        self.assertTrue(client.lost.check(SSL.Error))
        client, _ = self.shake(TLSARecord(3, 1, 1, bytes(32)), verify=False)
        assert client.facts is not None
        self.assertIn("no TLSA record of mx.b.example", client.facts.verify_error)
