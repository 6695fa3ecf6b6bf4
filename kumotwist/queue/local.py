"""Mail that goes nowhere over the network: into a maildir, or away.

A maildir takes a message in one step that other programs see: it is written in C{tmp}, synced, and
linked into C{new} (Bernstein, maildir(5)). Files are written in threads, a few at a time.
"""

from __future__ import annotations

import os
import re
from collections import deque
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.fate import Fates
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.verdicts import Scope, Verdict, internal_reply
from kumotwist.wire.smtp.replies import Reply

__all__ = ["LocalDelivery", "maildir_of", "write_to_maildir"]

#: Files that are written at the same time.
AT_ONCE = 4
#: Messages without a body to be written that are dealt with in one turn of the reactor.
TURN = 100

_UNSAFE = re.compile(r"[^A-Za-z0-9_+=@.-]|^\.+")


def _safe(text: str) -> str:
    """Part of an address as one part of a path: nothing in it leads elsewhere."""
    return _UNSAFE.sub(lambda match: "".join(f"%{ord(c):02X}" for c in match.group()), text)[:200]


def maildir_of(pattern: str, recipient: str) -> str:
    """The maildir of a recipient.

    @param pattern: a path in which C{{local}} and C{{domain}} stand for parts of the address.
    """
    local, _, domain = recipient.rpartition("@")
    return pattern.replace("{local}", _safe(local)).replace("{domain}", _safe(domain.lower()))


def write_to_maildir(path: str, message: QueuedMessage, body: bytes) -> None:
    """Put a message into a maildir, which is made if it is not there; blocks.

    Writing the same message again (after a crash) replaces it while nobody has read it.

    @raise OSError: if it cannot be done.
    """
    for part in ("tmp", "new", "cur"):
        os.makedirs(os.path.join(path, part), mode=0o700, exist_ok=True)
    temporary = os.path.join(path, "tmp", f"{message.id}.kumotwist")
    # RFC 5321, 4.4: whoever makes the final delivery says where the message came from. The files
    # of a maildir have the line ends of the system.
    header = f"Return-Path: <{message.sender}>\nDelivered-To: {message.recipient}\n"
    data = header.encode("utf-8", "replace") + body.replace(b"\r\n", b"\n")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    name = f"{int(message.created)}.{message.id}.kumotwist"
    os.replace(temporary, os.path.join(path, "new", name))
    directory = os.open(os.path.join(path, "new"), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class LocalDelivery:
    """Delivers what needs no host.

    @param reactor: has the threads.
    @param stopped: called when the last file is written after L{stop}.
    """

    _log = Logger()

    def __init__(self, reactor: Any, fates: Fates, bodies: Bodies, stopped: Any) -> None:
        self._reactor = reactor
        self._fates = fates
        self._bodies = bodies
        self._stopped = stopped
        self._waiting: deque[tuple[QueuedMessage, str]] = deque()
        self._stopping = False
        self._looking = False
        #: Files that are being written.
        self.active = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def deliver(self, messages: list[QueuedMessage], protocol: str) -> None:
        """Take messages that are due."""
        self._waiting.extend((message, protocol) for message in messages)
        self._look()

    def stop(self) -> None:
        """Write no more than what is being written."""
        self._stopping = True

    def _look(self) -> None:
        self._looking = False
        for _ in range(TURN):
            if not self._waiting or self._stopping or self.active >= AT_ONCE:
                return
            message, protocol = self._waiting.popleft()
            if protocol == "null":
                reply = Reply.of(250, "2.0.0", "discarded")
                self._fates.delivered(message, reply, _facts("null", "Null"))
            else:
                self._write(message, protocol.partition(":")[2])
        if not self._looking:
            self._looking = True
            self._reactor.callLater(0, self._look)

    def _write(self, message: QueuedMessage, pattern: str) -> None:
        path = maildir_of(pattern, message.recipient)
        facts = _facts(f"maildir:{path}", "Maildir")
        self.active += 1

        def written(_: None) -> None:
            self._fates.delivered(message, Reply.of(250, "2.0.0", f"in {path}"), facts)

        def failed(failure: Any) -> None:
            text = f"{path}: {failure.getErrorMessage()}"
            reply = internal_reply(451, "4.3.0", text)
            self._fates.failed(message, Verdict(Scope.MESSAGE, reply, blame="nobody"), facts)

        def done(_: None) -> None:
            self.active -= 1
            if self._stopping:
                self._stopped()
            self._look()

        writing: Deferred[Any] = self._bodies.load(message)
        writing.addCallback(partial(self._in_thread, path, message))
        writing.addCallbacks(written, failed)
        writing.addErrback(lambda failure: self._log.failure("local delivery failed", failure))
        writing.addCallback(done)

    def _in_thread(self, path: str, message: QueuedMessage, body: bytes) -> Deferred[None]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, write_to_maildir, path, message, body)


def _facts(site: str, protocol: str) -> AttemptFacts:
    return AttemptFacts(site=site, delivery_protocol=protocol, session_id=new_id())
