"""Waiting for a condition within a bound, and free ports."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable
from typing import TypeVar

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

__all__ = ["NotInTime", "accepts_connections", "free_port", "greets", "pause", "until"]

_T = TypeVar("_T")
_given: set[int] = set()


class NotInTime(AssertionError):
    """A condition did not come true within its bound."""


def pause(seconds: float = 0.02) -> Deferred[None]:
    """Let the reactor run for a moment; only L{until} and tests of silence have a use for it."""
    return deferLater(global_reactor, seconds, lambda: None)


async def until(
    condition: Callable[[], _T | None],
    what: str | Callable[[], str],
    seconds: float = 20.0,
) -> _T:
    """Wait until a condition gives something true, looking fifty times a second.

    @param condition: called again and again; its result is true when the wait is over.
    @param what: what is waited for, in words; may be made when it is needed.
    @param seconds: the bound.
    @return: what the condition gave.
    @raise NotInTime: the bound is reached.
    """
    clock = global_reactor.seconds
    end = clock() + seconds
    while True:
        found = condition()
        if found:
            return found
        if clock() > end:
            text = what if isinstance(what, str) else what()
            raise NotInTime(f"not within {seconds:g} s: {text}")
        await pause()


# Below those that the kernel gives to connections that are made: one of these could be taken by
# anybody's connection between the look at it and the moment when a program listens there.
_PORTS = range(10000, 32768)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at any of loopback's addresses; never the same one twice.

    @param host: an address of the family that is meant.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = random.choice(_PORTS)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("::" if ":" in host else "0.0.0.0", port))
            except OSError as failure:
                if failure.errno != errno.EADDRINUSE:
                    raise
                continue
        if port not in _given:
            _given.add(port)
            return port


def greets(host: str, port: int) -> bool:
    """Whether an SMTP server is there and ready: whether it says 220 (and not 421)."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.settimeout(5)
            ready = connection.recv(3) == b"220"
            connection.sendall(b"QUIT\r\n")
    except OSError:
        return False
    return ready


def accepts_connections(host: str, port: int) -> bool:
    """Whether somebody listens there, found out by connecting."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
