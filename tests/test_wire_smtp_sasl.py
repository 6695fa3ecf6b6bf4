"""Tests of the SASL mechanisms, the server's side."""

from __future__ import annotations

import base64
import hashlib
import hmac

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.sasl import (
    LoginMechanism,
    Mechanism,
    PasswordClaim,
    PlainMechanism,
    SASLError,
    ScramClaim,
    ScramMechanism,
    decode_base64,
    encode_base64,
    saslprep,
)

# RFC 7677, 3.
NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO" + NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO" + NONCE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SIGNATURE = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def scram() -> ScramMechanism:
    """The RFC's server."""
    return ScramMechanism(NONCE, lambda name: SALT)


class Base64Tests(SynchronousTestCase):
    """Strict base64."""

    def test_strict(self) -> None:
        """What is not exactly base64 is refused, not repaired."""
        self.assertEqual(decode_base64(b"Zm8="), b"fo")
        self.assertEqual(decode_base64(b""), b"")
        for wrong in (b"Zm8", b"Zm8=\n", b"Z m8=", b"Zm8=Zm8=", b"*", b"=", b"Zm8-", b"\xff==="):
            self.assertRaises(SASLError, decode_base64, wrong)

    @settings(max_examples=50)
    @given(st.binary(max_size=200))
    def test_round_trip(self, data: bytes) -> None:
        """What is written is read back, and stands in one line."""
        text = encode_base64(data)
        self.assertNotIn("\n", text)
        self.assertEqual(decode_base64(text.encode()), data)


class PasswordTests(SynchronousTestCase):
    """PLAIN and LOGIN."""

    def test_plain(self) -> None:
        """PLAIN claims a name and a password, with or without an initial response."""
        mechanism = PlainMechanism()
        self.assertEqual(mechanism.next(None), b"")
        for authorization in (b"", b"tim"):
            claim = mechanism.next(authorization + b"\0tim\0tanstaaftanstaaf")
            assert isinstance(claim, PasswordClaim)
            self.assertEqual((claim.username, claim.password), (b"tim", b"tanstaaftanstaaf"))
            self.assertNotIn("tanstaaf", repr(claim))

    def test_wrong_plain(self) -> None:
        """Missing parts, nothing in them, too much of them, and acting for others are refused."""
        for wrong in (
            b"", b"tim", b"\0tim", b"\0\0", b"\0tim\0", b"\0\0secret", b"a\0b\0c\0d",
            b"ann\0tim\0s",
            b"\0" + b"x" * 1001 + b"\0s", b"\0t\0" + b"x" * 1001,
        ):  # fmt: skip
            self.assertRaises(SASLError, PlainMechanism().next, wrong)

    def test_login(self) -> None:
        """LOGIN asks for both, or takes the name with the command."""
        mechanism = LoginMechanism()
        self.assertEqual(mechanism.next(None), b"Username:")
        self.assertEqual(mechanism.next(b"tim"), b"Password:")
        claim = mechanism.next(b"secret")
        assert isinstance(claim, PasswordClaim)
        self.assertEqual((claim.username, claim.password), (b"tim", b"secret"))
        quick = LoginMechanism()
        self.assertEqual(quick.next(b"tim"), b"Password:")
        self.assertRaises(SASLError, quick.next, b"")


class ScramTests(SynchronousTestCase):
    """SCRAM-SHA-256."""

    def final(self, first: bytes = FIRST, final: bytes = FINAL) -> ScramClaim:
        """The claim at the end of a dialogue."""
        mechanism = scram()
        self.assertEqual(mechanism.next(None), b"")
        mechanism.next(first)
        claim = mechanism.next(final)
        assert isinstance(claim, ScramClaim)
        return claim

    def test_example_of_the_rfc(self) -> None:
        """The dialogue of RFC 7677, 3, octet by octet."""
        mechanism = scram()
        self.assertEqual(mechanism.next(FIRST), CHALLENGE)
        claim = mechanism.next(FINAL)
        assert isinstance(claim, ScramClaim)
        self.assertEqual(claim.username, b"user")
        self.assertFalse(claim.checked)
        self.assertTrue(claim.check(b"pencil"))
        self.assertTrue(claim.checked)
        self.assertEqual(encode_base64(claim.signature), SIGNATURE)

    def test_wrong_password(self) -> None:
        """A proof that was made with another password does not hold, and is not signed."""
        claim = self.final()
        self.assertFalse(claim.check(b"pencils"))
        self.assertEqual(claim.signature, b"")
        self.assertEqual(repr(claim), "<proof of b'user'>")

    def test_names(self) -> None:
        """Escapes in names are resolved; a name may be repeated as whom to act for."""
        for sent, meant in ((b"a=2Cb=3Dc", b"a,b=c"), (b"user", b"user")):
            asked: list[bytes] = []
            mechanism = ScramMechanism(NONCE, lambda name, asked=asked: asked.append(name) or SALT)  # type: ignore[misc]
            mechanism.next(b"y,a=" + sent + b",n=" + sent + b",r=abc,x=later")
            self.assertEqual(asked, [meant])

    def test_wrong_first(self) -> None:
        """What is no first message, binds a channel, or acts for others is refused."""
        for wrong in (
            b"", b"n", b"n,", b"n,,", b"n,,n=user", b"n,,r=abc,n=user", b"p=tls-unique,,n=u,r=a",
            b"x,,n=u,r=a", b"n,a=ann,n=user,r=a", b"n,,m=ext,n=user,r=a", b"n,,n=,r=a",
            b"n,,n=u,r=",
            b"n,,n=u=2c,r=a", b"n,,n=u=,r=a", b"n,,n=u,r=\x7f", b"n,,n=u,r=" + b"a" * 257,
            b"n,,n=" + b"u" * 1001 + b",r=a",
        ):  # fmt: skip
            self.assertRaises(SASLError, scram().next, wrong)

    def test_wrong_final(self) -> None:
        """A changed header or nonce, and a proof that is none, are refused."""
        proof = FINAL.rpartition(b",p=")[2]
        nonce = FINAL.split(b",")[1]
        for wrong in (
            b"", b"p=" + proof, b"c=biws,p=" + proof, FINAL.replace(b"biws", b"eSws"),
            FINAL.replace(b"r=rO", b"r=rP"), b"c=biws," + nonce + b",p=", FINAL[:-4],
            FINAL + b",x=1",
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=" + proof, FINAL.replace(b"biws", b"biw"),
        ):  # fmt: skip
            mechanism = scram()
            mechanism.next(FIRST)
            self.assertRaises(SASLError, mechanism.next, wrong)

    def test_extension_in_the_final_message(self) -> None:
        """What a client adds to its final message is covered by the proof."""
        self.assertFalse(self.final(final=FINAL.replace(b",p=", b",x=1,p=")).check(b"pencil"))

    def test_passwords_beyond_ascii(self) -> None:
        """Passwords are normalised as clients do it (RFC 4013)."""
        self.assertEqual(saslprep(b"plain"), b"plain")
        self.assertEqual(saslprep("I\u00adX".encode()), b"IX")
        self.assertEqual(saslprep("\u00aa\u00a0\u2168".encode()), b"a IX")
        self.assertEqual(saslprep(b"\xff"), b"\xff")

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=60) | st.sampled_from([FIRST, FINAL]), max_size=3))
    def test_any_message(self, messages: list[bytes]) -> None:
        """Whatever a client sends, the only error is the protocol's."""
        for mechanism in (scram(), PlainMechanism(), LoginMechanism()):
            self._feed(mechanism, messages)

    def _feed(self, mechanism: Mechanism, messages: list[bytes]) -> None:
        for message in messages:
            try:
                if not isinstance(mechanism.next(message), bytes):
                    return
            except SASLError:
                return


def scram_client(username: bytes, password: bytes, challenge: bytes, first_bare: bytes) -> bytes:
    """The final message of an independent client, straight from RFC 5802, 3."""
    fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password, base64.b64decode(fields[b"s"]), int(fields[b"i"])
    )
    client_key = hmac.new(salted, b"Client Key", "sha256").digest()
    without_proof = b"c=biws,r=" + fields[b"r"]
    message = b",".join((first_bare, challenge, without_proof))
    signature = hmac.new(hashlib.sha256(client_key).digest(), message, "sha256").digest()
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return without_proof + b",p=" + base64.b64encode(proof)
