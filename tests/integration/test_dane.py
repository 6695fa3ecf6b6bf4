"""DANE with real parts: zones that the test signs, NSD, a validating Unbound, mail hosts, and a
proxy on the way to them."""

from __future__ import annotations

import hashlib

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import crypto
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import LOCAL_PROXY
from tests.integration.nameservers import Zone, start_name_servers
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port

CONFIG = f"""{LOCAL_PROXY}
[dns]
nameservers = 127.0.0.1:<dns>
timeout = 20s

[source:one]
socks5_proxy_server = 127.0.0.1:<proxy>
socks5_proxy_source_address = 127.0.0.33

[pool:out]
one = 1

[queue:default]
egress_pool = out

[path:default]
smtp_port = <port>
prohibited_hosts = 192.0.2.0/24
enable_tls = OpportunisticInsecure
enable_dane = yes
"""

CLEAR_HOST, TLS_HOST = "127.0.0.32", "127.0.0.31"
WRONG = "00" * 32

#: What each domain's mail comes to: DELIVERED with what the record says of the policy, or KEPT
#: with words of the reason.
DELIVERED, KEPT = "Delivery", "TransientFailure"


@attrs.define(frozen=True)
class Case:
    """A domain.

    @ivar records: its zone, with C{PORT} and C{TLSA} of the right certificate filled in.
    @ivar outcome: the type of the record.
    @ivar words: what stands in its C{tls_policy}, or in its response if it is kept.
    """

    records: str
    outcome: str
    words: str
    signed: bool = True
    damaged: tuple[str, ...] = ()
    expired: bool = False


MX = f"@ IN MX 10 mx\nmx IN A {TLS_HOST}\n"
AT = "_PORT._tcp.mx IN TLSA "
CASES = {
    "ee-sha256": Case(MX + AT + "3 1 1 KEY256", DELIVERED, "DANE: TLSA records of mx.ee-sha256"),
    "ee-sha512": Case(MX + AT + "3 0 2 LEAF512", DELIVERED, "DANE: TLSA"),
    "ee-full": Case(MX + AT + "3 0 0 LEAF", DELIVERED, "DANE: TLSA"),
    "ta": Case(MX + AT + "2 0 1 ROOT256", DELIVERED, "DANE: TLSA"),
    "ta-full": Case(MX + AT + "2 0 0 ROOT", DELIVERED, "DANE: TLSA"),
    "ta-other-name": Case(MX + AT + "2 0 1 ROOT256", KEPT, "is for none of mx.ta-other-name"),
    "mismatch": Case(MX + AT + f"3 1 1 {WRONG}", KEPT, "no TLSA record of mx.mismatch"),
    "rollover": Case(
        MX + AT + f"3 1 1 {WRONG}\n" + AT + "3 1 1 KEY256", DELIVERED, "DANE: TLSA records"
    ),
    "stronger-digest": Case(
        MX + AT + "3 1 1 KEY256\n" + AT + f"3 1 2 {WRONG * 2}", KEPT, "no TLSA record"
    ),
    "unusable": Case(MX + AT + f"1 1 1 {WRONG}", DELIVERED, "only unusable TLSA records"),
    "unusable-clear": Case(
        f"@ IN MX 10 mx\nmx IN A {CLEAR_HOST}\n" + AT + f"0 0 1 {WRONG}", KEPT, "STARTTLS"
    ),
    "clear": Case(f"@ IN MX 10 mx\nmx IN A {CLEAR_HOST}\n" + AT + "3 1 1 KEY256", KEPT, "STARTTLS"),
    "unsigned": Case(MX + AT + f"3 1 1 {WRONG}", DELIVERED, "enable_tls", signed=False),
    "unsigned-mx": Case("@ IN MX 10 mx.mismatch.example.", DELIVERED, "enable_tls", signed=False),
    "none": Case(MX, DELIVERED, "enable_tls"),
    "bogus": Case(MX + AT + "3 1 1 KEY256", KEPT, "SERVFAIL", damaged=("TLSA",)),
    "expired": Case(MX + AT + "3 1 1 KEY256", KEPT, "SERVFAIL", expired=True),
    "alias": Case(
        "@ IN MX 10 mx\nmx IN CNAME mx.ee-sha256.example.", DELIVERED, "of mx.ee-sha256.example"
    ),
    "alias-unsigned": Case(
        "@ IN MX 10 mx\nmx IN CNAME mx.unsigned.example.\n" + AT + f"3 1 1 {WRONG}",
        KEPT,
        "no TLSA record of mx.alias-unsigned.example",
    ),
    "implicit": Case(
        f"@ IN A {TLS_HOST}\n_PORT._tcp IN TLSA 3 1 1 KEY256", DELIVERED, "of implicit.example"
    ),
    "second-host": Case(
        "@ IN MX 10 mx.mismatch.example.\n@ IN MX 20 mx.ee-sha256.example.",
        DELIVERED,
        "of mx.ee-sha256.example",
    ),
}


def _texts(leaf: x509.Certificate, root: x509.Certificate) -> dict[str, str]:
    """The data of TLSA records, by the names that the cases use."""
    der, key = (
        leaf.public_bytes(Encoding.DER),
        leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )
    anchor = root.public_bytes(Encoding.DER)
    return {
        "KEY256": hashlib.sha256(key).hexdigest(),
        "LEAF512": hashlib.sha512(der).hexdigest(),
        "LEAF": der.hex(),
        "ROOT256": hashlib.sha256(anchor).hexdigest(),
        "ROOT": anchor.hex(),
    }


def _mail_host() -> tuple[CertificateOptions, dict[str, str]]:
    """A certificate that an authority of the test's own signs, presented with it."""
    authority = trustme.CA()
    issued = authority.issue_cert("mx.ta.example", "mx.ta-full.example")
    root = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    leaf = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    key = crypto.load_privatekey(crypto.FILETYPE_PEM, issued.private_key_pem.bytes())
    options = CertificateOptions(
        privateKey=key,
        certificate=crypto.X509.from_cryptography(leaf),
        extraCertChain=[crypto.X509.from_cryptography(root)],
    )
    return options, _texts(leaf, root)


class DANETests(TestCase):
    """One node, and a domain for each way in which DANE can go."""

    async def test_every_zone(self) -> None:
        """Mail goes where the certificate is the one that a signed zone names, stays where it is
        another or the zone's word cannot be had, and goes as configured where DANE says nothing."""
        port = free_port()
        options, texts = _mail_host()
        zones = []
        for name, case in CASES.items():
            records = case.records.replace("PORT", str(port)) + "\n"
            for word, text in sorted(texts.items(), reverse=True):
                records = records.replace(f" {word}\n", f" {text}\n")
            zones.append(Zone(f"{name}.example", records, case.signed, case.damaged, case.expired))
        dns_port = await start_name_servers(self, zones)
        sink = start_sink(self, host=TLS_HOST, port=port, tls=options)
        clear = start_sink(self, host=CLEAR_HOST, port=port)
        names = {"dns": dns_port, "port": port, "proxy": free_port()}
        kumo = await start_kumo(self, CONFIG, names=names)
        for name in CASES:
            await send_mail(kumo.port, [f"you@{name}.example"])
        delivered = {name for name, case in CASES.items() if case.outcome == DELIVERED}
        await kumo.wait_for_records(len(delivered), seconds=60, type=DELIVERED)
        await kumo.wait_for_records(len(CASES) - len(delivered), seconds=60, type=KEPT)
        for record in [*kumo.records(type=DELIVERED), *kumo.records(type=KEPT)]:
            name = record["recipient"].removeprefix("you@").removesuffix(".example")
            case = CASES[name]
            self.assertEqual(record["type"], case.outcome, record)
            found = record["tls_policy"] if case.outcome == DELIVERED else str(record["response"])
            self.assertIn(case.words, found)
            if case.outcome == DELIVERED:
                self.assertTrue(record["tls_cipher"], record)
            else:
                self.assertEqual(record["response"]["code"], 451)
        arrived = {mail.recipients[0] for mail in sink.mails}
        self.assertEqual(arrived, {f"you@{name}.example" for name in delivered})
        self.assertEqual({mail.peer for mail in sink.mails}, {"127.0.0.33"}, "through the proxy")
        self.assertEqual(clear.mails, [])
        self.assertEqual(kumo.records(type="Bounce"), [])
