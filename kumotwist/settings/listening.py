"""What every C{listen} has in common: why nothing can listen there, how many clients may wait,
and a log that is not flooded when none can be accepted."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import implementer

__all__ = ["let_bursts_wait", "quiet_about_shortage", "why_not_listening"]

#: So many clients may wait to be accepted, if the system allows it.
BACKLOG = 1024

#: Seconds between two lines about the same shortage.
_EVERY = 60.0


def why_not_listening(error: BaseException | None) -> str:
    """What is wrong with an address, and what to do.

    @param error: what listening ended with.
    """
    cause = getattr(error, "socketError", None)
    if not isinstance(error, CannotListenError) or not isinstance(cause, OSError):
        return str(error)
    host, port = str(error.interface or "0.0.0.0"), error.port
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if not isinstance(port, int):
        place = str(port)  # the path of a Unix socket
    if cause.errno == errno.EADDRINUSE:
        who = f"; ss -ltnp 'sport = :{port}' shows it" if isinstance(port, int) else ""
        return f"{place} is in use by another process (stop that one or listen elsewhere{who})"
    if cause.errno == errno.EADDRNOTAVAIL:
        return f"this machine does not have the address of {place} (ip address shows those it has)"
    if cause.errno == errno.EACCES:
        return (
            f"no permission for {place} (ports below 1024 want root, CAP_NET_BIND_SERVICE or a "
            "socket of systemd)"
        )
    return str(error)


def let_bursts_wait(port: Any, endpoint: str) -> None:
    """Let more clients wait to be accepted than Twisted's 50; one more tries again after a second.

    @param port: what listens; anything but a bare TCP or Unix port is left alone.
    @param endpoint: the endpoint string; C{:backlog=} in it decides.
    """
    if isinstance(port, Port) and "backlog=" not in endpoint:
        port.socket.listen(BACKLOG)


@implementer(ILogObserver)
class _ShortageLog:
    """Takes a port's log events: at most one line a minute comes of those about C{accept}.

    For each client that Twisted turns away for want of a descriptor it writes three.
    """

    _log = Logger()

    def __init__(self, what: str, seconds: Callable[[], float], observer: Any) -> None:
        self._what = what
        self._seconds = seconds
        self._observer = observer
        self._next = float("-inf")

    def __call__(self, event: LogEvent) -> None:
        text = str(event.get("log_format", ""))
        if "EMFILE" not in text and "acceptError" not in event:
            self._observer(event)
        elif self._seconds() >= self._next:
            self._next = self._seconds() + _EVERY
            self._log.error(
                "{what}: no descriptor is left, clients are turned away ({reason}; raise "
                "LimitNOFILE or ulimit -n)",
                what=self._what,
                reason=event.get("acceptError", "EMFILE"),
            )


def quiet_about_shortage(what: str, port: Any, seconds: Callable[[], float]) -> None:
    """Keep a listening port of Twisted's from flooding the log when descriptors run short.

    @param what: the section, for the line.
    @param port: what listens; anything but a bare TCP or Unix port is left alone.
    @param seconds: tells the time.
    """
    if isinstance(port, Port):
        # The logger of the class is shared by all ports, and there is no public way to it.
        before = port._logger
        port._logger = Logger(
            before.namespace, observer=_ShortageLog(what, seconds, before.observer)
        )
