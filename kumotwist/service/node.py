"""A node: everything that a configuration asks for, built and wired."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.web.resource import IResource

from kumotwist.config import Configuration
from kumotwist.egress import SourceHealth
from kumotwist.egress.health import Hold
from kumotwist.http import http_site
from kumotwist.http.exposition import MetricsPage
from kumotwist.journal import JournalWriter, Trace
from kumotwist.limits import LimitTable
from kumotwist.message.queued import QueuedMessage
from kumotwist.proxy.metrics import render_metrics
from kumotwist.proxy.web import proxy_pages
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.context import SessionContext
from kumotwist.queue.fate import Fates
from kumotwist.queue.naming import Naming
from kumotwist.queue.orders import Orders
from kumotwist.queue.plan import Planner
from kumotwist.queue.reception import Reception
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.scheduler import Scheduler
from kumotwist.queue.securing import TLSPolicies
from kumotwist.queue.steering import Steering
from kumotwist.service.announce import announcement, kumo_command
from kumotwist.service.listening import ListeningService, address_words
from kumotwist.service.live import LiveSettings, read_again, restart_needed
from kumotwist.service.metrics import NodeMetrics
from kumotwist.service.ourselves import OwnAddresses
from kumotwist.service.policies import PolicyService
from kumotwist.service.sharing import SharedPort, Sharing
from kumotwist.service.standalone import proxy_services, sink_service, tls_context
from kumotwist.service.state import (
    all_spools,
    lack_of_room,
    left_over_spools,
    node_id,
    orders_path,
    prepare_state_dir,
    probe_spool,
    remove_empty_dirs,
    spool_path,
    worker_dir,
)
from kumotwist.service.takeover import Takeover, end_cut_short
from kumotwist.service.tls_reports import TLSReportService
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.spool import SpoolError, SQLiteSpool
from kumotwist.spool.gathering import LINGER
from kumotwist.tls.broken import BrokenTLS
from kumotwist.wire.smtp.replies import Reply

__all__ = ["Node"]

#: Seconds that transactions under way get to finish when the node stops.
STOP_PATIENCE = 30.0

_STARTING = Reply.of(421, "4.3.2", "the node is starting; try again soon")
_STOPPING = Reply.of(421, "4.3.2", "the node is shutting down")


class Node(MultiService):
    """One node of kumotwist.

    @param reactor: the reactor.
    @param configuration: what to build.
    @param sharing: what it has in common with the node's other processes; a process without is the
        whole node.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, configuration: Configuration, sharing: Sharing | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._configuration = configuration
        self._state_dir = prepare_state_dir(configuration.node.state_dir)
        self._alone = sharing is None
        self._sharing = sharing or Sharing(1, 1, LimitTable(reactor.seconds), Trace(reactor))
        first = spool_path(configuration.spool.path, self._state_dir, 1)
        share = (self._sharing.worker, self._sharing.workers)
        left_over = left_over_spools(first, *share)
        self._own_dir = worker_dir(self._state_dir, share[0])
        self._spool_path = spool_path(configuration.spool.path, self._state_dir, share[0])
        self._spool = self._make_spool(self._spool_path)
        # Of several processes each has what no other one opens; the supervisor saw all of them.
        self._spools = all_spools(first) if self._alone else [self._spool_path, *left_over]
        self._journal = JournalWriter(
            reactor,
            configuration.log,
            configuration.log.path or os.path.join(self._state_dir, "log"),
        )
        self._trace = self._sharing.trace
        phase = random.random() if share[1] > 1 else 0.0
        self._live = LiveSettings(reactor, configuration, phase)
        self._health = SourceHealth(reactor.seconds, self._sharing.tell_source)
        self._listening: list[tuple[str, ListeningService]] = []
        self._shared_ports: list[SharedPort] = []
        self._factories: list[ESMTPListenerFactory] = []
        self._opening: Deferred[None] | None = None
        self._spool_is_open = False
        self._had: int | None = None
        self._hurried = False
        self._build_queues()
        self._takeover = Takeover(
            reactor,
            left_over,
            partial(self._make_spool, leave_nothing=True),
            self._spool,
            self._scheduler.insert_all,
        )
        self._build_listeners()

    # -- building ---------------------------------------------------------------------------------

    def _build_queues(self) -> None:
        configuration, reactor, live = self._configuration, self._reactor, self._live
        self._policies = PolicyService(reactor, live, self._health, self._own_dir)
        self._policies.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._tls_reports = self._make_tls_reports()
        bodies = Bodies(self._spool)
        self._recorder = recorder = Recorder(
            reactor, self._journal, self._trace, node_id(self._state_dir)
        )
        self._scheduler = Scheduler(
            reactor,
            Planner(live.resolver, live.paths, _own_names(configuration), self._policies.find),
            live.queues,
            live.paths,
            live.sources,
            live.rotations,
            random.random,
            # Of several processes the supervisor keeps the orders.
            Orders(reactor, orders_path(self._state_dir) if self._alone else None),
        )
        fates = Fates(
            reactor,
            random.random,
            self._spool,
            bodies,
            recorder,
            live.queues,
            configuration.node.hostname,
            self._scheduler.insert,
        )
        self._context = SessionContext(
            reactor=reactor,
            resolver=live.resolver,
            health=self._health,
            fates=fates,
            bodies=bodies,
            trace=self._trace,
            limits=self._sharing.limits,
            tls=TLSPolicies(live.resolver, BrokenTLS(reactor.seconds)),
            hostname=configuration.node.hostname,
            is_ours=OwnAddresses(self._listener_addresses),
            count_tls=None if self._tls_reports is None else self._tls_reports.count,
        )
        self._scheduler.use(self._context)
        naming = Naming(configuration.node, live.queues)
        self.steering = Steering(reactor, self._scheduler, fates, bodies, naming)
        self._reception = self._make_reception(naming, bodies)
        self._reception.closed = _STARTING
        self._spool.set_writable_observer(self._writable_changed)

    def _make_reception(self, naming: Naming, bodies: Bodies) -> Reception:
        configuration = self._configuration
        return Reception(
            self._reactor,
            self._spool,
            bodies,
            self._recorder,
            self._scheduler.insert_all,
            naming=naming,
            postmaster=configuration.node.postmaster,
            untraced=(
                name
                for name, listener in configuration.listeners.items()
                if not listener.trace_headers
            ),
        )

    def _make_tls_reports(self) -> TLSReportService | None:
        configuration, live = self._configuration, self._live
        if configuration.tls_reports is None:
            return None
        return TLSReportService(
            self._reactor,
            configuration.tls_reports,
            os.path.join(self._own_dir, "tls-reports"),
            configuration.node.hostname,
            live.resolver,
            lambda domain: self._policies.endpoint_for(
                domain, live.queues.resolve(domain).egress_pool
            ),
            lambda message, body: Deferred.fromCoroutine(self._send_own(message, body)),
            random.random,
            [
                os.path.join(directory, "tls-reports")
                for directory in left_over_spools(
                    os.path.join(self._state_dir, "worker"),
                    self._sharing.worker,
                    self._sharing.workers,
                )
            ],
        )

    async def _send_own(self, message: QueuedMessage, body: bytes) -> None:
        """Queue a message of this node's own."""
        await self._spool.store(body, [message])
        message.body = body
        self._context.bodies.keep(message)
        self._recorder.reception(message, Reply.of(250, None, "a TLS report"))
        self._scheduler.insert(message)

    def _build_listeners(self) -> None:
        configuration = self._configuration
        hostname = configuration.node.hostname
        for name, settings in configuration.listeners.items():
            factory = ESMTPListenerFactory(
                self._reactor,
                settings,
                self._reception,
                tls_context_factory=tls_context(settings, hostname, self._state_dir),
                node_hostname=hostname,
            )
            self._factories.append(factory)
            self._listen(f"[listener:{name}]", settings.listen, factory)
        # Of several processes the supervisor has the proxies, the sinks and the pages.
        proxies = configuration.proxies if self._alone else {}
        self._proxies = proxy_services(
            self._reactor, proxies, configuration.proxy_rules, self._listening
        )
        self._proxies.setServiceParent(self)
        if not self._alone:
            return
        for name, sink in configuration.sinks.items():
            service = sink_service(self._reactor, f"[sink:{name}]", sink, hostname, self._state_dir)
            service.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._listening.append((f"[sink:{name}]", service))
        if configuration.http is not None:
            room = configuration.spool.min_free_space
            site = http_site(
                self._reactor,
                configuration.http.trusted_hosts,
                cast("Trace", self._trace),
                lambda: self._why_not_live() or lack_of_room(self._spool_path, room),
                self._pages(),
                self.steering,
                configuration.http.token,
            )
            self._listen("[http]", configuration.http.listen, site)

    def numbers(self) -> NodeMetrics:
        """What this process counts."""
        return NodeMetrics(
            self._scheduler,
            self._live.sources,
            self._context.health,
            self._context.counters,
            self._recorder.counters,
            {factory.settings.name: factory for factory in self._factories},
        )

    def _pages(self) -> dict[bytes, IResource]:
        """What C{[http]} has besides the API: numbers, and the health of proxies."""
        numbers = self.numbers()
        if not self._configuration.proxies:
            return {b"metrics": MetricsPage(numbers.render)}

        def render() -> str:
            return numbers.render() + render_metrics(self._proxies)

        return {**proxy_pages(self._proxies), b"metrics": MetricsPage(render)}

    def _make_spool(self, path: str, *, leave_nothing: bool = False) -> SQLiteSpool:
        settings = attrs.evolve(self._configuration.spool, path=path)
        # Removals from one that is to be left wait for nothing: the messages wait for them.
        linger = 0.0 if leave_nothing else LINGER
        return SQLiteSpool(self._reactor, settings, linger=linger, leave_nothing=leave_nothing)

    def _listen(self, what: str, endpoint: str, factory: Any) -> None:
        if not self._alone:
            descriptor = self._sharing.sockets.get(what)
            if descriptor is not None:  # else it is new in the file, and has to wait for a restart
                self._shared_ports.append(SharedPort(self._reactor, descriptor, factory))
            return
        service = ListeningService(self._reactor, f"{what} listen", endpoint, factory)
        service.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._listening.append((what, service))

    # -- running ----------------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen, then open the spool; until that is done clients get a 421.

        @raise StartError: if an address is taken or the spool belongs to another process.
        """
        self.probe_spool()
        end_cut_short(self._spools)
        if self._alone:
            remove_empty_dirs(self._state_dir, workers=1)
        # Before anybody can give an order, which is saved with those that there are.
        self._scheduler.orders.load()
        super().startService()  # type: ignore[no-untyped-call]
        self._opening = Deferred.fromCoroutine(self._open_spool())
        self._opening.addErrback(self._cannot_run)

    def probe_spool(self) -> None:
        """See whether the spool can be had, so that a node that cannot run says so at once.

        @raise StartError: if it belongs to another process or cannot be used.
        """
        probe_spool(self._spool_path)

    async def _open_spool(self) -> None:
        await self._spool.open()
        self._spool_is_open = True
        await self._sharing.informed
        if self._reception.closed is _STOPPING:
            return  # stopped before it had begun: _stop closes the spool
        self._reception.closed = None
        if self._tls_reports is not None:
            self._tls_reports.setServiceParent(self)  # type: ignore[no-untyped-call]
        for port in self._shared_ports:
            # Not before: until then clients are for the workers that are ready.
            port.setServiceParent(self)  # type: ignore[no-untyped-call]
        self.tell_state()
        self._had = waiting = await self._spool.enumerate(self._scheduler.insert_all)
        self._takeover.begin()
        self.tell_state()
        if not self._alone:
            return
        command = kumo_command(sys.argv[0])
        for line in announcement(
            self._live.configuration, self._live.sources, self._places(), waiting, command
        ):
            self._log.info("{line}", line=line)

    def heard_of_source(self, source: str, hold: Hold | None) -> None:
        """Another process of the node has found out that a source is held, or works."""
        if source in self._live.sources:
            self._scheduler.heard(source, hold)

    def tell_state(self) -> None:
        """Say whether mail is taken, and how many messages the spool had, if that is known."""
        self._sharing.tell(self._why_not_live(), self._had)

    def _listener_addresses(self) -> Iterator[tuple[str, int]]:
        """Where this node takes mail over TCP."""
        own = (service for what, service in self._listening if what.startswith("[listener:"))
        addresses = (
            *(service.socket_address for service in own),
            *(service.socket_address for service in self._shared_ports),
        )
        yield from (address for address in addresses if address is not None)

    def _places(self) -> Iterator[tuple[str, str]]:
        for what, service in self._listening:
            yield what, service.address
        for proxy in self._proxies:
            for address in proxy.listening:
                yield f"[proxy:{proxy.name}] (KumoProxy)", address_words(address)

    def _cannot_run(self, failure: Any) -> None:
        self._log.critical("cannot start: {reason}", reason=failure.getErrorMessage())
        if not failure.check(SpoolError):
            self._log.failure("the reason in full", failure)
        # twistd has no way to be told an exit status once the reactor runs.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    def _writable_changed(self, writable: bool) -> None:
        if writable:
            self._scheduler.resume()
        else:
            self._scheduler.pause()
        self.tell_state()

    def _why_not_live(self) -> str:
        """Why no mail is taken at the moment; empty if it is."""
        if self._reception.closed is not None:
            return self._reception.closed.content
        return "" if self._spool.writable else "the spool cannot be written"

    def stopService(self) -> Deferred[None]:
        """Take no more mail, finish the transactions under way, then close the spool."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._reception.closed = _STOPPING
        self.steering.stop()
        patience = 0.0 if self._hurried else STOP_PATIENCE
        self._log.info(
            "stopping; transactions under way are finished first, for at most {patience:.0f} s",
            patience=patience,
        )
        draining = [factory.stop_accepting(patience) for factory in self._factories]
        draining.append(self._scheduler.stop(patience))
        await DeferredList(draining, consumeErrors=True)
        # The pages of [http] tell that the proxies drain until they have drained.
        stopping = maybeDeferred(self._proxies.disownServiceParent)
        if self._hurried:
            self._cut()
        await stopping
        await maybeDeferred(super().stopService)
        if self._opening is not None:
            await self._opening
        await self._takeover.stop()
        if self._spool_is_open:
            await self._spool.close()
        self._journal.close()

    def reload(self, texts: Mapping[str, str] | None = None) -> None:
        """Read the configuration again and go by it, whole or not at all.

        No connection ends for it, and no message: what is under way goes on as it began.

        @param texts: what the supervisor has read; L{None} to read the files.
        """
        before = self._live.configuration
        new = read_again(self._configuration, texts=texts)
        if new is None or self._reception.closed is _STOPPING:
            return
        change = self._live.adopt(new)
        for name in self._live.other_ways(before):
            self._health.forget(name)
        for factory in self._factories:
            settings = new.listeners.get(factory.settings.name)
            if settings is not None:
                factory.go_by(settings)
        for proxy in self._proxies:
            proxy.go_by(new.proxy_rules.items())
        self._scheduler.reconfigure(change)
        if not self._alone:
            return  # the supervisor says it
        self._log.info("the configuration was read again and holds now")
        waiting = list(restart_needed(self._configuration, new))
        if waiting:
            self._log.warn("not before a restart: {keys}", keys=", ".join(waiting))

    def hurry(self) -> None:
        """The node stops, or is about to, and shall not wait for transactions any longer.

        Nothing is lost by it: what was under way is in the spool, or was never accepted.
        """
        if self._hurried:
            return
        self._hurried = True
        self._log.warn("told to stop again: what is under way is cut off")
        self._cut()

    def _cut(self) -> None:
        for factory in self._factories:
            factory.cut()
        if self._reception.closed is _STOPPING:
            self._scheduler.abort()
        for proxy in self._proxies:
            proxy.cut()


def _own_names(configuration: Configuration) -> Iterator[str]:
    """What this node calls itself where others send mail to it."""
    yield configuration.node.hostname.lower()
    for listener in configuration.listeners.values():
        if listener.hostname:
            yield listener.hostname.lower()
