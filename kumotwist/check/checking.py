"""Checks sources: each through its own path, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults

from kumotwist.check.blocklists import Blocklist, Blocklists
from kumotwist.check.findings import Finding, SourceReport, Status
from kumotwist.check.path import (
    echo_findings,
    local_bind,
    mx_finding,
    path_findings,
    rehearsed,
    reported_address,
    untried,
)
from kumotwist.check.probe import Probe, bind_here, probe, rehearse
from kumotwist.check.rdns import rdns_findings
from kumotwist.check.settings import CheckSettings
from kumotwist.check.ways import Way
from kumotwist.dns.errors import DNSError
from kumotwist.egress.source import Source
from kumotwist.interfaces import IResolver
from kumotwist.settings.types import HostPort, IPAddress
from kumotwist.wire.smtp.replies import one_line

__all__ = ["SourceChecker", "Subject"]

#: So many sources at once; the mail host that they all visit shall not take offence.
_CONCURRENCY = 8


@attrs.define(frozen=True)
class Subject:
    """A source to check.

    @ivar source: the source.
    @ivar ehlo_domain: what it calls itself in EHLO.
    """

    source: Source
    ehlo_domain: str


@attrs.define
class _Visit:
    """A visit to be paid, and what came of it.

    @ivar target: the host as it was configured.
    @ivar probe: what it has shown; L{None} if it could not be paid.
    @ivar status: how bad that is.
    @ivar why: why it could not.
    """

    target: HostPort
    probe: Probe | None = None
    status: Status = Status.OK
    why: str = ""

    def finding(self, check: str) -> Finding:
        """The visit that could not be paid, as a finding."""
        return Finding(check, self.status, self.why, facts={"host": str(self.target)})


class SourceChecker:
    """Finds out what is true of sources right now.

    @param reactor: connects and tells the time.
    @param resolver: looks up the hosts to visit, as deliveries do.
    @param public: looks up what the world sees: without names that only this node knows.
    @param bind: tries whether this machine has an address; returns what speaks against it.
    """

    def __init__(
        self,
        reactor: Any,
        settings: CheckSettings,
        resolver: IResolver,
        public: IResolver,
        bind: Callable[[IPAddress], OSError | None] = bind_here,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._resolver = resolver
        self._public = public
        self._bind = bind
        self._blocklists = Blocklists(public, settings.blocklists)

    @property
    def blocklists(self) -> tuple[Blocklist, ...]:
        """The blocklists that were tried, once L{check} has fired."""
        return self._blocklists.tried

    async def check(self, subjects: Sequence[Subject]) -> list[SourceReport]:
        """Check sources.

        @return: a report for each way of each source, in their order.
        """
        turns = DeferredSemaphore(_CONCURRENCY)

        def checked(way: Way, ehlo_domain: str) -> Deferred[SourceReport]:
            return Deferred.fromCoroutine(self._check(way, ehlo_domain))

        waiting = [
            turns.run(checked, way, subject.ehlo_domain)
            for subject in subjects
            for way in Way.all_of(subject.source)
        ]
        return _with_shared(list(await gatherResults(waiting)))

    async def _check(self, way: Way, ehlo_domain: str) -> SourceReport:
        source, settings = way.source, self._settings
        mx = await self._visit(way, ehlo_domain, settings.mx, source.settings.remote_port)
        echo = mx
        if settings.echo is not None and settings.echo != settings.mx:
            echo = await self._visit(way, ehlo_domain, settings.echo, None)
        probes = [one.probe for one in (mx, echo) if one is not None and one.probe is not None]
        first = probes[0] if probes else None
        rehearsal = None if probes else await rehearse(self._reactor, way, settings.timeout)
        findings = self._way_out(way, first, rehearsal)
        findings.append(self._mx(way, mx, findings, visited=bool(probes)))
        found, seen = self._echo(way, mx, echo)
        findings.append(found)
        first = first or rehearsal
        address = seen or way.address or (None if first is None else reported_address(first))
        findings += await rdns_findings(self._public, address, ehlo_domain)
        findings += await self._blocklists.findings(address)
        return SourceReport(
            name=source.name,
            protocol=source.protocol,
            server=source.server,
            through=source.through,
            configured=str(way.address or ""),
            reported="" if first is None else first.left_from,
            seen=str(seen or ""),
            ehlo_domain=ehlo_domain,
            findings=tuple(findings),
        )

    # -- visits ----------------------------------------------------------------------------------

    async def _visit(
        self, way: Way, ehlo_domain: str, target: HostPort | None, port: int | None
    ) -> _Visit | None:
        """Visit a host; L{None} if there is none to visit.

        @param port: instead of the target's.
        """
        if target is None:
            return None
        visit = _Visit(target)
        try:
            addresses = await self._resolver.lookup_addresses(target.host)
        except DNSError as error:
            visit.status = Status.FAILURE
            visit.why = f"{target.host} cannot be looked up: {one_line(error.text, 200)}"
            return visit
        address = way.pick(addresses)
        if address is None:
            lacks = f" of the family of {way.address}" if addresses else ""
            visit.status = Status.WARNING if addresses else Status.FAILURE
            visit.why = f"{target.host} has no address{lacks}"
            return visit
        visit.probe = await probe(
            self._reactor,
            way,
            address,
            port or target.port,
            ehlo_domain=ehlo_domain,
            timeout=self._settings.timeout,
        )
        return visit

    def _way_out(self, way: Way, visit: Probe | None, rehearsal: Probe | None) -> list[Finding]:
        """C{proxy}, C{login} and C{bind}; without a visit as far as the way leads by itself."""
        if visit is not None:
            return list(path_findings(way, visit))
        if not way.source.protocol:
            return [] if way.address is None else [local_bind(way, self._bind(way.address))]
        return list(rehearsed(way, rehearsal))

    def _mx(
        self, way: Way, visit: _Visit | None, before: Sequence[Finding], *, visited: bool
    ) -> Finding:
        if visit is None:
            text = "no mail host is named (--mx HOST)"
            if visited or any(one.status is Status.FAILURE for one in before):
                return untried("mx", text)
            return Finding("mx", Status.UNKNOWN, f"{text}: whether mail gets out is not known")
        if visit.probe is None:
            return visit.finding("mx")
        target = visit.target
        return mx_finding(way, visit.probe, target.host if target.port == 25 else str(target))

    def _echo(
        self, way: Way, mx: _Visit | None, echo: _Visit | None
    ) -> tuple[Finding, IPAddress | None]:
        if self._settings.echo is not None:
            assert echo is not None
            if echo.probe is None:
                return echo.finding("echo"), None
            return echo_findings(way, echo.probe)
        if mx is not None and mx.probe is not None and mx.probe.error is None:
            # Many mail hosts say what they see, without being asked.
            found, seen = echo_findings(way, mx.probe, of_mx=True)
            if seen is not None:
                trusted = found.status is Status.OK
                return found, seen if trusted else None
        return untried("echo", "no echo peer is named (--echo ADDR:PORT)"), None


def _with_shared(reports: list[SourceReport]) -> list[SourceReport]:
    """Add a warning where ways that should have addresses of their own share one."""
    by_seen: dict[str, list[SourceReport]] = {}
    for report in reports:
        if report.seen and report.configured:
            by_seen.setdefault(report.seen, []).append(report)

    def completed(report: SourceReport) -> SourceReport:
        others = [
            f"{one.name} ({one.configured})"
            for one in by_seen.get(report.seen, ())
            if one.configured != report.configured
        ]
        if not report.configured or not others:
            return report
        text = f"{', '.join(dict.fromkeys(others))} leaves from {report.seen}, too"
        shared = Finding("shared", Status.WARNING, text, facts={"address": report.seen})
        return attrs.evolve(report, findings=(*report.findings, shared))

    return [completed(report) for report in reports]
