"""A node of several processes: who starts them, and what they have in common.

The supervisor binds the listeners' sockets and delivers no mail. Each worker inherits the sockets,
accepts connections from them, and has a spool and queues of its own. What holds for the whole node
is here: the limits, the pages of C{[http]}, the proxies and the sinks, the log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from kumotwist.config import Configuration
from kumotwist.egress import Source
from kumotwist.egress.health import Hold
from kumotwist.limits import Lender, LimitTable
from kumotwist.queue.orders import Orders
from kumotwist.service.announce import announcement, kumo_command
from kumotwist.service.listening import ListeningService, address_words
from kumotwist.service.live import read_again, restart_needed
from kumotwist.service.node import STOP_PATIENCE
from kumotwist.service.orders import WorkerOrders
from kumotwist.service.pages import NodePages
from kumotwist.service.shared_steering import SharedSteering
from kumotwist.service.standalone import proxy_services, sink_service, tls_context
from kumotwist.service.state import (
    all_spools,
    lack_of_room,
    node_id,
    orders_path,
    prepare_state_dir,
    probe_spool,
    remove_empty_dirs,
    spool_path,
)
from kumotwist.service.takeover import end_cut_short
from kumotwist.service.workers import FIRST_SOCKET, WorkerProcess, worker_command

__all__ = ["Supervisor"]

#: Seconds that a worker has for closing its spool, after what was under way has been cut off.
_LAST_PATIENCE = 30.0
#: Seconds until a worker that ended is started again: at first, and at most where it ends again
#: and again within that time.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
#: How often a worker may be killed before it has taken mail for the first time.
_FIRST_KILLS = 3
#: Characters of a configuration that go into one line of a channel.
_PIECE = 100_000


@attrs.define
class _Place:
    """One of the numbers from 1 to C{workers}, and the worker that has it now.

    @ivar reason: why it takes no mail; empty if it does.
    @ivar waiting: messages that were in its spool; L{None} until they have been counted.
    @ivar counted: whether the worker that has the place now has counted them.
    @ivar kills: how many of its workers have been killed.
    @ivar pause: seconds until it gets the next worker, if this one ends soon.
    """

    number: int
    process: WorkerProcess | None = None
    lender: Lender | None = None
    reason: str = "the worker is starting"
    waiting: int | None = None
    counted: bool = False
    kills: int = 0
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    restart: Any = None


class Supervisor(MultiService):
    """A node whose work is done by several processes.

    @param reactor: the reactor.
    @param configuration: what to build.
    """

    _log = Logger()

    def __init__(self, reactor: Any, configuration: Configuration) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._first = self._configuration = configuration
        self._state_dir = prepare_state_dir(configuration.node.state_dir)
        node_id(self._state_dir)
        self._limits = LimitTable(reactor.seconds)
        self._places = [_Place(number + 1) for number in range(configuration.node.workers)]
        self._sockets: list[tuple[str, ListeningService]] = []
        self._listening: list[tuple[str, ListeningService]] = []
        self._holds: dict[str, tuple[float, Hold]] = {}
        self._hurried = False
        self._announced = False
        # Who has not said yet that it goes by the configuration that was read again.
        self._reloading: set[int] = set()
        self._orders = Orders(reactor, orders_path(self._state_dir))
        self._steering = SharedSteering(reactor, self._tell_all, self._orders, self._absent)
        self._pages = NodePages(reactor, self._tell_all, self._why_not_live, self._steering)
        self._build()

    def _build(self) -> None:
        configuration, hostname = self._configuration, self._configuration.node.hostname
        for name, settings in configuration.listeners.items():
            # If a certificate has to be made, it is made once.
            tls_context(settings, hostname, self._state_dir)
            self._sockets.append(self._listen(f"[listener:{name}]", settings.listen, _nobody()))
        self._proxies = proxy_services(
            self._reactor, configuration.proxies, configuration.proxy_rules, self._listening
        )
        self._proxies.setServiceParent(self)
        for name, sink in configuration.sinks.items():
            service = sink_service(self._reactor, f"[sink:{name}]", sink, hostname, self._state_dir)
            service.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._listening.append((f"[sink:{name}]", service))
        if configuration.http is not None:
            site = self._pages.site(configuration.http, self._proxies, bool(configuration.proxies))
            self._listen("[http]", configuration.http.listen, site)

    def _listen(self, what: str, endpoint: str, factory: Any) -> tuple[str, ListeningService]:
        service = ListeningService(self._reactor, f"{what} listen", endpoint, factory)
        service.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._listening.append((what, service))
        return what, service

    def probe_spool(self) -> None:
        """See whether the spools can be had, as L{Node.probe_spool} does.

        @raise StartError: if one belongs to another process or cannot be used.
        """
        for place in self._places:
            probe_spool(spool_path(self._first.spool.path, self._state_dir, place.number))

    # -- workers ----------------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen, then start the workers.

        @raise StartError: if an address is taken, or a spool that has to be looked at.
        """
        end_cut_short(all_spools(spool_path(self._first.spool.path, self._state_dir, 1)))
        remove_empty_dirs(self._state_dir, len(self._places))
        self._orders.load()
        super().startService()  # type: ignore[no-untyped-call]
        self._descriptors = [service.hand_over() for _, service in self._sockets]
        for place in self._places:
            self._start(place)

    def _start(self, place: _Place) -> None:
        place.restart = None
        names = [what for what, _ in self._sockets]
        orders = WorkerOrders(
            place.number,
            len(self._places),
            {what: FIRST_SOCKET + index for index, what in enumerate(names)},
        )
        process = WorkerProcess(
            place.number,
            lambda subject, rest: self._received(place, subject, rest),
            lambda words, killed: self._ended(place, words, killed),
        )
        place.process, place.started = process, self._reactor.seconds()
        place.lender = Lender(self._limits, lambda message: process.channel.send("limits", message))
        command = worker_command(self._reactor, self._first.files[0], orders)
        # Whatever the files say by now, it goes by what the others go by.
        process.spawn(self._reactor, command, self._descriptors, self._first.texts)
        if self._configuration is not self._first:
            for message in self._reloading_messages():
                process.channel.send(*message)
        process.channel.send("watched", self._pages.watched)
        self._tell_holds(process)
        for order in self._orders.fields():
            process.channel.send("order", {**order, "persist": False})
        process.channel.send("begin")
        self._log.info("worker {n} is process {pid}", n=place.number, pid=process.transport.pid)

    def _received(self, place: _Place, subject: str, rest: list[Any]) -> None:
        match subject:
            case "limits":
                assert place.lender is not None
                place.lender.received(rest[0])
            case "state":
                place.reason = rest[0]
                if rest[1] is not None:
                    place.waiting, place.counted = rest[1], True
                    self._announce()
            case "source":
                self._source_news(place, *rest)
            case "trace":
                self._pages.happened(rest)
            case "numbers":
                self._pages.numbers_came(place.number, *rest)
            case "steered":
                self._steering.answered(place.number, *rest)
            case "reloaded":
                self._reloaded(place)

    def _source_news(self, teller: _Place, source: str, hold: list[Any] | None) -> None:
        """A worker has found out that a source is held, or works: the others need not."""
        if hold is None:
            self._holds.pop(source, None)
        else:
            self._holds[source] = (self._reactor.seconds(), Hold(*hold))
        for place in self._places:
            if place is not teller and place.process is not None:
                place.process.channel.send("source", source, hold)

    def _tell_holds(self, process: WorkerProcess) -> None:
        """Tell a new worker of the sources that are held."""
        now = self._reactor.seconds()
        for source, (since, hold) in self._holds.items():
            held, soon = hold.held - (now - since), hold.next_try - (now - since)
            if held > 0:
                process.channel.send("source", source, hold._replace(held=held, next_try=soon))

    def _reloading_messages(self) -> Iterator[tuple[str, ...]]:
        """What has a worker go by the configuration that was read last."""
        for path, text in self._configuration.texts.items():
            for start in range(0, len(text) or 1, _PIECE):
                yield "text", path, text[start : start + _PIECE]
        yield ("reload",)

    def _ended(self, place: _Place, words: str, killed: bool) -> None:
        """A worker is gone. What it held is free; its spool waits for it."""
        if place.lender is not None:
            place.lender.close()
        place.process = place.lender = None
        place.counted = False
        place.reason = "the worker is starting"
        self._pages.worker_ended(place.number)
        self._steering.worker_ended(place.number)
        if not self.running:
            return
        # It is told when it is started again.
        self._reloaded(place)
        place.kills += killed
        beginning = place.waiting is None and not self._announced
        if beginning and (not killed or place.kills > _FIRST_KILLS):
            self._log.critical("worker {n} cannot start: {words}", n=place.number, words=words)
            # twistd has no way to be told an exit status once the reactor runs.
            self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
            self._reactor.stop()
            return
        lived = self._reactor.seconds() - place.started
        pause = _FIRST_PAUSE if lived > _LONGEST_PAUSE else place.pause
        place.pause = min(pause * 2, _LONGEST_PAUSE)
        self._log.error(
            "worker {n} ended unasked ({words}); it is started again in {pause:.0f} s",
            n=place.number, words=words, pause=pause,
        )  # fmt: skip
        place.restart = self._reactor.callLater(pause, self._start, place)

    def _tell_all(self, subject: str, *rest: Any) -> list[int]:
        """Say something to every worker.

        @return: the numbers of those who heard it.
        """
        heard = []
        for place in self._places:
            if place.process is not None:
                place.process.channel.send(subject, *rest)
                heard.append(place.number)
        return heard

    def _absent(self) -> list[int]:
        """The workers that do not know what is in their queues."""
        return [place.number for place in self._places if not place.counted]

    def _why_not_live(self) -> str:
        """Why no mail is taken at the moment; empty if any worker takes some."""
        if not self.running:
            return "the node is shutting down"
        reasons = [place.reason for place in self._places]
        if "" not in reasons:
            return reasons[0]
        # The workers' spools are beside each other.
        spool = self._first.spool
        return lack_of_room(spool_path(spool.path, self._state_dir, 1), spool.min_free_space)

    def _announce(self) -> None:
        counts = [place.waiting for place in self._places]
        if self._announced or None in counts:
            return
        self._announced = True
        configuration = self._configuration
        sources = {name: Source.of(one) for name, one in configuration.sources.items()}
        waiting = sum(count or 0 for count in counts)
        command = kumo_command(sys.argv[0])
        self._log.info("{n} workers take mail", n=len(self._places))
        for line in announcement(configuration, sources, self._where(), waiting, command):
            self._log.info("{line}", line=line)

    def _where(self) -> Iterator[tuple[str, str]]:
        for what, service in self._listening:
            yield what, service.address
        for proxy in self._proxies:
            for address in proxy.listening:
                yield f"[proxy:{proxy.name}] (KumoProxy)", address_words(address)

    # -- what the operator says -------------------------------------------------------------------

    def reload(self) -> None:
        """Read the configuration again and have everybody go by it; see L{Node.reload}."""
        new = read_again(self._first)
        if new is None or not self.running:
            return
        self._configuration = new
        for proxy in self._proxies:
            proxy.go_by(new.proxy_rules.items())
        for message in self._reloading_messages():
            self._reloading = set(self._tell_all(*message))

    def _reloaded(self, place: _Place) -> None:
        if place.number not in self._reloading:
            return
        self._reloading.discard(place.number)
        if self._reloading:
            return
        self._log.info("the configuration was read again and holds now")
        waiting = list(restart_needed(self._first, self._configuration))
        if waiting:
            self._log.warn("not before a restart: {keys}", keys=", ".join(waiting))

    def hurry(self) -> None:
        """The node stops, or is about to, and shall not wait for transactions any longer."""
        if not self._hurried:
            self._hurried = True
            self._cut()

    def _cut(self) -> None:
        self._tell_all("hurry")
        for proxy in self._proxies:
            proxy.cut()

    def stopService(self) -> Deferred[None]:
        """Let the workers stop in good order, then the rest."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.running = 0
        for place in self._places:
            if place.restart is not None:
                place.restart.cancel()
        running = [place.process for place in self._places if place.process is not None]
        self._tell_all("stop")
        killing = [
            self._reactor.callLater(STOP_PATIENCE + _LAST_PATIENCE, process.kill)
            for process in running
        ]
        if self._hurried:
            self._cut()
        await DeferredList([process.done for process in running])
        for call in killing:
            if call.active():
                call.cancel()
        # The pages of [http] tell that the proxies drain until they have drained.
        stopping = maybeDeferred(self._proxies.disownServiceParent)
        if self._hurried:
            self._cut()
        await stopping
        await maybeDeferred(super().stopService)


def _nobody() -> Factory:
    """Holds the place of a factory: no connection is accepted here."""
    factory = Factory()
    factory.noisy = False
    return factory
