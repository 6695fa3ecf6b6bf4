"""Broken proxies never bounce a message and never lose a banner; a pool's others go on."""

from __future__ import annotations

from twisted.internet import reactor as global_reactor
from twisted.trial.unittest import TestCase

from tests.integration.badproxy import (
    CONNECTED,
    BadProxyProtocol,
    Step,
    start_bad_proxy,
)
from tests.integration.client import send_mail
from tests.integration.configurations import through_socks5
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port, until

BANNER = b"220 mx.example.com ESMTP\r\n"


class BrokenProxyTests(TestCase):
    """Each way to be broken has its words, and keeps the mail."""

    async def failure(self, proxy: int, extra: str = "") -> tuple[Kumo, str]:
        """Send through a broken proxy; give the text of the failure."""
        config = through_socks5("[127.0.0.1]:2599", proxy) + extra
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        content = record["response"]["content"]
        self.assertIn(f"127.0.0.1:{proxy}", content)
        self.assertIn("socks5", content.lower())
        self.assertEqual(kumo.records(type="Bounce"), [])
        return kumo, content

    async def broken(self, behave: Step, extra: str = "") -> str:
        """L{failure} with a proxy that behaves so."""
        _, content = await self.failure(start_bad_proxy(self, behave).port, extra)
        return content

    async def test_down(self) -> None:
        """Nobody listens: the proxy refused the connection, and the mail is tried again."""
        kumo, content = await self.failure(free_port())
        self.assertIn("refused", content.lower())
        await kumo.wait_for_records(2, type="TransientFailure")

    async def test_closes(self) -> None:
        """It closes after the greeting."""
        await self.broken(lambda c, data: c.transport.loseConnection() if data else None)

    async def test_refuses_every_method(self) -> None:
        """It answers 05 FF."""
        content = await self.broken(
            lambda c, data: c.transport.write(b"\x05\xff") if data else None
        )
        self.assertIn("method", content.lower())

    async def test_hangs(self) -> None:
        """It says nothing: the connect timeout ends it."""
        content = await self.broken(lambda c, data: None, "connect_timeout = 1s\n")
        self.assertIn("within 1 s", content)

    async def test_hangs_after_the_greeting(self) -> None:
        """It accepts the method and then says nothing."""

        def behave(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"\x05\x00")

        await self.broken(behave, "connect_timeout = 1s\n")

    async def test_talks_http(self) -> None:
        """It is a web server."""
        reply = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        await self.broken(lambda c, data: c.transport.write(reply) if data else None)

    async def test_answers_garbage(self) -> None:
        """It answers with octets that mean nothing."""
        await self.broken(lambda c, data: c.transport.write(b"\xde\xad\xbe\xef" * 200))

    async def test_refuses_by_rule(self) -> None:
        """REP 02 is the proxy's word, and its meaning is told."""

        def behave(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"\x05\x00")
            elif connection.step == 2:
                connection.transport.write(b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")

        self.assertIn("rules do not allow", await self.broken(behave))

    async def test_another_address_after_bind(self) -> None:
        """A BIND reply with another address is a bind failure, and no CONNECT is sent."""

        def behave(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"\x05\x00")
            elif connection.step == 2:
                connection.transport.write(CONNECTED)

        proxy = start_bad_proxy(self, behave)
        config = through_socks5("[127.0.0.1]:2599", proxy.port, source="127.0.0.55")
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("instead of 127.0.0.55", record["response"]["content"])
        bind = b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x007\x00\x00"
        self.assertEqual(proxy.connections[0].received, bind)


class SlowAndGluedTests(TestCase):
    """A proxy that is odd but right delivers."""

    async def conversation(self, reply: Step) -> None:
        """A whole delivery through a proxy that is also the mail host behind itself."""

        def behave(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step <= 2:
                reply(connection, data)
                return
            answers = {
                b"EHLO": b"250 mx.example.com\r\n",
                b"MAIL": b"250 ok\r\n",
                b"RCPT": b"250 ok\r\n",
                b"DATA": b"354 go\r\n",
                b"QUIT": b"221 bye\r\n",
            }
            if data[:4] in answers:
                connection.transport.write(answers[data[:4]])
            elif data.endswith(b"\r\n.\r\n"):
                connection.transport.write(b"250 2.0.0 taken\r\n")

        proxy = start_bad_proxy(self, behave)
        config = through_socks5("[127.0.0.1]:2599", proxy.port) + "enable_tls = Disabled\n"
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertEqual(record["response"]["content"], "taken")
        self.assertEqual(len(proxy.connections), 1)

    async def test_banner_glued_to_the_reply(self) -> None:
        """The banner in the same segment as the reply is not lost, and comes once."""

        def reply(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"\x05\x00")
            elif connection.step == 2:
                connection.transport.write(CONNECTED + BANNER)

        await self.conversation(reply)

    async def test_one_octet_at_a_time(self) -> None:
        """Replies and banner may come in any pieces."""

        def reply(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.drip(b"\x05\x00")
            elif connection.step == 2:
                connection.drip(CONNECTED + BANNER)

        await self.conversation(reply)

    async def test_reply_with_a_name(self) -> None:
        """The address of a reply may be a name of any length."""

        def reply(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"\x05\x00")
            elif connection.step == 2:
                name = b"proxy.example.com"
                connection.transport.write(
                    b"\x05\x00\x00\x03" + bytes([len(name)]) + name + b"\x00\x19"
                )
                global_reactor.callLater(0.05, connection.transport.write, BANNER)

        await self.conversation(reply)


class PoolTests(TestCase):
    """With a broken proxy in the pool, mail leaves through the others."""

    async def test_others_are_tried(self) -> None:
        """Ten messages all arrive, though every second source is down."""
        sink = start_sink(self)
        dead = start_bad_proxy(self, lambda c, data: c.transport.abortConnection())
        config = f"""
[source:broken]
socks5_proxy_server = 127.0.0.1:{dead.port}

[source:working]
source_address = 127.0.0.8

[pool:out]
broken = 50
working = 50

[queue:default]
egress_pool = out
route = {sink.route}
retry_interval = 1s
"""
        kumo = await start_kumo(self, config)
        for number in range(10):
            await send_mail(kumo.port, recipients=[f"you{number}@example.com"])
        await kumo.wait_for_records(10, type="Delivery", seconds=40)
        self.assertEqual(len(sink.mails), 10)
        self.assertEqual({mail.peer for mail in sink.mails}, {"127.0.0.8"})
        self.assertEqual(kumo.records(type="Bounce"), [])
        await until(lambda: dead.connections, "a try of the broken proxy", 1)
