"""Delivery records: JSON lines, in KumoMTA's shape, readable within a second."""

from __future__ import annotations

import time

from twisted.trial.unittest import TestCase

from tests.integration.client import MESSAGE, send_mail
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink

FIELDS = {
    "type", "id", "sender", "recipient", "queue", "site", "size", "response", "peer_address",
    "timestamp", "event_time", "created", "num_attempts", "egress_pool", "egress_source",
    "source_address", "bounce_classification", "delivery_protocol", "reception_protocol",
    "tls_cipher", "tls_protocol_version", "nodeid", "session_id",
}  # fmt: skip


class RecordTests(TestCase):
    """What is written for one message."""

    async def test_reception_and_delivery(self) -> None:
        """Both records have every field, agree with each other, and with what happened."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route, address="127.0.0.7"))
        before = int(time.time())
        await send_mail(kumo.port)
        await sink.wait_for_mails()
        delivered = time.monotonic()
        [delivery] = await kumo.wait_for_records(type="Delivery")
        self.assertLess(time.monotonic() - delivered, 1.5)
        [reception] = kumo.records(type="Reception")
        for record in (reception, delivery):
            self.assertEqual(FIELDS - set(record), set())
            self.assertEqual(record["sender"], "sender@example.org")
            self.assertEqual(record["recipient"], "you@example.com")
            self.assertEqual(record["queue"], "example.com")
            self.assertGreaterEqual(record["size"], len(MESSAGE))
            self.assertEqual(record["id"], delivery["id"])
            self.assertTrue(before <= record["created"] <= record["timestamp"] <= time.time())
            self.assertEqual(record["nodeid"], delivery["nodeid"])
        self.assertEqual(reception["reception_protocol"], "ESMTP")
        self.assertEqual(reception["peer_address"]["addr"].partition(":")[0], "127.0.0.1")
        self.assertEqual(delivery["delivery_protocol"], "ESMTP")
        self.assertEqual(delivery["response"]["code"], 250)
        self.assertEqual(
            delivery["response"]["enhanced_code"], {"class": 2, "subject": 0, "detail": 0}
        )
        self.assertEqual(delivery["response"]["content"], "Taken")
        way = delivery["source_address"]
        self.assertEqual(way["address"], f"127.0.0.7:{sink.sessions[0].port}")
        self.assertIsNone(way.get("protocol"))

    async def test_node_id_survives(self) -> None:
        """A node keeps its id over restarts."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="Delivery")
        await kumo.stop()
        kumo = await kumo.restart(self)
        await send_mail(kumo.port)
        records = await kumo.wait_for_records(2, type="Delivery")
        self.assertEqual(len({record["nodeid"] for record in records}), 1)
        self.assertEqual(len({record["id"] for record in records}), 2)
