"""The tools of the integration tests, by themselves."""

from __future__ import annotations

import socket
import sys

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import converse, message, send_mail
from tests.integration.processes import Child, ChildFailed, run
from tests.integration.sink import Act, certificate_for, start_sink
from tests.integration.waiting import NotInTime, accepts_connections, free_port, until


class WaitingTests(TestCase):
    """Waiting is bounded, and ports are free."""

    async def test_until_gives_the_value(self) -> None:
        """What the condition gave is the result."""
        values = iter([None, 0, "found"])
        self.assertEqual(await until(lambda: next(values), "a value"), "found")

    async def test_until_is_bounded(self) -> None:
        """A condition that stays false is an error that says what was waited for."""
        with self.assertRaises(NotInTime) as caught:
            await until(lambda: False, "the impossible", 0.05)
        self.assertIn("the impossible", str(caught.exception))

    def test_ports_are_not_given_twice(self) -> None:
        """Two free ports differ, and nobody listens there."""
        ports = {free_port() for _ in range(20)}
        self.assertEqual(len(ports), 20)
        self.assertFalse(accepts_connections("127.0.0.1", ports.pop()))


class ChildTests(TestCase):
    """A child's output is kept, and it is killed with all that it forked."""

    async def test_output(self) -> None:
        """What a child writes can be waited for, and so can its end."""
        child = Child(self, "speaker", [sys.executable, "-c", "print('ready 7'); exit(3)"])
        self.assertEqual((await child.wait_for_output(r"ready (\d)")).group(1), "7")
        self.assertEqual(await child.wait_for_exit(), 3)

    async def test_an_early_end_is_told_with_the_output(self) -> None:
        """Waiting for a child that ended fails at once, with what it wrote."""
        child = Child(self, "dying", [sys.executable, "-c", "print('no luck'); exit(1)"])
        with self.assertRaises(ChildFailed) as caught:
            await child.wait_for_listening(free_port())
        self.assertIn("no luck", str(caught.exception))

    async def test_kill_9(self) -> None:
        """Killing a child leaves nothing of it."""
        child = Child(self, "sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
        self.assertTrue(child.running)
        child.kill_9()
        self.assertFalse(child.running)

    def test_run_is_bounded(self) -> None:
        """A command that does not end is killed and told of."""
        with self.assertRaises(ChildFailed):
            run([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.3)


class SinkTests(TestCase):
    """The mail host records what came, and misbehaves as told."""

    async def test_records_mail(self) -> None:
        """Envelope, name, peer and unstuffed body are there."""
        sink = start_sink(self, host="127.0.0.3")
        await deferToThread(
            run, [parts.find("swaks"), "--server", f"127.0.0.3:{sink.port}",
                  "--from", "a@example.org", "--to", "b@example.com", "--ehlo", "me.example.org",
                  "--data", "Subject: x\\n\\n.dot\\n", "-li", "127.0.0.9"],
        )  # fmt: skip
        [mail] = await sink.wait_for_mails()
        self.assertEqual((mail.sender, mail.recipients), ("a@example.org", ["b@example.com"]))
        self.assertEqual((mail.peer, mail.helo, mail.tls), ("127.0.0.9", "me.example.org", False))
        self.assertTrue(mail.body.startswith(b"Subject: x\r\n\r\n.dot\r\n"), mail.body)
        self.assertIn(b"\r\n..dot\r\n", mail.raw)

    async def test_starttls(self) -> None:
        """With a certificate STARTTLS is offered, and the mail is marked."""
        options, _ = certificate_for("sink.example.test")
        sink = start_sink(self, tls=options)
        await deferToThread(
            run, [parts.find("swaks"), "--server", f"127.0.0.1:{sink.port}", "--tls",
                  "--from", "a@example.org", "--to", "b@example.com"],
        )  # fmt: skip
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.tls)

    async def test_answers_in_turn(self) -> None:
        """Told to refuse once, it refuses once."""
        sink = start_sink(self)
        sink.answer("MAIL", "451 4.7.1 Later")
        replies = await converse(
            sink.port, b"EHLO a\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\nQUIT\r\n"
        )
        self.assertIn(b"451 4.7.1 Later\r\n250 2.1.0", replies)

    async def test_reset_while_data_comes(self) -> None:
        """Told to reset in the middle of DATA, it does, and records no mail."""
        sink = start_sink(self)
        sink.answer("IN_DATA", Act(reset=True))
        await converse(
            sink.port,
            b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + message()[:40],
        )
        await until(lambda: sink.sessions and sink.sessions[0].closed, "the reset")
        self.assertEqual(sink.mails, [])


class PartsTests(TestCase):
    """The real counterparts start, and do what the tests count on."""

    async def test_haproxy_sends_from_the_header_source(self) -> None:
        """HAProxy with the documented configuration connects from the header's source."""
        sink = start_sink(self)
        _, port = await parts.start_haproxy(self)
        header = (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"
            + socket.inet_aton("127.0.0.42")
            + socket.inet_aton("127.0.0.1")
            + b"\x00\x00"
            + sink.port.to_bytes(2, "big")
        )
        replies = await converse(port, header, b"QUIT\r\n")
        self.assertIn(b"220 sink.example.test", replies)
        self.assertEqual(sink.sessions[0].peer, "127.0.0.42")

    async def test_dante_connects(self) -> None:
        """Dante relays a plain CONNECT."""
        await self.assert_socks5_connects((await parts.start_dante(self))[1])

    async def test_microsocks_connects(self) -> None:
        """microsocks relays a plain CONNECT."""
        await self.assert_socks5_connects((await parts.start_microsocks(self))[1])

    async def assert_socks5_connects(self, port: int) -> None:
        """A greeting and a CONNECT lead to the sink's banner."""
        sink = start_sink(self)

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"\x05\x01\x00")
                self.assertEqual(connection.recv(2), b"\x05\x00")
                target = socket.inet_aton("127.0.0.1") + sink.port.to_bytes(2, "big")
                connection.sendall(b"\x05\x01\x00\x01" + target)
                received = b""
                while b"\r\n" not in received:
                    chunk = connection.recv(4096)
                    if not chunk:
                        break
                    received += chunk
                return received

        received = await deferToThread(talk)
        self.assertEqual(received[:2], b"\x05\x00")
        self.assertIn(b"220 sink.example.test", received)

    async def test_smtp_source_and_smtp_sink(self) -> None:
        """Postfix's load tools talk to each other."""
        _, port = await parts.start_smtp_sink(self)
        done = await deferToThread(
            run, [parts.find("smtp-source"), "-m", "20", "-s", "4", f"127.0.0.1:{port}"]
        )
        self.assertEqual(done.returncode, 0, done.stdout)

    async def test_send_mail(self) -> None:
        """The standard library's client is understood by the sink."""
        sink = start_sink(self)
        self.assertEqual(await send_mail(sink.port), {})
        self.assertEqual(len(sink.mails), 1)
