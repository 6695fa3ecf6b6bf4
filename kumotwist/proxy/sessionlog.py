"""The line that each session leaves in the log, at a price that thousands a second can pay.

An event of L{twisted.logger} costs more than the rest of a short session. So a session that ends
after a quiet moment is logged at once; those that end within a tenth of a second of the last event
share the next one, a line each.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kumotwist.wire.socks5.format import NO_AUTHENTICATION, USERNAME_PASSWORD

__all__ = ["SessionFacts", "SessionLog", "no_method"]

#: Seconds between two events.
_EVERY = 0.1
#: So many lines are written without waiting any longer.
_AT_MOST = 1000

_log = Logger()

#: What is known of a session: C{proxy}, C{client}, C{user}, C{source}, C{destination},
#: C{to_destination}, C{to_client}, C{seconds}, C{outcome}.
SessionFacts = dict[str, Any]


class _Lines:
    """The lines of some sessions, written when somebody wants to read them."""

    def __init__(self, sessions: list[SessionFacts]) -> None:
        self._sessions = sessions

    def __str__(self) -> str:
        return "\n".join(map(_line, self._sessions))


def _line(one: SessionFacts) -> str:
    return (
        f"{one['proxy']} {one['client']} user={one['user']!r} source={one['source']} "
        f"destination={one['destination']} out={one['to_destination']} back={one['to_client']} "
        f"seconds={one['seconds']:.3f}: {one['outcome']}"
    )


def no_method(offered: bytes, has_logins: bool) -> str:
    """Why a client was turned away after its greeting, for the line of its session.

    @param offered: the methods of authentication that it can do.
    @param has_logins: whether the proxy knows somebody who may log in.
    """
    if has_logins and NO_AUTHENTICATION in offered:
        return "the client does not log in, and must (require_auth)"
    if not has_logins and USERNAME_PASSWORD in offered:
        return "the client insists on a login, and there is none here (auth)"
    methods = " ".join(f"{method:02x}" for method in offered[:8]) or "none"
    return f"no acceptable method of authentication (offered: {methods})"


class SessionLog:
    """Writes what sessions were.

    @param clock: says when lines are gathered and when they are written.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = float("-inf")
        self._gathered: list[SessionFacts] = []
        self._timer: IDelayedCall | None = None

    def ended(self, session: SessionFacts) -> None:
        """A session is over. The event has C{sessions}, a list of all that share it."""
        self._gathered.append(session)
        if self._timer is None:
            wait = self._next - self._clock.seconds()
            if wait <= 0:
                self.flush()
            else:
                self._timer = self._clock.callLater(wait, self.flush)
        elif len(self._gathered) >= _AT_MOST:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._next = self._clock.seconds() + _EVERY
            _log.info("{lines}", lines=_Lines(gathered), sessions=gathered)
