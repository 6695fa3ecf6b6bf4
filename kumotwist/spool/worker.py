"""A thread that does one thing after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

__all__ = ["Worker", "WorkerThread"]

_T = TypeVar("_T")


class Worker(Protocol):
    """Does blocking jobs elsewhere, one at a time and in order."""

    def submit(self, job: Callable[[], _T]) -> Deferred[_T]:
        """Have a job done; fires in the reactor's thread with what it returned or raised."""

    def stop(self) -> None:
        """Take no more jobs; those that were submitted get done."""


class WorkerThread:
    """A L{Worker} with a thread of its own.

    Leaner than a thread pool of one: no log context and no lock is taken for a job. The thread is a
    daemon, because a process must be able to end at any moment; what it writes stands that.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, job: Callable[[], _T]) -> Deferred[_T]:
        """Have a job done by the thread."""
        done: Deferred[_T] = Deferred()
        self._jobs.put((job, done))
        return done

    def stop(self) -> None:
        """End the thread after what was submitted."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job()
            except BaseException:
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)
            # Bodies must not stay in memory until the next job comes.
            item = job = done = result = None  # type: ignore[assignment]
