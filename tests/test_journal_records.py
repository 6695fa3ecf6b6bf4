"""The shape of records."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.journal import RECORD_TYPES, AttemptForm, SourceAddress, make_record, records
from kumotwist.journal.receptions import ReceptionForm
from kumotwist.journal.records import encode_record, render_time
from kumotwist.message import QueuedMessage
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

MESSAGE = QueuedMessage(
    id="0190163d8694739b8fa1000102030405",
    sender="me@example.net",
    recipient="you@example.org",
    queue="example.org",
    size=1234,
    created=1751365957.25,
    due=0.0,
    attempts=2,
    meta={"reception_protocol": "ESMTP"},
)
REPLY = Reply(250, EnhancedCode(2, 0, 0), ("OK", "queued"), ".")
FIELDS = [
    "type",
    "id",
    "sender",
    "recipient",
    "queue",
    "site",
    "size",
    "response",
    "peer_address",
    "timestamp",
    "event_time",
    "created",
    "created_time",
    "num_attempts",
    "bounce_classification",
    "egress_pool",
    "egress_source",
    "source_address",
    "delivery_protocol",
    "reception_protocol",
    "tls_cipher",
    "tls_protocol_version",
    "tls_peer_subject_name",
    "tls_policy",
    "nodeid",
    "session_id",
    "meta",
    "headers",
]


class RecordTests(SynchronousTestCase):
    """KumoMTA's record, field by field."""

    def test_delivery(self) -> None:
        """A delivery through a proxy says everything there is to say."""
        record = make_record(
            "Delivery",
            now=1751365960.5,
            nodeid="node",
            response=REPLY,
            message=MESSAGE,
            site="(mx1|mx2).example.org",
            peer_name="mx1.example.org",
            peer_address="192.0.2.25",
            egress_pool="pool",
            egress_source="ip-1",
            source_address=SourceAddress("10.0.0.1:53210", "10.0.5.10:5000", "socks5"),
            delivery_protocol="ESMTP",
            tls_cipher="TLS_AES_256_GCM_SHA384",
            tls_protocol_version="TLSv1.3",
            session_id="session",
        )
        self.assertEqual(
            record,
            {
                "type": "Delivery",
                "id": "0190163d8694739b8fa1000102030405",
                "sender": "me@example.net",
                "recipient": "you@example.org",
                "queue": "example.org",
                "site": "(mx1|mx2).example.org",
                "size": 1234,
                "response": {
                    "code": 250,
                    "enhanced_code": {"class": 2, "subject": 0, "detail": 0},
                    "content": "OK queued",
                    "command": ".",
                },
                "peer_address": {"name": "mx1.example.org", "addr": "192.0.2.25"},
                "timestamp": 1751365960,
                "event_time": "2025-07-01T10:32:40.500000Z",
                "created": 1751365957,
                "created_time": "2025-07-01T10:32:37.250000Z",
                "num_attempts": 2,
                "bounce_classification": "Uncategorized",
                "egress_pool": "pool",
                "egress_source": "ip-1",
                "source_address": {
                    "address": "10.0.0.1:53210",
                    "server": "10.0.5.10:5000",
                    "protocol": "socks5",
                },
                "delivery_protocol": "ESMTP",
                "reception_protocol": "ESMTP",
                "tls_cipher": "TLS_AES_256_GCM_SHA384",
                "tls_protocol_version": "TLSv1.3",
                "tls_peer_subject_name": None,
                "tls_policy": None,
                "nodeid": "node",
                "session_id": "session",
                "meta": {},
                "headers": {},
            },
        )

    def test_rejection(self) -> None:
        """A refused client has no message: what is known of it is given word by word."""
        record = make_record(
            "Rejection",
            now=1.0,
            nodeid="node",
            response=Reply(550, None, ("relaying not permitted",)),
            sender="a@b",
            recipient="c@d",
            peer_name="client",
            peer_address="192.0.2.1",
            reception_protocol="ESMTP",
        )
        self.assertEqual((record["id"], record["sender"], record["recipient"]), ("", "a@b", "c@d"))
        self.assertEqual((record["queue"], record["site"], record["size"]), ("", "", 0))
        self.assertIsNone(record["response"]["enhanced_code"])
        self.assertIsNone(record["response"]["command"])
        self.assertEqual(record["created"], 1)

    def test_direct_source(self) -> None:
        """A direct connection has an address, and neither proxy nor protocol."""
        record = make_record(
            "Delivery",
            now=1.0,
            nodeid="node",
            response=REPLY,
            message=MESSAGE,
            source_address=SourceAddress("10.0.0.1:2525"),
        )
        self.assertEqual(
            record["source_address"],
            {"address": "10.0.0.1:2525", "server": None, "protocol": None},
        )

    def test_every_type_has_the_same_fields(self) -> None:
        """Programs find each field in each record, null where there is nothing to say."""
        for kind in RECORD_TYPES:
            record = make_record(kind, now=1.0, nodeid="node", response=REPLY)  # type: ignore[arg-type]
            self.assertEqual(list(record), FIELDS)
            self.assertEqual(json.loads(json.dumps(record)), record)

    def test_overrides(self) -> None:
        """What the caller knows better than the message wins."""
        record = make_record(
            "Reception",
            now=1.0,
            nodeid="node",
            response=REPLY,
            message=MESSAGE,
            num_attempts=0,
            reception_protocol="HTTP",
            meta={"x_a": 1},
        )
        self.assertEqual(record["num_attempts"], 0)
        self.assertEqual(record["reception_protocol"], "HTTP")
        self.assertEqual(record["meta"], {"x_a": 1})

    def test_hostile_reply(self) -> None:
        """What a peer said is bounded and has no control characters."""
        record = make_record(
            "Bounce",
            now=1.0,
            nodeid="node",
            response=Reply(550, None, ("a\x1b[2J\r\n" + "x" * 10_000,)),
            message=MESSAGE,
        )
        content = record["response"]["content"]
        self.assertTrue(content.startswith("a\\x1b[2J\\x0d\\x0ax"))
        self.assertLessEqual(len(content), 1024)

    def test_times(self) -> None:
        """Times are RFC 3339 in UTC, always with a fraction."""
        self.assertEqual(render_time(0.0), "1970-01-01T00:00:00.000000Z")

    def test_times_are_rounded_as_everywhere(self) -> None:
        """The fraction is what the standard library makes of the moment, at any second's edge."""
        for moment in (1751365957.25, 1751365957.9999999, 0.0000005, 1751365957.1234565, -0.25):
            expected = datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")
            self.assertEqual(render_time(moment), expected.replace("+00:00", "Z"))


class EncodingTests(SynchronousTestCase):
    """A record is the same line whichever way it is written."""

    def records(self) -> list[dict[str, Any]]:
        """Records with little and with much in them."""
        odd = Reply(250, None, ('say "hi"\\', "é \u2028 \x7f \ud83d\ude00"), "")
        full = make_record(
            "Delivery",
            now=1751365960.5,
            nodeid="node",
            response=odd,
            message=MESSAGE,
            site="mx.example.org",
            peer_name="mx\x00.example.org",
            peer_address="192.0.2.25",
            source_address=SourceAddress("192.0.2.1:4000", "192.0.2.2:1080", "socks5"),
            tls_peer_subject_name=["CN=ä", 'O="x"'],
            session_id="s",
            meta={"depth": [1, None, {"é": 0.5}]},
            headers={"Subject": "x"},
        )
        plain = make_record("Rejection", now=1.0, nodeid="node", response=REPLY)
        return [full, plain, {**plain, "tls_peer_subject_name": []}, {**plain, "size": None}]

    def test_known_fields(self) -> None:
        """A field that is new is known to what writes records quickly, too."""
        self.assertEqual(tuple(self.records()[0]), records._FIELDS)

    def test_same_as_json(self) -> None:
        """What is written is what the standard library writes."""
        for record in self.records():
            expected = json.dumps(record, separators=(",", ":"))
            self.assertEqual(encode_record(record), expected)

    def test_other_records(self) -> None:
        """A record with other fields, or with the same in another order, is written as it is."""
        plain = self.records()[1]
        renamed = dict(plain)
        renamed["other"] = renamed.pop("headers")
        turned = dict(reversed(plain.items()))
        for record in (renamed, turned, {}, {"type": "x"}):
            self.assertEqual(json.loads(encode_record(record)), record)
            self.assertEqual(list(json.loads(encode_record(record))), list(record))


class ReceptionFormTests(SynchronousTestCase):
    """Records of receptions, written with what a session has in common."""

    def test_like_all_others(self) -> None:
        """Each is what the record would be that was built field by field."""
        tls = {
            "tls_cipher": "TLS_AES",
            "tls_protocol_version": "TLSv1.3",
            "tls_peer_subject_name": ["cü.example"],
        }
        for facts in ({}, tls, {**tls, "tls_peer_subject_name": None}):
            form = ReceptionForm("5" * 32, 'a"b\u2028ü', "2001:db8::1", "ESMTP", "6" * 32, **facts)
            for reply in (REPLY, Reply(250, None, ("", "\x00"), ".")):
                record = make_record(
                    "Reception",
                    now=MESSAGE.created,
                    nodeid="5" * 32,
                    response=reply,
                    message=MESSAGE,
                    peer_name='a"b\u2028ü',
                    peer_address="2001:db8::1",
                    session_id="6" * 32,
                    **facts,
                )
                self.assertEqual(form.line(MESSAGE, reply), encode_record(record))


class AttemptFormTests(SynchronousTestCase):
    """Records of which a part was written down before."""

    def test_like_all_others(self) -> None:
        """They are, octet for octet, what would be written without that."""
        connections: list[dict[str, Any]] = [
            {"nodeid": "n"},
            {
                "nodeid": 'n"\\',
                "site": "mx.\u00fc.example",
                "peer_name": "mx",
                "peer_address": "192.0.2.1",
                "egress_source": "s",
                "source_address": SourceAddress("192.0.2.9:0", None, "haproxy"),
                "delivery_protocol": "ESMTP",
                "tls_cipher": "c",
                "tls_protocol_version": "TLSv1.3",
                "tls_peer_subject_name": ["C=\u00e9", "CN=x"],
                "tls_policy": "dane",
                "session_id": "id",
            },
        ]
        odd = QueuedMessage(
            "x", "", "\U0001f600@b", "q", 0, 5.0, 0.0, meta={"reception_protocol": [1, "x"]}
        )
        replies = (REPLY, Reply(451, None, ("\x1b[1m", ""), ""), Reply(550, None, ("no",), "RCPT"))
        for values in connections:
            form = AttemptForm(**values)
            for message in (MESSAGE, odd):
                for reply in replies:
                    for pool in ("p", None):
                        record = make_record(
                            "Bounce",
                            now=1751365957.75,
                            response=reply,
                            message=message,
                            egress_pool=pool,
                            **values,
                        )
                        self.assertEqual(
                            form.line("Bounce", message, reply, 1751365957.75, pool),
                            encode_record(record),
                        )
