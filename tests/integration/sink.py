"""The mail host at the end of the way: it records everything, and misbehaves as it is told.

It runs in the test's own reactor and shares no code with the product.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import attrs
import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, ITLSTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.integration.waiting import free_port, until

__all__ = ["Act", "Mail", "Session", "Sink", "certificate_for", "start_sink"]


@attrs.define(frozen=True)
class Act:
    """What the sink does instead of its usual answer.

    @ivar reply: the reply's text, without its line end; none if empty.
    @ivar close: whether the connection is closed after it.
    @ivar reset: whether the connection is reset after it.
    @ivar hang: whether nothing is answered from here on.
    @ivar delay: seconds that the reply is held back.
    """

    reply: str = ""
    close: bool = False
    reset: bool = False
    hang: bool = False
    delay: float = 0


@attrs.define
class Mail:
    """One message that was accepted.

    @ivar peer: the address that the connection came from.
    @ivar helo: the name that the client gave.
    @ivar sender: the reverse path without its brackets.
    @ivar recipients: the accepted forward paths without their brackets.
    @ivar parameters: what stood behind the reverse path, such as C{SIZE=12}.
    @ivar body: the octets, dots unstuffed, line ends as they came.
    @ivar raw: the octets as they came, the final dot's line excluded.
    @ivar tls: whether they came encrypted.
    @ivar port: the port that the connection came from.
    """

    peer: str
    helo: str
    sender: str
    recipients: list[str]
    parameters: str
    body: bytes = b""
    raw: bytes = b""
    tls: bool = False
    port: int = 0


@attrs.define
class Session:
    """One connection: whence, and what it said.

    @ivar peer: the client's address.
    @ivar port: the client's port.
    @ivar lines: the commands in their order, as text; a dot for the end of a message.
    @ivar chunks: how the octets of commands came, a segment each.
    @ivar tls: whether TLS was established.
    @ivar closed: whether it is over.
    @ivar mails: how many messages it brought.
    """

    peer: str
    port: int
    lines: list[str] = attrs.field(factory=list)
    chunks: list[bytes] = attrs.field(factory=list)
    tls: bool = False
    closed: bool = False
    mails: int = 0


Answers = Callable[[Session, str, str], "Act | str | None"]
"""Asked for each command (C{GREETING}, C{EHLO}, … C{BODY} for the end of data) with its argument;
None leaves it to the sink's usual answer."""


def certificate_for(*names: str) -> tuple[CertificateOptions, bytes]:
    """A certificate that an authority of its own signs.

    @return: what a server needs, and the authority's certificate as PEM.
    """
    authority = trustme.CA()
    leaf = authority.issue_cert(*names)
    pem = leaf.private_key_pem.bytes() + b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    options = PrivateCertificate.loadPEM(pem.decode("ascii")).options()
    return options, authority.cert_pem.bytes()


class _SinkProtocol(Protocol):
    """The server's side of a session."""

    transport: ITLSTransport

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.buffer = b""
        self.in_data = False
        self.silent = False
        self.late: list[IDelayedCall] = []
        self.helo = ""
        self.mail: Mail | None = None

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        assert isinstance(peer, IPv4Address | IPv6Address)
        self.session = Session(peer.host, peer.port)
        self.sink.sessions.append(self.session)
        self.sink.protocols.add(self)
        self._answer("GREETING", "", "220 sink.example.test ESMTP")

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.session.closed = True
        self.sink.protocols.discard(self)
        for call in self.late:
            if call.active():
                call.cancel()

    def dataReceived(self, data: bytes) -> None:
        if self.silent:
            return
        self.buffer += data
        if not self.in_data:
            self.session.chunks.append(data)
        while not self.silent and (self._take_body() if self.in_data else self._take_line()):
            pass

    def _take_line(self) -> bool:
        line, end, rest = self.buffer.partition(b"\r\n")
        if not end:
            return False
        self.buffer = rest
        text = line.decode("utf-8", "replace")
        self.session.lines.append(text)
        verb, _, argument = text.partition(" ")
        method = getattr(self, f"_do_{verb.lower()}", None)
        if method is None:
            self._answer(verb.upper(), argument, "500 5.5.2 Unknown command")
        else:
            method(argument)
        return True

    def _take_body(self) -> bool:
        buffer = b"\r\n" + self.buffer
        end = buffer.find(b"\r\n.\r\n")
        if end < 0:
            act = self.sink.answers(self.session, "IN_DATA", str(len(self.buffer)))
            if isinstance(act, Act):
                self._perform(act)
            return False
        raw = self.buffer[:end]
        self.buffer = buffer[end + 5 :]
        self.in_data = False
        self.session.lines.append(".")
        mail, self.mail = self.mail, None
        assert mail is not None
        mail.raw = raw
        mail.body = (b"\r\n" + raw).replace(b"\r\n.", b"\r\n")[2:]
        mail.tls, mail.port = self.session.tls, self.session.port
        if self._answer("BODY", "", "250 2.0.0 Taken"):
            self.sink.mails.append(mail)
            self.session.mails += 1
        return True

    def _answer(self, verb: str, argument: str, usual: str) -> bool:
        """Answer, and tell whether it was the usual, good answer."""
        act = self.sink.answers(self.session, verb, argument)
        if isinstance(act, str):
            act = Act(act)
        if act is None:
            act = Act(usual)
        self._perform(act)
        return act.reply[:1] in ("2", "3")

    def _perform(self, act: Act) -> None:
        if act.reply:
            line = act.reply.encode("utf-8") + b"\r\n"
            if act.delay:
                self.late.append(global_reactor.callLater(act.delay, self.transport.write, line))
            else:
                self.transport.write(line)
        if act.hang or act.close or act.reset:
            self.silent = True
        if act.close:
            self.transport.loseConnection()
        if act.reset:
            self.transport.abortConnection()

    def _do_ehlo(self, argument: str) -> None:
        self.helo = argument
        offers = [offer for offer in self.sink.extensions if offer != "STARTTLS"]
        if self.sink.tls is not None and not self.session.tls:
            offers.append("STARTTLS")
        lines = ["sink.example.test", *offers]
        marked = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
        self._answer("EHLO", argument, "\r\n".join(marked))

    def _do_helo(self, argument: str) -> None:
        self.helo = argument
        self._answer("HELO", argument, "250 sink.example.test")

    def _do_mail(self, argument: str) -> None:
        path, _, parameters = argument.partition(":")[2].strip().partition("> ")
        if self._answer("MAIL", argument, "250 2.1.0 Sender ok"):
            self.mail = Mail(self.session.peer, self.helo, path.strip("<>"), [], parameters.strip())

    def _do_rcpt(self, argument: str) -> None:
        path = argument.partition(":")[2].strip().partition(">")[0].strip("<>")
        if self.mail is None:
            self._answer("RCPT", argument, "503 5.5.1 MAIL first")
        elif self._answer("RCPT", argument, "250 2.1.5 Recipient ok"):
            self.mail.recipients.append(path)

    def _do_data(self, argument: str) -> None:
        if self.mail is None or not self.mail.recipients:
            self._answer("DATA", argument, "503 5.5.1 RCPT first")
        elif self._answer("DATA", argument, "354 Go on"):
            self.in_data = True

    def _do_rset(self, argument: str) -> None:
        self.mail = None
        self._answer("RSET", argument, "250 2.0.0 Ok")

    def _do_noop(self, argument: str) -> None:
        self._answer("NOOP", argument, "250 2.0.0 Ok")

    def _do_quit(self, argument: str) -> None:
        if self._answer("QUIT", argument, "221 2.0.0 Bye"):
            self.transport.loseConnection()

    def _do_starttls(self, argument: str) -> None:
        if self.sink.tls is None or self.session.tls:
            self._answer("STARTTLS", argument, "502 5.5.1 Not here")
        elif self._answer("STARTTLS", argument, "220 2.0.0 Go on"):
            self.buffer = b""
            self.mail = None
            self.transport.startTLS(self.sink.tls)
            self.session.tls = True


class Sink(ServerFactory):
    """What the mail host knows after a test.

    @ivar mails: the messages that it took, in their order.
    @ivar sessions: the connections that it saw, in their order.
    @ivar answers: asked before each usual answer; replace it to make the host misbehave.
    @ivar extensions: what EHLO offers, besides STARTTLS.
    @ivar tls: the server's side of TLS, or None for a host without it.
    @ivar host: the address that it listens on.
    @ivar port: its port.
    """

    noisy = False

    def __init__(self, tls: CertificateOptions | None = None) -> None:
        self.mails: list[Mail] = []
        self.sessions: list[Session] = []
        self.answers: Answers = lambda session, verb, argument: None
        self.extensions = ["PIPELINING", "8BITMIME", "SIZE 50000000", "ENHANCEDSTATUSCODES"]
        self.tls = tls
        self.protocols: set[_SinkProtocol] = set()
        self.host = "127.0.0.1"
        self.port = 0

    def buildProtocol(self, addr: object) -> Protocol:
        return _SinkProtocol(self)

    @property
    def route(self) -> str:
        """How C{route} in a configuration names it."""
        return f"[{self.host}]:{self.port}"

    async def wait_for_mails(self, number: int = 1, seconds: float = 20.0) -> list[Mail]:
        """Wait until so many messages are there; give all."""
        return await until(
            lambda: self.mails if len(self.mails) >= number else None,
            lambda: f"{number} messages in the sink; it has {len(self.mails)}, {self.sessions}",
            seconds,
        )

    async def wait_for_sessions(self, number: int = 1, seconds: float = 20.0) -> list[Session]:
        """Wait until so many connections came; give all."""
        return await until(
            lambda: self.sessions if len(self.sessions) >= number else None,
            lambda: f"{number} connections to the sink; it saw {len(self.sessions)}",
            seconds,
        )

    def answer(self, verb: str, *acts: Act | str | None) -> None:
        """Answer a verb's first occurrences with these acts, in their order, then as usual."""
        left = deque(acts)
        before = self.answers

        def answers(session: Session, asked: str, argument: str) -> Act | str | None:
            if asked == verb and left:
                return left.popleft()
            return before(session, asked, argument)

        self.answers = answers

    def always(self, verb: str, act: Act | str) -> None:
        """Answer a verb in this way every time."""
        before = self.answers

        def answers(session: Session, asked: str, argument: str) -> Act | str | None:
            return act if asked == verb else before(session, asked, argument)

        self.answers = answers


def start_sink(
    test: TestCase,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    tls: CertificateOptions | None = None,
    handle: socket.socket | None = None,
) -> Sink:
    """Start a mail host in the test's reactor; it is gone when the test is over.

    @param port: its port; a free one if absent.
    @param tls: the server's side of TLS; without it STARTTLS is not offered.
    @param handle: a socket that listens there already; it is taken over.
    """
    sink = Sink(tls)
    sink.host = host
    sink.port = free_port(host) if port is None else port
    listening: IListeningPort
    if handle is None:
        listening = global_reactor.listenTCP(sink.port, sink, interface=host)
    else:
        with handle:
            handle.setblocking(False)
            adopt = cast(Any, global_reactor).adoptStreamPort
            listening = adopt(handle.fileno(), handle.family, sink)

    async def stop() -> None:
        await maybeDeferred(listening.stopListening)
        for protocol in list(sink.protocols):
            protocol.transport.abortConnection()
        await until(lambda: not sink.protocols, "the end of the sink's connections")

    test.addCleanup(stop)
    return sink
