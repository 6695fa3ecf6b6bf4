"""The client's side of three SASL mechanisms: SCRAM-SHA-256, PLAIN and LOGIN (RFC 4422, 4954).

A mechanism is a short dialogue of octets; how they are wrapped into SMTP is not its business.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import stringprep
from collections.abc import Collection
from functools import lru_cache
from typing import Protocol

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.sasl import normalised

__all__ = ["Login", "Mechanism", "Plain", "ScramSHA256", "choose_mechanism", "saslprep"]

#: Rounds of hashing that a server may ask for: RFC 7677, 4 says at least 4096; the upper bound is
#: what a hostile server can cost (a few hundredths of a second).
MIN_ITERATIONS, MAX_ITERATIONS = 4096, 100_000

_FIRST = re.compile(rb"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([0-9]{1,9})(?:,.*)?", re.DOTALL)
_FINAL = re.compile(rb"v=([A-Za-z0-9+/=]+)(?:,.*)?", re.DOTALL)
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Mechanism(Protocol):
    """One login with one mechanism."""

    name: str
    """As AUTH says it."""

    @property
    def complete(self) -> bool:
        """Whether a positive answer may be believed: all of the dialogue has taken place."""

    def initial(self) -> bytes | None:
        """What the client says first; L{None} where the server begins."""

    def respond(self, challenge: bytes) -> bytes:
        """Answer what the server says.

        @raise RemoteProtocolError: if it says what the mechanism does not allow.
        """


class Plain:
    """PLAIN (RFC 4616): name and password in one go."""

    name = "PLAIN"
    complete = True

    def __init__(self, username: str, password: str) -> None:
        """
        @raise ValueError: if one of them cannot be said.
        """
        if "\0" in username + password:
            raise ValueError("the login has a NUL")
        self._message = b"\0%b\0%b" % (_utf8(username), _utf8(password))
        self._said = False

    def initial(self) -> bytes | None:
        """Everything there is to say."""
        self._said = True
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """There is nothing that a server could ask."""
        raise RemoteProtocolError("PLAIN has no further questions")


class Login:
    """LOGIN: the name, then the password, in answer to whatever prompts (no RFC)."""

    name = "LOGIN"

    def __init__(self, username: str, password: str) -> None:
        """
        @raise ValueError: if one of them cannot be said.
        """
        self._left = [_utf8(username), _utf8(password)]

    @property
    def complete(self) -> bool:
        """Whether both have been asked for."""
        return not self._left

    def initial(self) -> bytes | None:
        """Not every server knows what to do with a name that comes unasked."""
        return None

    def respond(self, challenge: bytes) -> bytes:
        """The prompts are for people."""
        if not self._left:
            raise RemoteProtocolError("LOGIN has no third question")
        return self._left.pop(0)


class ScramSHA256:
    """SCRAM-SHA-256 (RFC 5802, RFC 7677): the password is proven, by both sides, and never sent."""

    name = "SCRAM-SHA-256"

    def __init__(self, username: str, password: str, nonce: str | None = None) -> None:
        """
        @param nonce: printable ASCII without commas, for tests; random if absent.
        @raise ValueError: if name or password have characters that SASLprep prohibits.
        """
        name = saslprep(username).replace("=", "=3D").replace(",", "=2C")
        self._password = saslprep(password).encode()
        self._nonce = (nonce or secrets.token_urlsafe(24)).encode()
        self._bare = b"n=%b,r=%b" % (name.encode(), self._nonce)
        self._signature: bytes | None = None
        self._verified = False

    @property
    def complete(self) -> bool:
        """Whether the server has proven that it knows the password."""
        return self._verified

    def initial(self) -> bytes | None:
        """Name and nonce; C{n,,}: no channel binding, no other identity."""
        return b"n,," + self._bare

    def respond(self, challenge: bytes) -> bytes:
        """First the proof, then nothing more than that we are content."""
        if self._signature is None:
            return self._prove(challenge)
        match = _FINAL.fullmatch(challenge)
        if self._verified or match is None:
            raise RemoteProtocolError("SCRAM: not the server's last message")
        if not hmac.compare_digest(_unwrapped(match.group(1)), self._signature):
            raise RemoteProtocolError("SCRAM: the server does not know the password")
        self._verified = True
        return b""

    def _prove(self, challenge: bytes) -> bytes:
        match = _FIRST.fullmatch(challenge)
        if match is None:
            raise RemoteProtocolError("SCRAM: not the server's first message")
        nonce, salt, iterations = match.group(1), _unwrapped(match.group(2)), int(match.group(3))
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise RemoteProtocolError("SCRAM: the server's nonce does not follow from ours")
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise RemoteProtocolError(f"SCRAM: {iterations} iterations are asked for")
        salted = _salted(self._password, salt, iterations)
        client_key = _mac(salted, b"Client Key")
        without_proof = b"c=biws,r=" + nonce
        said = b",".join((self._bare, challenge, without_proof))
        signature = _mac(hashlib.sha256(client_key).digest(), said)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = _mac(_mac(salted, b"Server Key"), said)
        return without_proof + b",p=" + base64.b64encode(proof)


def choose_mechanism(offered: Collection[str], username: str, password: str) -> Mechanism | None:
    """The best mechanism that a server offers.

    @param offered: names in upper case.
    @return: L{None} if we know none of them.
    @raise ValueError: if name or password cannot be used with it; the text does not contain them.
    """
    for mechanism in (ScramSHA256, Plain, Login):
        if mechanism.name in offered:
            made: Mechanism = mechanism(username, password)
            return made
    return None


def saslprep(text: str) -> str:
    """Prepare a name or a password for comparison (RFC 4013).

    @raise ValueError: if there is a character in it that has no place there, or nothing is left.
    """
    prepared = normalised(text)
    if not prepared:
        raise ValueError("name or password is empty")
    if any(table(char) for char in prepared for table in _PROHIBITED):
        raise ValueError("name or password has a prohibited character (RFC 4013)")
    right_to_left = [stringprep.in_table_d1(char) for char in prepared]
    if any(right_to_left) and not (
        right_to_left[0]
        and right_to_left[-1]
        and not any(stringprep.in_table_d2(char) for char in prepared)
    ):
        raise ValueError("name or password mixes the directions of writing (RFC 3454, 6)")
    return prepared


def _utf8(text: str) -> bytes:
    if not text:
        raise ValueError("name or password is empty")
    return text.encode()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


@lru_cache(maxsize=16)
def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    """The slow part, the same for every session with a server."""
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def _unwrapped(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise RemoteProtocolError("SCRAM: what should be base64 is not") from None
