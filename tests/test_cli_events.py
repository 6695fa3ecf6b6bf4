"""A node's events in words, and the stream that they come from, whatever comes through it."""

from __future__ import annotations

import ast
import io
import ipaddress
import json
import socket
import time
from pathlib import Path
from typing import Any

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

import kumotwist
from kumotwist.cli.events import MAX_LINE, Stream, clean, describe, parse_endpoint
from kumotwist.journal.records import RECORD_TYPES
from kumotwist.journal.trace import TraceEvent
from kumotwist.wire.smtp.replies import Reply
from tests.fake_socket import FakeSocket
from tests.queue_world import World

PACKAGE = Path(kumotwist.__file__).parent

#: Events that tell people nothing.
SILENT = {"watching", "rejection"}


def emitted() -> set[str]:
    """Every kind of event that the code emits, by its calls of C{emit} and C{_trace}."""
    kinds = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = {"emit": 0, "_trace": 1}.get(node.func.attr)
                if place is not None and len(node.args) > place:
                    kind = node.args[place]
                    if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
                        kinds.add(kind.value)
    return kinds


class DescribeTests(SynchronousTestCase):
    """Events in words."""

    def test_every_kind(self) -> None:
        """Each kind that the code emits has words, however little is told with it."""
        kinds = emitted()
        self.assertLessEqual({"reception", "queued", "connecting", "sending", "failed"}, kinds)
        kinds |= {kind.lower() for kind in RECORD_TYPES} | {"missed"}
        for kind in kinds - SILENT:
            self.assertTrue(describe({"event": kind}), kind)
            self.assertTrue(describe({"event": kind, "ids": [], "reply": None}), kind)
        for kind in ("watching", "rejection", "something new"):
            self.assertEqual(describe({"event": kind}), "")

    def events(self, world: World) -> list[TraceEvent]:
        """What happens from now on."""
        events: list[TraceEvent] = []
        world.trace.subscribe(events.append)
        return events

    def words(self, events: list[TraceEvent]) -> list[str]:
        """The events as the command shows them, once through JSON."""
        return [
            describe(json.loads(json.dumps({**each.facts, "event": each.event, "ids": ["1"]})))
            for each in events
        ]

    def test_a_life(self) -> None:
        """A real message's life is told step by step, and nothing is missing in any step."""
        world = World({"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]})
        world.sink("192.0.2.1")
        events = self.events(world)
        world.inject("c@b.example")
        words = self.words(events)
        self.assertEqual(
            [line.split()[0] for line in words],
            ["queued", "connecting", "connected", "sending", "delivered"],
        )
        self.assertNotIn("?", "".join(words))
        self.assertIn("leaving from 127.0.0.1:", words[2])
        self.assertIn("not encrypted", words[2])

    def test_endpoint_string(self) -> None:
        """A source that is an endpoint string is shown, and recorded, with the proxy that it names,
        also where nothing was reached."""
        records = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
        text = r"socks5:{host}:{port}:server=10.0.5.10\:5000:source=10.0.0.4"
        world = World(records, sources={"one": {"endpoint": text}})
        events = self.events(world)
        world.inject("c@b.example")
        words = [line for line in self.words(events) if line.startswith(("queued", "connecting"))]
        self.assertEqual(len(words), 2)
        for line in words:
            self.assertIn("through socks5 10.0.5.10:5000", line)
        [record] = world.records("TransientFailure")
        self.assertEqual(
            record["source_address"],
            {"address": "10.0.0.4:0", "protocol": "socks5", "server": "10.0.5.10:5000"},
        )

    def test_foreign_endpoint(self) -> None:
        """Of an endpoint of another kind its kind is told."""
        facts = {"protocol": "endpoint", "server": "unix:/run/x", "target": "192.0.2.1:25"}
        self.assertIn('through endpoint "unix:/run/x"', describe({"event": "connecting", **facts}))

    def test_unhappy_lives(self) -> None:
        """So are refusals, failures, waits and expiries."""
        records = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
        refusing = World(records)
        refusing.sink("192.0.2.1", refuse=Reply.of(550, "5.1.1", "no such user"), refuse_at="rcpt")
        silent = World(records, queue={"max_age": 3000.0})
        held = World(
            records, sources={"one": {"source_address": (ipaddress.ip_address("198.51.100.1"),)}}
        )
        held.network.servers["192.0.2.1", 25] = lambda: error.ConnectBindError(99)
        told = []
        for world in (refusing, silent, held):
            events = self.events(world)
            world.inject("c@b.example")
            world.network.pass_time(3000, step=60)
            words = self.words(events)
            self.assertNotIn("?", "".join(words))
            told += [line.split()[0] for line in words if line]
        self.assertLessEqual({"bounced", "failed", "not", "waiting", "expired"}, set(told))

    def test_hostile(self) -> None:
        """Nothing in an event drives the terminal."""
        hostile = "\x1b[2J\r\nOK\x00\u2028\x9b"
        for event in ("reception", "connected", "delivery", "failed", "queued"):
            facts = dict.fromkeys(
                ("recipient", "size", "host", "reply", "target", "source", "server", "protocol"),
                hostile,
            )
            line = describe({**facts, "event": event, "ids": [hostile]})
            self.assertTrue(line.isprintable(), line)

    def test_clean(self) -> None:
        """What is printable stays, in every language."""
        self.assertEqual(clean("Grüße, 你好"), "Grüße, 你好")
        self.assertEqual(clean("a\r\nb\x1b"), "a\\r\\nb\\x1b")
        self.assertEqual(clean("\ud800"), "\\ud800")


class EndpointTests(SynchronousTestCase):
    """Where the node's HTTP listener is."""

    def test_good(self) -> None:
        """With or without http://, with or without a port."""
        for text, expected in (
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("http://localhost", "localhost:80"),
        ):
            self.assertEqual(parse_endpoint(text), expected)

    def test_bad(self) -> None:
        """Anything else is told in words."""
        for text in (
            "https://127.0.0.1", "http://", "", "http://h:99999", "http://h:x", "http://h/x",
            "http://u@h", "http://h?x", "http://[::1",
        ):  # fmt: skip
            self.assertRaises(ValueError, parse_endpoint, text)


class StreamTests(SynchronousTestCase):
    """The stream, as it should be and as it should not."""

    def stream(
        self, body: bytes, *, head: bytes = b"", then: type[OSError] | None = None
    ) -> Stream:
        """A stream whose answer is given."""
        head = head or b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        if b"chunked" in head:
            pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        self.socket = FakeSocket(head + body, then)
        self.patch(socket, "create_connection", lambda *_args, **_facts: self.socket)
        return Stream("127.0.0.1:8000")

    def events(self, body: bytes, **facts: Any) -> list[dict[str, Any]]:
        """The events of a body behind the first line."""
        self.made = self.stream(b'{"event": "watching"}\n' + body, **facts)
        return list(self.made.events(time.monotonic() + 60))

    def test_events(self) -> None:
        """Events come line by line, whatever the pieces they arrive in."""
        events = self.events(b'{"event": "queued", "ids": ["1"]}\n{"event": "missed"}\n')
        self.assertEqual(
            events, [{"event": "queued", "ids": ["1"]}, {"event": "missed", "ids": []}]
        )
        self.assertIn(b"GET /api/trace/v1 HTTP/1.1\r\n", self.socket.sent)

    def test_ends(self) -> None:
        """A stream that ends says so."""
        self.assertEqual(self.events(b""), [])
        self.assertTrue(self.made.ended)

    def test_breaks_off(self) -> None:
        """So does one that breaks."""
        self.events(b"", then=ConnectionResetError)
        self.assertIn("ConnectionResetError", self.made.ended)

    def test_silence(self) -> None:
        """When nothing comes until the deadline nothing is wrong."""
        self.assertEqual(self.events(b"", then=TimeoutError), [])
        self.assertEqual(self.made.ended, "")
        self.assertGreater(self.socket.timeouts[-1], 50)

    def test_deadline(self) -> None:
        """Behind the deadline nothing is read."""
        stream = self.stream(b'{"event": "watching"}\n{"event": "queued"}\n')
        self.assertEqual(list(stream.events(time.monotonic() - 1)), [])

    def test_without_chunks(self) -> None:
        """A stream through a proxy that has no chunks waits as long."""
        events = self.events(
            b'{"event": "queued"}\n', head=b"HTTP/1.0 200 OK\r\n\r\n", then=TimeoutError
        )
        self.assertEqual(len(events), 1)
        self.assertGreater(self.socket.timeouts[-1], 50)

    def test_garbled(self) -> None:
        """Lines that are no event are passed over, and what is odd in an event is left out."""
        garbage = [
            b"\xff\xfe", b"{", b"[]", b"null", b'"queued"', b"1e999", b'{"event": 7}', b"{}",
            b"[" * 50000, b"x" * (MAX_LINE * 2), b'{"event": "a", "ids": "1"}',
            b'{"event": "b", "ids": [1, null, ["x"], "2"]}', b"",
        ]  # fmt: skip
        events = self.events(b"\n".join(garbage) + b"\n")
        self.assertEqual(events, [{"event": "a", "ids": []}, {"event": "b", "ids": ["2"]}])

    def test_refused(self) -> None:
        """A node that refuses, and a server that is no node, are told apart in words."""
        for body, head, words in (
            (b'{"error": "x is\x1b not"}', b"HTTP/1.1 403 F\r\nContent-Length: 21\r\n\r\n", "403"),
            (b"<html>", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "not kumotwist's trace"),
            (b"[]\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "not kumotwist's trace"),
            (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not kumotwist's trace"),
        ):
            failure = self.assertRaises(OSError, self.stream, body, head=head)
            self.assertIn(words, str(failure))
            self.assertTrue(str(failure).isprintable())

    def test_fake(self) -> None:
        """The fake's file is read like a socket's."""
        made = FakeSocket(b"x", TimeoutError)
        stream = made.makefile("rb")
        self.assertIsInstance(stream, io.BufferedReader)
        self.assertEqual(stream.read(1), b"x")
        self.assertRaises(TimeoutError, stream.readline)
