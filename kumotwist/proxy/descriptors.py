"""Descriptors: how many the process may have (two for each session, four with splicing), and what
becomes of clients when there is none left."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from twisted.logger import Logger

from kumotwist.proxy.counters import ProxyCounters

__all__ = ["SpareDescriptor", "raise_descriptor_limit"]

#: Seconds between two lines about the same shortage.
_EVERY = 60.0

_log = Logger()


def raise_descriptor_limit() -> int | None:
    """Raise the soft limit of open descriptors to the hard one.

    To be called once by the program, before it listens; it needs no privileges.

    @return: the limit that holds now, or L{None} where the platform has none.
    """
    try:
        import resource
    except ImportError:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports a hard limit that it does not accept
        return soft
    return hard


class SpareDescriptor:
    """A descriptor in reserve, to accept a client with and close it when no other is left.

    Without that the client would wait and the listener would be ready for ever. However many
    clients are turned away, the log has at most a line a minute of it.

    @param name: the proxy's, for the log.
    @param seconds: tells the time.
    @param counters: counts who is turned away.
    """

    def __init__(self, name: str, seconds: Callable[[], float], counters: ProxyCounters) -> None:
        self._name = name
        self._seconds = seconds
        self._counters = counters
        self._descriptor = -1
        self._next_line = float("-inf")
        self._untold = 0
        self._reserve()

    def turn_away(self, listener: socket.socket, error: OSError) -> None:
        """Close the next client of a listener whose C{accept} failed for a shortage."""
        self.close()
        try:
            client, _ = listener.accept()
        except OSError:
            pass  # it has left, or another thread was quicker; the listener tells if not
        else:
            client.close()
            self._counters.turned_away += 1
            self._untold += 1
        self._reserve()
        if self._seconds() >= self._next_line:
            self._next_line = self._seconds() + _EVERY
            untold, self._untold = self._untold, 0
            _log.error(
                "[proxy:{proxy}] turns clients away, {untold} since the last line: {reason} "
                "(raise LimitNOFILE or ulimit -n, or lower max_connections)",
                proxy=self._name,
                untold=untold,
                reason=error.strerror,
            )

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _reserve(self) -> None:
        try:
            self._descriptor = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._descriptor = -1  # the next shortage tries again
