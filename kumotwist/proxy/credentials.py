"""Logins of clients (RFC 1929), as Twisted's credential checkers want them."""

from __future__ import annotations

import hmac

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

__all__ = ["Login", "can_check", "check_login", "user_name"]


@implementer(IUsernamePassword)
class Login:
    """A name and a password that never shows itself.

    L{twisted.cred.credentials.UsernamePassword} compares with C{==}, whose duration tells how much
    of a guess was right; this one takes the same time for every guess.
    """

    def __init__(self, username: bytes, password: bytes) -> None:
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return f"<login of {self.username!r}>"

    def checkPassword(self, password: bytes) -> bool:
        """Whether C{password}, the right one, is the one that was given."""
        if isinstance(password, str):
            password = password.encode()
        return hmac.compare_digest(self.password, password)


def can_check(checker: ICredentialsChecker) -> bool:
    """Whether a checker understands names with passwords."""
    return IUsernamePassword in checker.credentialInterfaces


def check_login(checker: ICredentialsChecker, username: bytes, password: bytes) -> Deferred[object]:
    """Ask a checker about a login.

    @return: fires if it is right; fails with L{twisted.cred.error.UnauthorizedLogin} or, if the
        checker is broken, with anything else.
    """
    return maybeDeferred(checker.requestAvatarId, Login(username, password))


def user_name(username: bytes) -> str:
    """The name as rules and logs spell it; octets that are not UTF-8 are escaped."""
    return username.decode("utf-8", "backslashreplace")
