"""Logging in: the mechanisms, and AUTH as the client's machine speaks it."""

from __future__ import annotations

import base64
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.smtp.client import Authenticated, Refused
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.sasl_client import (
    Login,
    Mechanism,
    Plain,
    ScramSHA256,
    choose_mechanism,
    saslprep,
)
from tests.wire_client_dialogue import GROUP, MESSAGE, Dialogue

NONCE = "rOprNGfwEbeRWgbNEkqO"
# RFC 7677, 3
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def wrapped(text: bytes) -> bytes:
    """A line of the exchange, without its line end."""
    return base64.b64encode(text)


class MechanismTests(SynchronousTestCase):
    """The dialogues, octet by octet."""

    def test_scram(self) -> None:
        """The example of RFC 7677 comes out as it stands there."""
        scram = ScramSHA256("user", "pencil", NONCE)
        self.assertEqual(scram.initial(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(scram.respond(SERVER_FIRST), CLIENT_FINAL)
        self.assertFalse(scram.complete)
        self.assertEqual(scram.respond(SERVER_FINAL), b"")
        self.assertTrue(scram.complete)

    def test_scram_impostor(self) -> None:
        """A server that does not know the password is not believed."""
        scram = ScramSHA256("user", "pencil", NONCE)
        scram.respond(SERVER_FIRST)
        for final in (SERVER_FINAL.replace(b"6", b"7"), b"e=other-error", b"", b"v=!"):
            self.assertRaises(RemoteProtocolError, scram.respond, final)
        self.assertFalse(scram.complete)

    def test_scram_bad_first_messages(self) -> None:
        """A nonce that is not ours, too few or too many rounds, and nonsense are refused."""
        for first in (
            SERVER_FIRST.replace(b"rOpr", b"xOpr"),
            b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            SERVER_FIRST.replace(b"i=4096", b"i=1"),
            SERVER_FIRST.replace(b"i=4096", b"i=999999999"),
            SERVER_FIRST.replace(b"s=W22Z", b"s=W22"),
            SERVER_FIRST + b"x",
            b"m=ext," + SERVER_FIRST,
            b"",
        ):
            scram = ScramSHA256("user", "pencil", NONCE)
            self.assertRaises(RemoteProtocolError, scram.respond, first)

    def test_scram_names(self) -> None:
        """Commas and equals signs in a name are written so that they cannot end it."""
        scram = ScramSHA256("a=b,c", "x", "n")
        self.assertEqual(scram.initial(), b"n,,n=a=3Db=2Cc,r=n")

    def test_plain(self) -> None:
        """PLAIN says everything at once, and a NUL cannot be smuggled in."""
        plain = Plain("tim", "tänzer")
        self.assertEqual(plain.initial(), b"\0tim\0t\xc3\xa4nzer")
        self.assertRaises(RemoteProtocolError, plain.respond, b"")
        self.assertRaises(ValueError, Plain, "a\0b", "c")
        self.assertRaises(ValueError, Plain, "", "c")

    def test_login(self) -> None:
        """LOGIN says the name, then the password, whatever the prompts are; never more."""
        login = Login("tim", "secret")
        self.assertIsNone(login.initial())
        self.assertEqual([login.respond(b"Username:"), login.complete], [b"tim", False])
        self.assertEqual([login.respond(b"Password:"), login.complete], [b"secret", True])
        self.assertRaises(RemoteProtocolError, login.respond, b"More?")

    def test_saslprep(self) -> None:
        """The examples of RFC 4013, 3."""
        self.assertEqual(saslprep("I\u00adX"), "IX")
        self.assertEqual(saslprep("user"), "user")
        self.assertEqual(saslprep("USER"), "USER")
        self.assertEqual(saslprep("\u00aa"), "a")
        self.assertEqual(saslprep("\u2168"), "IX")
        self.assertEqual(saslprep("a\u00a0b"), "a b")
        for bad in ("\u0007", "\u0627\u0031", "", "\u00ad"):
            self.assertRaises(ValueError, saslprep, bad)

    def test_choice(self) -> None:
        """The strongest mechanism that is offered is taken; what we do not know never."""
        for offered, name in (
            ({"PLAIN", "LOGIN", "SCRAM-SHA-256"}, "SCRAM-SHA-256"),
            ({"LOGIN", "PLAIN", "CRAM-MD5"}, "PLAIN"),
            ({"LOGIN"}, "LOGIN"),
            ({"XOAUTH2"}, None),
        ):
            chosen = choose_mechanism(offered, "a", "b")
            self.assertEqual(chosen and chosen.name, name)

    @given(st.lists(st.binary(max_size=80), max_size=4))
    @settings(max_examples=100, deadline=None)
    def test_any_challenge(self, challenges: list[bytes]) -> None:
        """Whatever a server says, nothing but a protocol error comes of it."""
        for mechanism in (ScramSHA256("a", "b", "n"), Plain("a", "b"), Login("a", "b")):
            mechanism.initial()
            for challenge in challenges:
                try:
                    mechanism.respond(challenge)
                except RemoteProtocolError:
                    break


class AuthTests(SynchronousTestCase):
    """AUTH between commands (RFC 4954)."""

    def login(self, mechanism: Mechanism) -> Dialogue:
        """A session in which AUTH was said."""
        dialogue = Dialogue(b"PIPELINING", b"AUTH PLAIN LOGIN SCRAM-SHA-256")
        dialogue.machine.authenticate(mechanism)
        dialogue.events()
        return dialogue

    def test_offer(self) -> None:
        """Mechanisms are read whatever their case, also behind an equals sign."""
        for line in (b"AUTH plain Login", b"AUTH=PLAIN LOGIN"):
            offered = Dialogue(line).machine.capabilities.auth_mechanisms
            self.assertEqual(offered, {"PLAIN", "LOGIN"})

    def test_plain(self) -> None:
        """PLAIN needs one round trip; then mail goes as before."""
        dialogue = self.login(Plain("tim", "secret"))
        self.assertEqual(dialogue.said, b"AUTH PLAIN AHRpbQBzZWNyZXQ=\r\n")
        self.assertIs(dialogue.machine.phase, Phase.AUTH)
        (event,) = dialogue.feed(b"235 2.7.0 welcome\r\n")
        assert isinstance(event, Authenticated)
        self.assertEqual(event.reply.command, "AUTH PLAIN ***")
        self.assertEqual(dialogue.begin(MESSAGE), GROUP)

    def test_long_plain(self) -> None:
        """A login that does not fit into a command waits for the server's word."""
        dialogue = self.login(Plain("tim", "s" * 500))
        self.assertEqual(dialogue.said, b"AUTH PLAIN\r\n")
        self.assertEqual(dialogue.feed(b"334 \r\n"), [])
        self.assertEqual(dialogue.said, wrapped(b"\0tim\0" + b"s" * 500) + b"\r\n")
        (event,) = dialogue.feed(b"235 ok\r\n")
        self.assertIsInstance(event, Authenticated)

    def test_login(self) -> None:
        """LOGIN answers two prompts."""
        dialogue = self.login(Login("tim", "secret"))
        self.assertEqual(dialogue.said, b"AUTH LOGIN\r\n")
        dialogue.feed(b"334 VXNlcm5hbWU6\r\n")
        self.assertEqual(dialogue.said, b"dGlt\r\n")
        dialogue.feed(b"334 UGFzc3dvcmQ6\r\n")
        self.assertEqual(dialogue.said, b"c2VjcmV0\r\n")
        (event,) = dialogue.feed(b"235 ok\r\n")
        self.assertIsInstance(event, Authenticated)

    def test_scram(self) -> None:
        """SCRAM's last message comes as a challenge, and is answered with an empty line."""
        dialogue = self.login(ScramSHA256("user", "pencil", NONCE))
        dialogue.feed(b"334 " + wrapped(SERVER_FIRST) + b"\r\n")
        self.assertEqual(dialogue.said, wrapped(CLIENT_FINAL) + b"\r\n")
        dialogue.feed(b"334 " + wrapped(SERVER_FINAL) + b"\r\n")
        self.assertEqual(dialogue.said, b"\r\n")
        (event,) = dialogue.feed(b"235 ok\r\n")
        self.assertIsInstance(event, Authenticated)

    def test_unproven(self) -> None:
        """A server that says yes before it has proven itself breaks the protocol."""
        dialogue = self.login(ScramSHA256("user", "pencil", NONCE))
        dialogue.feed(b"334 " + wrapped(SERVER_FIRST) + b"\r\n")
        self.assertRaises(RemoteProtocolError, dialogue.feed, b"235 ok\r\n")
        self.assertTrue(dialogue.machine.closed)

    def test_refused(self) -> None:
        """A refusal ends the session's use; nothing secret is in it, at any step."""
        for mechanism in (Plain("tim", "secret"), Login("tim", "secret")):
            dialogue = self.login(mechanism)
            if mechanism.name == "LOGIN":
                dialogue.feed(b"334 VXNlcm5hbWU6\r\n334 \r\n"[:18])
                dialogue.feed(b"334 UGFzc3dvcmQ6\r\n")
            (event,) = dialogue.feed(b"535 5.7.8 bad credentials\r\n")
            assert isinstance(event, Refused)
            self.assertIs(event.phase, Phase.AUTH)
            self.assertEqual(event.reply.command, f"AUTH {mechanism.name} ***")
            self.assertIsNone(re.search("secret|tim|c2Vj|AHRp", repr(event)))
            self.assertRaises(LocalProtocolError, dialogue.machine.begin, MESSAGE)

    def test_421(self) -> None:
        """A server that closes while we log in says so."""
        (event,) = self.login(Plain("a", "b")).feed(b"421 4.7.0 later\r\n")
        assert isinstance(event, Refused)
        self.assertEqual((event.phase, event.reply.code), (Phase.AUTH, 421))

    def test_nonsense(self) -> None:
        """Challenges that are none, and replies out of place, end the session."""
        for said in (b"334 ***\r\n", b"334 AAAA\r\n", b"354 go\r\n", b"334 \r\n334 \r\n"):
            dialogue = self.login(Plain("a", "b"))
            self.assertRaises(RemoteProtocolError, dialogue.feed, said)
            self.assertTrue(dialogue.machine.closed)

    def test_replies_in_advance(self) -> None:
        """A server that answers what was not asked yet is out of step."""
        dialogue = self.login(Login("a", "b"))
        self.assertRaises(
            RemoteProtocolError, dialogue.feed, b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
        )
