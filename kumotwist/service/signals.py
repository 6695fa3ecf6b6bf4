"""What signals mean to a node: stop, stop sooner, read the configuration again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

__all__ = ["obey_signals"]

_log = Logger()


def obey_signals(reactor: Any, *, hurry: Callable[[], None], reload: Callable[[], None]) -> None:
    """Take SIGTERM and SIGINT over from the reactor, as soon as it runs.

    The first one stops the reactor, and with it, in good order, every service. The reactor's own
    answer to a second one is a traceback.

    @param hurry: called for every further one while the reactor stops.
    @param reload: called for SIGHUP.
    """

    def stop(name: str) -> None:
        _log.info("received {name}", name=name)
        try:
            reactor.stop()
        except ReactorNotRunning:
            hurry()

    def read_again(name: str) -> None:
        _log.info("received {name}: reading the configuration again", name=name)
        reload()

    answers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: read_again}

    def received(number: int, _: Any) -> None:
        # A signal comes between any two instructions: only the reactor's loop may act on it.
        reactor.callFromThread(answers[signal.Signals(number)], signal.Signals(number).name)

    def install() -> None:
        for number in answers:
            signal.signal(number, received)

    # Until then it would end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reactor.callWhenRunning(install)
