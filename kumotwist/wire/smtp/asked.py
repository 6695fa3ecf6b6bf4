"""What a client has said and waits for an answer to."""

from __future__ import annotations

from typing import NamedTuple

from kumotwist.wire.smtp.phases import Phase

__all__ = ["BODY", "DATA", "DOT", "GREETING", "QUIT", "RSET", "Asked"]


class Asked(NamedTuple):
    """A command that waits for its reply.

    @ivar phase: what the reply will answer.
    @ivar command: as replies name it; empty for the greeting.
    @ivar number: the recipient's, for RCPT.
    """

    phase: Phase
    command: str
    number: int = 0


GREETING = Asked(Phase.BANNER, "")
DATA = Asked(Phase.DATA, "DATA")
BODY = Asked(Phase.BODY, ".")
DOT = Asked(Phase.DOT, ".")
QUIT = Asked(Phase.QUIT, "QUIT")
RSET = Asked(Phase.RSET, "RSET")
