"""Mail that goes nowhere over the network: into maildirs, away, or back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.local import maildir_of, write_to_maildir
from kumotwist.queue.settings import QueueSettings
from kumotwist.settings import declared
from tests.queue_world import World
from tests.test_queue_reception import SESSION, transaction

SITES = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}


class ThreadlessPool:
    """Runs at once what is meant for a thread."""

    def callInThreadWithCallback(self, done: Any, work: Any, *facts: Any, **named: Any) -> None:
        """Run it."""
        try:
            result = work(*facts, **named)
        except OSError as error:
            done(False, Failure(error))
        else:
            done(True, result)


class LocalTests(SynchronousTestCase):
    """Queues without hosts."""

    def world(self, **queue: Any) -> World:
        """A node whose queues for C{a.example} are like that."""
        world = World(SITES, domain_queues={"a.example": queue})
        world.network.getThreadPool = ThreadlessPool
        world.network.callFromThread = lambda work, *facts: work(*facts)
        world.sink("192.0.2.1")
        return world

    def test_null(self) -> None:
        """C{null} drops mail, and records that."""
        world = self.world(protocol="null")
        world.inject("x@a.example", "y@a.example", "z@b.example")
        self.assertEqual(world.kinds(), ["Delivery"] * 3)
        self.assertEqual(world.spool.messages, {})
        self.assertEqual(len(world.network.connections), 1)
        facts = {(each["site"], each["delivery_protocol"]) for each in world.records()}
        self.assertEqual(facts, {("null", "Null"), ("mx.b.example", "ESMTP")})

    def test_maildir(self) -> None:
        """A maildir gets whole messages that tell where they came from."""
        path = os.path.abspath(self.mktemp())
        world = self.world(protocol=f"maildir:{path}/{{domain}}/{{local}}")
        world.inject("X@a.example", "../y@a.example")
        names = sorted(each.name for each in Path(path, "a.example").iterdir())
        self.assertEqual(names, ["%2E%2E%2Fy", "X"])
        (file,) = Path(path, "a.example", "X", "new").iterdir()
        text = file.read_bytes()
        self.assertTrue(text.startswith(b"Return-Path: <a@sender.example>\nDelivered-To: X@a.exa"))
        self.assertIn(b"\n\nHello.\n", text)
        self.assertEqual(list(Path(path, "a.example", "X", "tmp").iterdir()), [])
        self.assertEqual(world.spool.messages, {})
        self.assertEqual({each["delivery_protocol"] for each in world.records()}, {"Maildir"})

    def test_maildir_fails(self) -> None:
        """A maildir that cannot be written lets the message wait, with the reason."""
        path = self.mktemp()
        Path(path).write_text("a file")
        world = self.world(protocol=f"maildir:{os.path.abspath(path)}/x")
        world.inject("x@a.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertIn("Not a directory", record["response"]["content"])
        self.assertEqual(world.scheduler.waiting, 1)

    def test_written_twice(self) -> None:
        """A message that is written again after a crash is there once."""
        path = self.mktemp()
        message = QueuedMessage("1" * 32, "", "x@a.example", "a.example", 1, 5.0, 5.0)
        write_to_maildir(path, message, b"a\r\n")
        write_to_maildir(path, message, b"a\r\n")
        self.assertEqual(len(os.listdir(os.path.join(path, "new"))), 1)

    def test_hostile_addresses(self) -> None:
        """No address leads out of its directory."""
        for recipient in ("../../etc/x@a.example", "..@..", "a/b@c/d", ".@.", "\0@a", "x" * 500):
            path = maildir_of("/mail/{domain}/{local}", recipient)
            self.assertTrue(os.path.normpath(path).startswith("/mail/"), path)
            self.assertNotIn("/..", path)
            self.assertEqual(path.count("/"), 3)

    def test_spellings(self) -> None:
        """A path must be absolute, and its places known."""
        protocol = declared(QueueSettings)["protocol"][1].kind
        self.assertEqual(protocol.parse("maildir:/m/{domain}"), "maildir:/m/{domain}")
        for text in ("maildir:m", "maildir:", "maildir:/m/{user}", "uucp"):
            self.assertRaises(ValueError, protocol.parse, text)


class RejectTests(SynchronousTestCase):
    """Domains that are refused."""

    def test_refused(self) -> None:
        """A recipient in such a domain is refused at RCPT with the operator's words."""
        world = World(SITES, domain_queues={"a.example": {"reject": "no mail for them"}})
        for address, code in (("x@A.example", 550), ("x@b.example", None)):
            whole = transaction(address)
            reply = world.reception.recipient(SESSION, whole, whole.recipients[0])
            self.assertEqual(getattr(reply, "code", None), code)

    def test_queued_already(self) -> None:
        """What is in the queue when the domain is refused is returned."""
        world = World(SITES, domain_queues={"a.example": {"reject": "no mail for them"}})
        world.inject("x@a.example", sender="")
        (record,) = world.records()
        self.assertEqual(record["type"], "Bounce")
        self.assertIn("no mail for them", record["response"]["content"])
