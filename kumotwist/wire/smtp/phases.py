"""Where a client's session stands, by what it is waiting for."""

from __future__ import annotations

import enum

__all__ = ["Phase"]


class Phase(enum.Enum):
    """The oldest command that has no reply yet."""

    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    #: The server waits for the message, which has not been handed over to the end.
    BODY = "body"
    #: The final dot has been handed over.
    DOT = "dot"
    RSET = "rset"
    QUIT = "quit"
    #: Nothing is asked.
    IDLE = "idle"

    # Members are singletons; Enum's own hash is a slow function in Python.
    __hash__ = object.__hash__
