"""The server's side of SASL mechanisms as machines without I/O (RFC 4422).

A mechanism is fed what the client answers and gives either the next challenge or, at last, a
claim: a name with something that proves it, to be checked by whoever knows the passwords. None of
it ever shows a secret in a C{repr} or in an error.

  - C{PLAIN} (RFC 4616) and C{LOGIN} (never standardised, asked for by old clients) claim a name
    and a password;
  - C{SCRAM-SHA-256} (RFC 5802, RFC 7677) proves that the client knows the password without
    sending it, and proves the same of the server. Channel binding is not offered.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Callable
from typing import Protocol

from kumotwist.wire.errors import RemoteProtocolError

__all__ = [
    "ITERATIONS",
    "LoginMechanism",
    "Mechanism",
    "PasswordClaim",
    "PlainMechanism",
    "SASLError",
    "ScramClaim",
    "ScramMechanism",
    "decode_base64",
    "encode_base64",
    "normalised",
    "saslprep",
]

#: Rounds of PBKDF2; the least that RFC 7677, 4 allows, about two milliseconds of work.
ITERATIONS = 4096

#: Octets of a name or a password (RFC 4616, 2 wants at least 255 to be taken).
MAX_SECRET = 1000

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_NONCE = re.compile(rb"[!-+\--~]{1,256}")
_ESCAPE = re.compile(rb"=2C|=3D|=")


class SASLError(RemoteProtocolError):
    """What the client answered is not well formed; the text says why, without quoting it."""


def decode_base64(data: bytes) -> bytes:
    """Read base64 strictly (RFC 4954, 4): no blanks, no missing padding, nothing left out.

    @raise SASLError: for anything else.
    """
    if _BASE64.fullmatch(data) is None:
        raise SASLError("that is not base64")
    return base64.b64decode(data)


def encode_base64(data: bytes) -> str:
    """Write base64 in one line."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def saslprep(secret: bytes) -> bytes:
    """A password as both sides of SCRAM must spell it (RFC 4013; what is no UTF-8 stays).

    The mapping and the normalisation are done; characters that RFC 4013 prohibits are let through,
    since a password that is stored with them was meant.
    """
    if secret.isascii():
        return secret
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return secret
    return normalised(text).encode()


def normalised(text: str) -> str:
    """A name or a password after the mapping and the normalisation of RFC 4013, 2.1 and 2.2."""
    mapped = (
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    return unicodedata.normalize("NFKC", "".join(mapped))


class PasswordClaim:
    """A name and the password that is said to be its.

    @ivar username: as sent.
    @ivar password: as sent.
    """

    __slots__ = ("password", "username")

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return f"<claim of {self.username!r}>"


class ScramClaim:
    """A name and the proof that the client knows its password.

    @ivar username: as sent, without escapes.
    @ivar signature: what the server must answer to a good proof; empty until one was found good.
    @ivar checked: whether L{check} was asked.
    """

    __slots__ = ("_message", "_proof", "_salt", "checked", "signature", "username")

    def __init__(self, username: bytes, salt: bytes, message: bytes, proof: bytes) -> None:
        self.username = username
        self.signature = b""
        self.checked = False
        self._salt = salt
        self._message = message
        self._proof = proof

    def __repr__(self) -> str:
        return f"<proof of {self.username!r}>"

    def check(self, password: bytes) -> bool:
        """Whether the proof was made with this password (RFC 5802, 3)."""
        self.checked = True
        salted = hashlib.pbkdf2_hmac("sha256", saslprep(password), self._salt, ITERATIONS)
        stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        signature = _hmac(stored_key, self._message)
        client_key = bytes(a ^ b for a, b in zip(self._proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key):
            return False
        self.signature = _hmac(_hmac(salted, b"Server Key"), self._message)
        return True


class Mechanism(Protocol):
    """What every mechanism can do."""

    def next(self, answer: bytes | None) -> bytes | PasswordClaim | ScramClaim:
        """Take the client's next message.

        @param answer: what it sent; L{None} at the beginning if it sent nothing with AUTH.
        @return: the next challenge, or the claim; after a claim there is nothing more to take.
        @raise SASLError: if the message is not well formed.
        """


class PlainMechanism:
    """PLAIN: all in one message (RFC 4616)."""

    def next(self, answer: bytes | None) -> bytes | PasswordClaim | ScramClaim:
        """Take the message."""
        if answer is None:
            return b""
        parts = answer.split(b"\0")
        if len(parts) != 3:
            raise SASLError("PLAIN needs three parts")
        authorization, username, password = parts
        if authorization not in (b"", username):
            raise SASLError("acting for somebody else is not supported")
        return _password_claim(username, password)


class LoginMechanism:
    """LOGIN: the name, then the password; the name may come with AUTH."""

    def __init__(self) -> None:
        self._username: bytes | None = None

    def next(self, answer: bytes | None) -> bytes | PasswordClaim | ScramClaim:
        """Take the name or the password."""
        if answer is None:
            return b"Username:"
        if self._username is None:
            self._username = answer
            return b"Password:"
        return _password_claim(self._username, answer)


def _password_claim(username: bytes, password: bytes) -> PasswordClaim:
    if not username or not password or max(len(username), len(password)) > MAX_SECRET:
        raise SASLError("a name or a password is missing or too long")
    return PasswordClaim(username, password)


class ScramMechanism:
    """SCRAM-SHA-256 (RFC 5802, 5 to 7; RFC 7677).

    @param nonce: printable ASCII without commas that was never used before.
    @param salt_of: gives the salt of a name, always the same one, also for names that do not exist.
    """

    def __init__(self, nonce: bytes, salt_of: Callable[[bytes], bytes]) -> None:
        self._nonce = nonce
        self._salt_of = salt_of
        self._binding = b""
        self._username = b""
        self._salt = b""
        self._messages = b""

    def next(self, answer: bytes | None) -> bytes | PasswordClaim | ScramClaim:
        """Take the client's first or its final message."""
        if answer is None:
            return b""
        return self._final(answer) if self._binding else self._first(answer)

    def _first(self, message: bytes) -> bytes:
        flag, comma, rest = message.partition(b",")
        authorization, second, bare = rest.partition(b",")
        if flag not in (b"n", b"y") or not comma or not second:
            raise SASLError("channel binding is not offered, or the header is not well formed")
        name, _, nonce = bare.partition(b",")
        nonce = nonce.partition(b",")[0]
        if not name.startswith(b"n=") or not nonce.startswith(b"r="):
            raise SASLError("the first message needs a name and a nonce")
        username = _unescape(name[2:])
        if authorization and authorization != b"a=" + name[2:]:
            raise SASLError("acting for somebody else is not supported")
        if _NONCE.fullmatch(nonce[2:]) is None:
            raise SASLError("the nonce is not well formed")
        self._binding = flag + b"," + authorization + b","
        self._username = username
        self._nonce = nonce[2:] + self._nonce
        self._salt = self._salt_of(username)
        salt = encode_base64(self._salt).encode()
        challenge = b"r=%s,s=%s,i=%d" % (self._nonce, salt, ITERATIONS)
        self._messages = bare + b"," + challenge + b","
        return challenge

    def _final(self, message: bytes) -> ScramClaim:
        without_proof, _, proof = message.rpartition(b",p=")
        fields = without_proof.split(b",")
        if len(fields) < 2 or fields[0][:2] != b"c=" or fields[1][:2] != b"r=":
            raise SASLError("the final message is not well formed")
        if decode_base64(fields[0][2:]) != self._binding:
            raise SASLError("the channel binding has changed")
        if not hmac.compare_digest(fields[1][2:], self._nonce):
            raise SASLError("the nonce has changed")
        decoded = decode_base64(proof)
        if len(decoded) != hashlib.sha256().digest_size:
            raise SASLError("the proof has the wrong length")
        return ScramClaim(self._username, self._salt, self._messages + without_proof, decoded)


def _unescape(name: bytes) -> bytes:
    """A C{saslname} as it is meant (RFC 5802, 5.1)."""

    def plain(match: re.Match[bytes]) -> bytes:
        if match.group() == b"=":
            raise SASLError("the name has a wrong escape")
        return b"," if match.group() == b"=2C" else b"="

    if not name or len(name) > MAX_SECRET or b"\0" in name:
        raise SASLError("the name is missing or too long")
    return _ESCAPE.sub(plain, name)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
