"""The pages of a node of several processes: its trace and its numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from kumotwist.http import http_site
from kumotwist.http.settings import HTTPSettings
from kumotwist.interfaces import ISteering
from kumotwist.journal import Trace, TraceEvent
from kumotwist.proxy.metrics import render_metrics
from kumotwist.proxy.web import proxy_pages
from kumotwist.service.summing import add_up, only_counters

__all__ = ["NodePages"]

#: Seconds that a worker has to say its numbers.
_PATIENCE = 5.0


class _WatchedTrace(Trace):
    """A trace that says when somebody begins to watch, and when nobody does any more."""

    def __init__(self, reactor: Any, changed: Callable[[bool], None]) -> None:
        super().__init__(reactor)
        self._changed = changed

    def subscribe(self, watcher: Callable[[TraceEvent], object]) -> Callable[[], None]:
        """Watch from now on; see L{Trace}."""
        end = super().subscribe(watcher)
        self._changed(True)
        return end

    def _unsubscribe(self, call: Callable[[TraceEvent], object]) -> None:
        super()._unsubscribe(call)
        if not self.watched:
            self._changed(False)


@define
class _Question:
    """A question to all workers for their numbers.

    @ivar missing: who has not answered.
    @ivar answer: fires when all have, or the time is over.
    """

    missing: set[int]
    answer: Deferred[None]
    timer: Any = None
    number: int = field(default=0)


class _MetricsPage(Resource):
    """C{/metrics} of several processes."""

    isLeaf = True
    _log = Logger()

    def __init__(self, render: Callable[[], Deferred[str]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._render = render

    def render_GET(self, request: Request) -> int:
        """Ask everybody, then write."""
        gone: list[Any] = []
        request.notifyFinish().addErrback(gone.append)

        def write(text: str) -> None:
            if not gone:
                request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
                request.write(text.encode())
                request.finish()

        self._render().addCallback(write).addErrback(
            lambda failure: self._log.failure("the numbers cannot be written", failure)
        )
        return NOT_DONE_YET


class NodePages:
    """What C{[http]} shows of a node of several processes.

    @param tell_all: says something to every worker and returns who heard it.
    @param why_not_live: says why no mail is taken; empty while it is.
    @param steering: the queues of all workers.
    """

    def __init__(
        self,
        reactor: Any,
        tell_all: Callable[..., list[int]],
        why_not_live: Callable[[], str],
        steering: ISteering,
    ) -> None:
        self._reactor = reactor
        self._tell_all = tell_all
        self._why_not_live = why_not_live
        self._steering = steering
        self._trace = _WatchedTrace(reactor, self._watched)
        self._questions: dict[int, _Question] = {}
        self._asked = 0
        self._latest: dict[int, str] = {}
        # What workers had counted that are gone.
        self._past = ""

    def _watched(self, anybody: bool) -> None:
        self._tell_all("watched", anybody)

    @property
    def watched(self) -> bool:
        """Whether anybody watches the trace."""
        return self._trace.watched

    def site(self, settings: HTTPSettings, proxies: Any, has_proxies: bool) -> Site:
        """Build the site.

        @param proxies: the services of C{[proxy:NAME]}.
        """

        def render() -> Deferred[str]:
            ours = render_metrics(proxies) if has_proxies else ""
            return self.numbers().addCallback(lambda text: text + ours)

        pages = {**(proxy_pages(proxies) if has_proxies else {}), b"metrics": _MetricsPage(render)}
        return http_site(
            self._reactor,
            settings.trusted_hosts,
            self._trace,
            self._why_not_live,
            pages,
            self._steering,
            settings.token,
        )

    def happened(self, event: list[Any]) -> None:
        """A worker has noted something for the trace."""
        time, name, message_ids, facts = event
        self._trace.relay(TraceEvent(time, name, tuple(message_ids), facts))

    # -- numbers ----------------------------------------------------------------------------------

    def numbers(self) -> Deferred[str]:
        """Ask every worker for its numbers and add them up. One that does not answer counts with
        what it said last."""
        self._asked += 1
        number = self._asked
        question = _Question(set(self._tell_all("numbers", number)), Deferred())
        self._questions[number] = question
        question.timer = self._reactor.callLater(_PATIENCE, self._answer, number)
        if not question.missing:
            self._answer(number)
        return question.answer.addCallback(lambda _: add_up([*self._latest.values(), self._past]))

    def numbers_came(self, worker: int, number: int, text: str) -> None:
        """A worker has answered."""
        self._latest[worker] = text
        question = self._questions.get(number)
        if question is not None:
            question.missing.discard(worker)
            if not question.missing:
                self._answer(number)

    def worker_ended(self, worker: int) -> None:
        """A worker is gone: what it had counted stays counted, and nobody waits for it."""
        latest = self._latest.pop(worker, None)
        if latest is not None:
            self._past = add_up([self._past, only_counters(latest)])
        for number, question in list(self._questions.items()):
            question.missing.discard(worker)
            if not question.missing:
                self._answer(number)

    def _answer(self, number: int) -> None:
        question = self._questions.pop(number)
        if question.timer.active():
            question.timer.cancel()
        question.answer.callback(None)
