"""A destination that is unreachable, closes, resets or answers 421 keeps the mail in the queue."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import Act, Sink, start_sink
from tests.integration.waiting import free_port

LARGE = message(body="0123456789" * 7 + "\r\n" + ("x" * 70 + "\r\n") * 4000)


class DisconnectTests(TestCase):
    """Each failure is temporary: the next attempt delivers, once."""

    async def delivered_later(self, sink: Sink, body: bytes = LARGE, path: str = "") -> str:
        """Send; the first attempt fails, a later one delivers. Give the failure's words."""
        kumo = await start_kumo(self, direct(sink.route, path=path))
        await send_mail(kumo.port, body=body)
        [delivery] = await kumo.wait_for_records(type="Delivery")
        self.assertEqual(len(sink.mails), 1)
        self.assertTrue(sink.mails[0].body.endswith(body))
        self.assertEqual(kumo.records(type="Bounce"), [])
        self.assertGreaterEqual(delivery["num_attempts"], 1)
        failures = kumo.records(type="TransientFailure")
        self.assertNotEqual(failures, [])
        return str(failures[0]["response"]["content"])

    async def test_disconnect_in_data(self) -> None:
        """The connection is closed while the message goes out."""
        sink = start_sink(self)
        sink.answer("IN_DATA", Act(close=True))
        await self.delivered_later(sink)

    async def test_reset_in_data(self) -> None:
        """The connection is reset while the message goes out."""
        sink = start_sink(self)
        sink.answer("IN_DATA", Act(reset=True))
        await self.delivered_later(sink)

    async def test_no_reply_after_the_dot(self) -> None:
        """Whether it was taken is not known: it is tried again, and the words say so."""
        sink = start_sink(self)
        sink.answer("BODY", Act(reset=True))
        await self.delivered_later(sink)

    async def test_421_greeting(self) -> None:
        """A host that has no time is left alone and tried again."""
        sink = start_sink(self)
        sink.answer("GREETING", Act("421 4.3.2 Too busy", close=True))
        self.assertIn("Too busy", await self.delivered_later(sink))

    async def test_421_in_the_middle(self) -> None:
        """421 to RCPT ends the session, not the message."""
        sink = start_sink(self)
        sink.answer("RCPT", Act("421 4.3.2 Going down", close=True))
        self.assertIn("Going down", await self.delivered_later(sink))

    async def test_greylisting(self) -> None:
        """451 to RCPT is tried again."""
        sink = start_sink(self)
        sink.answer("RCPT", "451 4.7.1 Greylisted")
        self.assertIn("Greylisted", await self.delivered_later(sink))

    async def test_closes_at_once(self) -> None:
        """A host that closes before its banner."""
        sink = start_sink(self)
        sink.answer("GREETING", Act(close=True))
        await self.delivered_later(sink)

    async def test_hangs_in_data(self) -> None:
        """A host that falls silent is given up after its timeout."""
        sink = start_sink(self)
        sink.answer("DATA", Act(hang=True))
        await self.delivered_later(sink, path="data_timeout = 1s\n")

    async def test_refused_connection(self) -> None:
        """Nobody listens: the failure is recorded, and the mail stays."""
        port = free_port()
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}"))
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("refused", record["response"]["content"].lower())
        sink = start_sink(self, port=port)
        await sink.wait_for_mails()
        await kumo.wait_for_records(type="Delivery")
        self.assertEqual(kumo.records(type="Bounce"), [])

    async def test_next_host_of_the_route(self) -> None:
        """Of two hosts in a route the second takes what the first does not."""
        sink = start_sink(self)
        dead = f"[127.0.0.1]:{free_port()}"
        kumo = await start_kumo(self, direct(f"{dead}, {sink.route}", retry="1h"))
        await send_mail(kumo.port)
        await sink.wait_for_mails()
        await kumo.wait_for_records(type="Delivery")
