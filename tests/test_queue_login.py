"""Logging in to a next hop: when it is done, when it must not be, and what a refusal means."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathSettings
from kumotwist.queue.login import log_in
from kumotwist.settings.types import SECRET
from kumotwist.smtp.client import ESMTPClient, SessionAuthError, SessionRefused, SMTPSessionError
from kumotwist.tls.facts import TLSFacts
from tests.queue_world import World
from tests.smtp_client_case import ClientCase
from tests.talker import Talker

ONE_HOST = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
LOGIN: dict[str, Any] = {
    "smtp_auth_plain_username": "tim",
    "smtp_auth_plain_password": SECRET.parse("tanstaaf"),
}
IN_CLEAR = {**LOGIN, "allow_smtp_auth_plain_without_tls": True}
GOOD = TLSFacts("AES", "TLSv1.3", "CN=mx", True, "")
BAD = TLSFacts("AES", "TLSv1.3", "CN=mx", False, "the certificate has expired")


class DeliveryTests(SynchronousTestCase):
    """Mail for a host that wants a login."""

    def deliver(self, talker: Talker, **path: Any) -> World:
        """Inject a message for a host."""
        world = World(ONE_HOST, path=path)
        world.network.servers["192.0.2.1", 25] = talker
        world.inject("c@b.example")
        return world

    def test_logged_in(self) -> None:
        """With leave to do so in clear, AUTH comes before MAIL, once for a connection."""
        talker = Talker("AUTH PLAIN LOGIN", answers={"AUTH": "235 ok"})
        world = self.deliver(talker, **IN_CLEAR)
        world.inject("d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "Delivery"])
        self.assertEqual(talker.said[1], "AUTH PLAIN AHRpbQB0YW5zdGFhZg==")
        self.assertEqual(len([line for line in talker.said if line.startswith("AUTH")]), 1)

    def test_never_in_clear(self) -> None:
        """Without TLS the login is not said; the message waits, and the words say what to do."""
        talker = Talker("AUTH PLAIN")
        world = self.deliver(talker, **LOGIN)
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertIn("not encrypted", record["response"]["content"])
        self.assertIn("allow_smtp_auth_plain_without_tls", record["response"]["content"])
        self.assertEqual([line for line in talker.said if line.startswith("AUTH")], [])

    def test_refused_login(self) -> None:
        """A 535 is the operator's to mend: the message waits, and nothing secret is recorded."""
        talker = Talker("AUTH PLAIN", answers={"AUTH": "535 5.7.8 no such login"})
        world = self.deliver(talker, **IN_CLEAR)
        (record,) = world.records()
        self.assertEqual((record["type"], record["response"]["code"]), ("TransientFailure", 535))
        for secret in ("tanstaaf", "AHRpbQB0YW5zdGFhZg"):
            self.assertNotIn(secret, repr(world.journal.records))

    def test_nothing_offered(self) -> None:
        """A host that offers no mechanism that we know gets no mail without a login."""
        for extensions in ((), ("AUTH XOAUTH2",)):
            talker = Talker(*extensions)
            world = self.deliver(talker, **IN_CLEAR)
            self.assertEqual(world.kinds(), ["TransientFailure"])
            self.assertIn("no mechanism", world.records()[0]["response"]["content"])
            self.assertEqual(talker.messages, [])

    def test_login_is_wanted(self) -> None:
        """A 530 to MAIL, where no login is configured, ends no message either."""
        talker = Talker(answers={"MAIL": "530 5.7.0 authentication required"})
        world = self.deliver(talker)
        self.assertEqual(world.kinds(), ["TransientFailure"])


class SafetyTests(ClientCase):
    """Which connections are safe enough for a login."""

    def ask(self, facts: TLSFacts | None, **values: Any) -> bytes | SMTPSessionError:
        """What is said over such a connection, or why nothing is."""
        client: ESMTPClient = self.make()
        self.open(b"AUTH PLAIN")
        client.tls = facts
        coroutine = log_in(client, PathSettings(**{**LOGIN, **values}), "mx (192.0.2.1:25)")
        try:
            coroutine.send(None)
        except SessionAuthError as failure:
            return failure
        except StopIteration:
            pass
        coroutine.close()
        return self.said()

    def test_verified(self) -> None:
        """With a good certificate the login is said."""
        self.assertEqual(self.ask(GOOD), b"AUTH PLAIN AHRpbQB0YW5zdGFhZg==\r\n")

    def test_bad_certificate(self) -> None:
        """With another only if that is allowed; leave for clear text is not leave for that."""
        failure = self.ask(BAD, allow_smtp_auth_plain_without_tls=True)
        assert isinstance(failure, SessionAuthError)
        self.assertIn("has expired", failure.text)
        self.assertNotIn("tanstaaf", failure.text)
        allowed = self.ask(BAD, allow_smtp_auth_plain_without_valid_certificate=True)
        self.assertIsInstance(allowed, bytes)

    def test_half_a_login(self) -> None:
        """A name without a password, or the other way round, is told apart."""
        for missing in ("smtp_auth_plain_username", "smtp_auth_plain_password"):
            failure = self.ask(GOOD, **{missing: None})
            assert isinstance(failure, SessionAuthError)
            self.assertIn(f"{missing} is missing", failure.text)

    def test_no_login(self) -> None:
        """Without a login in the path nothing is said."""
        said = self.ask(None, smtp_auth_plain_username=None, smtp_auth_plain_password=None)
        self.assertEqual(said, b"")

    def test_path_keeps_its_secret(self) -> None:
        """What a traceback would show of a path has no password."""
        self.assertNotIn("tanstaaf", repr(PathSettings(**LOGIN)))


class ClientTests(ClientCase):
    """L{ESMTPClient.authenticate}."""

    def test_refused(self) -> None:
        """A refusal ends the session politely."""
        self.open(b"AUTH LOGIN")
        waiting = self.client.authenticate("tim", "x")
        self.client.dataReceived(b"535 5.7.8 no\r\n")
        failure = self.failure_of(waiting, SessionRefused)
        self.assertEqual(failure.phase, "auth")
        self.assertIn("logging in", failure.text)
        self.assertTrue(self.said().endswith(b"QUIT\r\n"))
        self.assertFalse(self.client.usable)

    def test_unusable_login(self) -> None:
        """A name that cannot be said is refused without the name."""
        self.open(b"AUTH SCRAM-SHA-256")
        failure = self.failure_of(self.client.authenticate("t\x07m", "x"), SessionAuthError)
        self.assertNotIn("\x07", failure.text)
        self.assertEqual(self.said(), b"")

    def test_silence(self) -> None:
        """The answer has C{auth_timeout}."""
        self.open(b"AUTH PLAIN")
        waiting = self.client.authenticate("tim", "x")
        self.clock.advance(59)
        self.assertNoResult(waiting)
        self.clock.advance(2)
        self.assertEqual(self.failure_of(waiting, SMTPSessionError).phase, "auth")

    def test_lost(self) -> None:
        """A connection that is lost meanwhile is told as lost while logging in."""
        self.open(b"AUTH PLAIN")
        waiting = self.client.authenticate("tim", "x")
        self.lose()
        self.assertEqual(self.failure_of(waiting, SMTPSessionError).phase, "auth")
