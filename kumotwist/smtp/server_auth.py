"""Logins at a listener: from what a client claims to what a Twisted credential checker says.

A checker (L{twisted.cred.checkers.ICredentialsChecker}) that takes C{IUsernamePassword} is asked
about PLAIN and LOGIN. SCRAM-SHA-256 needs the password itself, or what RFC 5802 stores instead of
it; it is offered where the checker takes C{IUsernameHashedPassword} as well, as those do that keep
passwords readable (C{file:PATH} is one of them).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginFailed
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.logins import check_login, user_name
from kumotwist.wire.smtp.events import Auth, AuthResponse
from kumotwist.wire.smtp.replies import Reply, one_line
from kumotwist.wire.smtp.sasl import (
    LoginMechanism,
    Mechanism,
    PasswordClaim,
    PlainMechanism,
    SASLError,
    ScramClaim,
    ScramMechanism,
    encode_base64,
)

__all__ = ["Authenticator", "LoginAttempts"]

_WELCOME = Reply.of(235, "2.7.0", "logged in")
_WRONG = Reply.of(535, "5.7.8", "the name or the password is wrong")
_UNAVAILABLE = Reply.of(454, "4.7.0", "logins cannot be checked at the moment")


@implementer(IUsernameHashedPassword)
class _Proof:
    """A SCRAM proof as a checker takes it: it asks whether a password fits."""

    def __init__(self, claim: ScramClaim) -> None:
        self.username = claim.username
        self._claim = claim

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether C{password}, the right one, is the one that the proof was made with."""
        return self._claim.check(password.encode() if isinstance(password, str) else password)


class Authenticator:
    """What the logins of one listener have in common.

    @param checker: knows the users.
    @ivar mechanisms: what can be offered, the best first.
    @raise ValueError: if the checker cannot check a name with a password.
    """

    def __init__(self, checker: ICredentialsChecker) -> None:
        known = tuple(checker.credentialInterfaces)
        mechanisms: list[str] = []
        if IUsernameHashedPassword in known:
            mechanisms.append("SCRAM-SHA-256")
        if IUsernamePassword in known:
            mechanisms += ["PLAIN", "LOGIN"]
        if not mechanisms:
            raise ValueError("the checker cannot check a name with a password")
        self.mechanisms = tuple(mechanisms)
        self._checker = checker
        # Salts are made from it, so that they stay the same and say nothing of who exists.
        self._secret = secrets.token_bytes(32)

    def mechanism(self, name: str) -> Mechanism:
        """Begin a dialogue of one of the C{mechanisms}."""
        if name == "PLAIN":
            return PlainMechanism()
        if name == "LOGIN":
            return LoginMechanism()
        return ScramMechanism(secrets.token_urlsafe(18).encode(), self._salt)

    def _salt(self, username: bytes) -> bytes:
        return hmac.digest(self._secret, username, "sha256")[:16]

    def check(self, claim: PasswordClaim | ScramClaim) -> Deferred[Any]:
        """Ask the checker about a claim; fails as L{ICredentialsChecker.requestAvatarId} does."""
        if isinstance(claim, PasswordClaim):
            return check_login(self._checker, claim.username, claim.password)
        proof: Any = _Proof(claim)
        checking: Deferred[Any] = maybeDeferred(self._checker.requestAvatarId, proof)
        return checking.addBoth(_same_effort, claim)


def _same_effort(result: Any, claim: ScramClaim) -> Any:
    """Work as hard for a name that does not exist, so that time does not tell which ones do."""
    if not claim.checked:
        claim.check(b"")
        claim.signature = b""
    return result


class LoginAttempts:
    """The logins of one session.

    @param succeeded: is called with the name of the user, safe to log.
    """

    _log = Logger()

    def __init__(self, authenticator: Authenticator, succeeded: Callable[[str], None]) -> None:
        self._authenticator = authenticator
        self._succeeded = succeeded
        self._mechanism: Mechanism | None = None
        self._user = ""
        self._signed = False

    def answer(self, event: Auth | AuthResponse) -> Reply | Deferred[Reply]:
        """Answer a command or response: with a challenge, or with the outcome."""
        if isinstance(event, Auth):
            self._mechanism = self._authenticator.mechanism(event.mechanism)
            self._signed = False
            data = event.initial
        else:
            data = event.data
            if self._signed:
                # The client has checked our own proof, and has nothing to add.
                return self._welcome() if not data else _malformed("the dialogue is over")
        assert self._mechanism is not None
        try:
            step = self._mechanism.next(data)
        except SASLError as error:
            return _malformed(str(error))
        if isinstance(step, bytes):
            return _challenge(step)
        self._user = one_line(user_name(step.username), 255)
        checking = self._authenticator.check(step)
        return checking.addCallbacks(self._is_right, self._is_wrong, callbackArgs=(step,))

    def _is_right(self, _: Any, claim: PasswordClaim | ScramClaim) -> Reply:
        if isinstance(claim, PasswordClaim):
            return self._welcome()
        if not claim.signature:
            return _WRONG  # the checker was content without asking for the proof
        self._signed = True
        return _challenge(b"v=" + encode_base64(claim.signature).encode())

    def _is_wrong(self, failure: Failure) -> Reply:
        if failure.check(LoginFailed):
            return _WRONG
        if failure.check(CancelledError):
            return _UNAVAILABLE  # nobody waits for it any more
        # Not the failure itself: what it says may hold what was asked.
        self._log.error(
            "logins cannot be checked: {kind}", kind=failure.type.__name__ if failure.type else ""
        )
        return _UNAVAILABLE

    def _welcome(self) -> Reply:
        self._signed = False
        self._mechanism = None
        self._succeeded(self._user)
        return _WELCOME


def _challenge(data: bytes) -> Reply:
    return Reply(334, None, (encode_base64(data),))


def _malformed(reason: str) -> Reply:
    return Reply.of(501, "5.5.2", reason)
