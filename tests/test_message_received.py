"""The trace line on top of an accepted message."""

from __future__ import annotations

import email
import email.policy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message import header_facts, header_fields, received_header

FACTS: dict[str, Any] = {
    "ehlo": "client.example.com",
    "peer": "192.0.2.7",
    "hostname": "mta.example.net",
    "protocol": "ESMTP",
    "message_id": "0190163d8694739b8fa1000102030405",
    "now": 1751365957.9,
    "recipients": ["you@example.org"],
}


class ReceivedTests(SynchronousTestCase):
    """RFC 5321, 4.4, with everything a client says kept in its place."""

    def test_smtputf8(self) -> None:
        """A message with SMTPUTF8 came with UTF8SMTP, and its S and A (RFC 6531, 3.7.3)."""
        for protocol in ("ESMTP", "ESMTPS", "ESMTPSA"):
            line = received_header(**{**FACTS, "protocol": protocol, "smtputf8": True})
            self.assertIn(f" UTF8{protocol[1:]} ".encode(), line.replace(b"\r\n", b""))
        self.assertIn(b" HTTP ", received_header(**{**FACTS, "protocol": "HTTP", "smtputf8": True}))

    def test_plain(self) -> None:
        """The line names client, host, protocol, id, recipient and date, folded."""
        self.assertEqual(
            received_header(**FACTS),
            b"Received: from client.example.com ([192.0.2.7]) by mta.example.net (kumotwist)\r\n"
            b"        with ESMTP id 0190163d8694739b8fa1000102030405 for <you@example.org>;\r\n"
            b"        Tue, 01 Jul 2025 10:32:37 +0000\r\n",
        )

    def test_half_a_literal(self) -> None:
        """A name that is neither a domain nor an address literal does not look like one."""
        for ehlo, shown in (
            ("[192.0.2.7]", "[192.0.2.7]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("[127.0.0.1", "?127.0.0.1"),
            ("127.0.0.1]", "127.0.0.1?"),
            ("[[::1]]", "????1??"),
            ("[]", "??"),
        ):
            line = received_header(**{**FACTS, "ehlo": ehlo})
            self.assertTrue(line.startswith(f"Received: from {shown} (".encode()), line)

    def test_tls(self) -> None:
        """An encrypted session is described behind the protocol."""
        line = received_header(
            **{**FACTS, "protocol": "ESMTPS"},
            tls_version="TLSv1.3",
            tls_cipher="TLS_AES_256_GCM_SHA384",
        )
        self.assertIn(b"with ESMTPS (TLSv1.3:TLS_AES_256_GCM_SHA384) id", b" ".join(line.split()))

    def test_client_certificate(self) -> None:
        """Whom a client's certificate is for is named, and cannot leave its place."""
        for subject, shown in (
            ("CN=mta.example,O=Me", "(verified client CN=mta.example,O=Me)"),
            ("CN=a) by evil (\r\nX: y;\\", "(verified client CN=a? by evil ???X: y??)"),
        ):
            line = received_header(
                **{**FACTS, "protocol": "ESMTPS"},
                tls_version="TLSv1.3",
                tls_cipher="X",
                tls_subject=subject,
            )
            self.assertIn(shown.encode(), b" ".join(line.split()))
            self.assertEqual([field.name for field in header_fields(line)], [b"Received"])

    def test_ipv6_peer(self) -> None:
        """An IPv6 address is written as RFC 5321, 4.1.3 wants it, without its zone."""
        line = received_header(**{**FACTS, "peer": "fe80::1%eth0"})
        self.assertIn(b"([IPv6:fe80::1])", line)

    def test_no_peer_and_no_ehlo(self) -> None:
        """What is not known is left out, and the grammar is kept."""
        line = received_header(**{**FACTS, "peer": "unix", "ehlo": ""})
        self.assertTrue(line.startswith(b"Received: from unknown by mta.example.net"), line)

    def test_several_recipients(self) -> None:
        """Recipients are not told of each other."""
        line = received_header(**{**FACTS, "recipients": ["a@example.org", "b@example.org"]})
        self.assertNotIn(b"example.org", line)
        self.assertIn(b"0190163d8694739b8fa1000102030405; Tue", b" ".join(line.split()))

    def test_recipient_not_ascii(self) -> None:
        """A recipient that would need SMTPUTF8 is left out."""
        self.assertNotIn(b"for", received_header(**{**FACTS, "recipients": ["é@example.org"]}))

    def test_counts_as_one_hop(self) -> None:
        """The line is one field and one hop."""
        line = received_header(**FACTS)
        self.assertEqual(header_facts(line + b"\r\n").received, 1)
        self.assertEqual(len(list(header_fields(line))), 1)

    def test_long_names(self) -> None:
        """Endless names are cut, so that no line is longer than 998."""
        line = received_header(**{**FACTS, "ehlo": "x" * 5000, "hostname": "y" * 5000})
        self.assertLess(max(map(len, line.split(b"\r\n"))), 998)

    @given(st.text(), st.text(), st.text())
    def test_no_injection(self, ehlo: str, peer: str, recipient: str) -> None:
        """Whatever a client says, the line stays one folded ASCII field."""
        line = received_header(**{**FACTS, "ehlo": ehlo, "peer": peer, "recipients": [recipient]})
        self.assertTrue(line.isascii() and line.endswith(b"\r\n"))
        self.assertEqual(line.count(b"\r"), line.count(b"\r\n"))
        self.assertEqual(line.count(b"\n"), line.count(b"\r\n"))
        parsed = email.message_from_bytes(line + b"\r\nbody", policy=email.policy.compat32)
        self.assertEqual(parsed.keys(), ["Received"])
        self.assertEqual(parsed.get_payload(), "body")

    def test_forged_field(self) -> None:
        """Line ends in the EHLO name or the recipient do not begin a new field."""
        line = received_header(
            **{**FACTS, "ehlo": "x\r\nBcc: evil", "recipients": ["a@b>\r\nSubject: evil"]}
        )
        self.assertIn(b"from x??Bcc??evil ", line)
        self.assertNotIn(b"Subject", line)
