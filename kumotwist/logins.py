"""Logins of clients by name and password, as Twisted's credential checkers want them."""

from __future__ import annotations

import hmac

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import StrcredException, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from kumotwist.settings import SettingType
from kumotwist.settings.types import READABLE_FILE

__all__ = ["CHECKER", "Login", "can_check", "check_login", "user_name"]


def _parse_checker(text: str) -> str:
    value = text.strip()
    if value.startswith("file:"):
        READABLE_FILE.parse(value[5:].partition(":")[0])
    try:
        checker = makeChecker(value)
    except (StrcredException, ValueError, TypeError):
        # The text itself may hold a password (memory:NAME:PASSWORD), so it is not shown.
        scheme = value.partition(":")[0]
        raise ValueError(
            f"no cred plugin understands it: {scheme!r} (such as file:/etc/kumo/users)"
        ) from None
    if not can_check(checker):
        raise ValueError("this cred plugin cannot check a name with a password")
    return value


def _render_checker(value: str) -> str:
    return value if value.startswith("file:") else f"{value.partition(':')[0]}:********"


#: A Twisted cred plugin string (L{twisted.cred.strcred}); it stays text until the checker is made.
CHECKER: SettingType[str] = SettingType(
    "cred plugin", _parse_checker, _render_checker, secret=True, reveal=str
)


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
