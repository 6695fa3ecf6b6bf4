"""Tests of logins at a listener: from the wire to a Twisted credential checker."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher

from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import ListenerSettings
from tests.test_smtp_listener import ENVELOPE, HELLO, MESSAGE, OUTSIDE, ListenerTestCase
from tests.test_wire_smtp_sasl import scram_client

PLAIN = b"AUTH PLAIN " + base64.b64encode(b"\0ann\0s3cret") + b"\r\n"
WRONG = b"AUTH PLAIN " + base64.b64encode(b"\0ann\0s3cre") + b"\r\n"


class PasswordsOnly:
    """A checker that is never told by which password a proof could be checked."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def requestAvatarId(self, credentials: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AuthTestCase(ListenerTestCase):
    """A listener with users."""

    checker: Any = None

    def listener(self, **settings: Any) -> ESMTPListenerFactory:
        """A listener with some settings of its own, and C{checker}."""
        checker = self.checker
        if checker is None:
            checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"s3cret")
        settings.setdefault("allow_auth_without_tls", True)
        return ESMTPListenerFactory(
            self.clock, ListenerSettings(name="main", **settings), self.reception, self.tls,
            "mx.example.com", checker=checker,
        )  # fmt: skip

    def session(self, **settings: Any) -> tuple[Any, Any]:
        """A client from outside that has said EHLO."""
        protocol, transport = self.connect(OUTSIDE, self.listener(**settings))
        protocol.dataReceived(HELLO)
        self.codes(transport)
        return protocol, transport

    def say(self, client: tuple[Any, Any], *parts: bytes) -> list[int]:
        """What the codes of the replies are."""
        for part in parts:
            client[0].dataReceived(part)
        return self.codes(client[1])


class LoginTests(AuthTestCase):
    """Who may log in, and what that changes."""

    def test_users_may_relay(self) -> None:
        """A client from outside may relay once it has logged in, and the message says so."""
        client = self.session()
        self.assertEqual(self.say(client, ENVELOPE, b"RSET\r\n"), [250, 550, 250])
        self.assertEqual(self.say(client, PLAIN), [235])
        self.assertEqual(self.say(client, ENVELOPE + b"DATA\r\n", MESSAGE), [250, 250, 354, 250])
        session = self.reception.received[0][0]
        self.assertEqual((session.user, session.protocol), ("ann", "ESMTPA"))

    def test_wrong_password(self) -> None:
        """Wrong passwords and unknown names get the same 535, and after three a 421."""
        client = self.session()
        unknown = b"AUTH PLAIN " + base64.b64encode(b"\0bob\0s3cret") + b"\r\n"
        self.assertEqual(self.say(client, WRONG, unknown), [535, 535])
        self.assertEqual(self.say(client, ENVELOPE, b"RSET\r\n"), [250, 550, 250])
        self.assertEqual(self.say(client, WRONG, PLAIN), [535, 421])
        replies = {reply for command, reply in self.reception.refusals if command == "AUTH PLAIN"}
        self.assertEqual(replies, {"535 5.7.8 the name or the password is wrong"})

    def test_malformed(self) -> None:
        """Nonsense within a dialogue counts as a failure: it cannot go on for ever."""
        client = self.session()
        nonsense = b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"x") + b"\r\n"
        self.assertEqual(self.say(client, nonsense * 5), [501, 501, 501, 421])

    def test_login(self) -> None:
        """LOGIN, step by step, byte by byte."""
        protocol, transport = client = self.session()
        stream = b"AUTH LOGIN\r\n" + base64.b64encode(b"ann") + b"\r\n"
        stream += base64.b64encode(b"s3cret") + b"\r\n"
        for at in range(len(stream)):
            protocol.dataReceived(stream[at : at + 1])
        self.assertEqual(
            transport.value(),
            b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.7.0 logged in\r\n",
        )
        self.assertEqual(client[0].session.user, "ann")

    def scram(self, password: bytes) -> tuple[Any, bytes]:
        """Log in by SCRAM; return the session and what the server said last."""
        protocol, transport = self.session()
        bare = b"n=ann,r=fyko+d2lbbFgONRv9qkxdawL"
        protocol.dataReceived(b"AUTH SCRAM-SHA-256\r\n")
        self.assertEqual(transport.value(), b"334 \r\n")
        transport.clear()
        protocol.dataReceived(base64.b64encode(b"n,," + bare) + b"\r\n")
        challenge = base64.b64decode(transport.value()[4:])
        transport.clear()
        final = scram_client(b"ann", password, challenge, bare)
        protocol.dataReceived(base64.b64encode(final) + b"\r\n")
        return protocol, transport.value()

    def test_scram(self) -> None:
        """SCRAM: the client proves that it knows the password, then the server does."""
        protocol, last = self.scram(b"s3cret")
        self.assertTrue(base64.b64decode(last[4:]).startswith(b"v="))
        self.assertEqual(protocol.session.user, "")
        protocol.transport.clear()
        protocol.dataReceived(b"\r\n")
        self.assertEqual(protocol.transport.value()[:3], b"235")
        self.assertEqual(protocol.session.user, "ann")

    def test_scram_refused(self) -> None:
        """A proof of another password is refused."""
        protocol, last = self.scram(b"other")
        self.assertEqual(last[:3], b"535")
        self.assertFalse(protocol.session.may_relay)

    def test_scram_needs_the_last_word(self) -> None:
        """Something else than the empty answer at the end is no login."""
        protocol, _ = self.scram(b"s3cret")
        protocol.transport.clear()
        protocol.dataReceived(b"eA==\r\n")
        self.assertEqual(protocol.transport.value()[:3], b"501")
        self.assertEqual(protocol.session.user, "")

    def test_scram_of_nobody(self) -> None:
        """A name that does not exist gets a challenge too, always with the same salt."""
        salts = set()
        factory = self.listener()
        for _ in range(2):
            protocol, transport = self.connect(OUTSIDE, factory)
            protocol.dataReceived(HELLO)
            transport.clear()
            first = base64.b64encode(b"n,,n=nobody,r=abc")
            protocol.dataReceived(b"AUTH SCRAM-SHA-256 " + first + b"\r\n")
            challenge = base64.b64decode(transport.value()[4:])
            salts.add(challenge.split(b",")[1])
            final = scram_client(b"nobody", b"", challenge, b"n=nobody,r=abc")
            transport.clear()
            protocol.dataReceived(base64.b64encode(final) + b"\r\n")
            self.assertEqual(transport.value()[:3], b"535")
        self.assertEqual(len(salts), 1)

    def test_starttls(self) -> None:
        """STARTTLS forgets who logged in, and whether it may relay."""
        client = self.session()
        self.assertEqual(self.say(client, PLAIN, b"STARTTLS\r\n"), [235, 220])
        self.assertEqual(client[0].session.user, "")
        self.assertFalse(client[0].session.may_relay)
        self.assertEqual(self.say(client, HELLO + ENVELOPE), [250, 250, 550])

    def test_only_with_tls(self) -> None:
        """Unless it is allowed, nobody logs in without TLS."""
        client = self.session(allow_auth_without_tls=False)
        self.assertEqual(self.say(client, PLAIN), [538])
        self.assertEqual(self.say(client, b"STARTTLS\r\n", HELLO, PLAIN), [220, 250, 235])

    def test_required(self) -> None:
        """A listener can ask everybody to log in."""
        client = self.session(auth="memory:ann:s3cret", require_auth=True)
        self.assertEqual(self.say(client, ENVELOPE), [530, 503])


class CheckerTests(AuthTestCase):
    """Checkers of all kinds."""

    def test_file(self) -> None:
        """C{file:PATH} makes users of the lines of a file."""
        path = Path(self.mktemp())
        path.write_text("bob:x\nann:s3cret\n")
        factory = ESMTPListenerFactory(
            self.clock,
            ListenerSettings(auth=f"file:{path}", allow_auth_without_tls=True),
            self.reception, self.tls,
        )  # fmt: skip
        client = self.connect(OUTSIDE, factory)
        client[0].dataReceived(HELLO)
        self.assertIn(b"AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n", client[1].value())
        self.codes(client[1])
        self.assertEqual(self.say(client, WRONG, PLAIN), [535, 235])

    def test_passwords_only(self) -> None:
        """A checker that compares passwords itself gets PLAIN and LOGIN, and no SCRAM."""
        self.checker = PasswordsOnly(b"ann")
        client = self.session()
        self.assertEqual(self.say(client, b"AUTH SCRAM-SHA-256\r\n", PLAIN), [504, 235])

    def test_unsuitable(self) -> None:
        """A checker that knows neither is refused."""
        self.checker = PasswordsOnly(b"ann")
        self.checker.credentialInterfaces = ()
        self.assertRaises(ValueError, self.listener)

    def test_late(self) -> None:
        """A checker may take its time; what comes meanwhile waits."""
        late: Deferred[bytes] = Deferred()
        self.checker = PasswordsOnly(late)
        client = self.session()
        self.assertEqual(self.say(client, PLAIN, ENVELOPE), [])
        late.callback(b"ann")
        self.assertEqual(self.codes(client[1]), [235, 250, 250])

    def test_too_late(self) -> None:
        """A checker that takes too long is not waited for, and what it says then is not heard."""
        self.checker = PasswordsOnly(Deferred())
        client = self.session()
        self.say(client, PLAIN)
        self.clock.advance(301)
        self.assertEqual(self.codes(client[1]), [451])
        self.assertEqual(client[0].session.user, "")

    def test_broken(self) -> None:
        """A broken checker is a temporary trouble; the log does not say what was asked."""
        observer: Any = EventLoggingObserver()
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for answer in (OSError("s3cret"), fail(OSError("s3cret"))):
            self.checker = PasswordsOnly(answer)
            self.assertEqual(self.say(self.session(), PLAIN), [454])
        self.assertNotIn("s3cret", repr(list(observer)))
