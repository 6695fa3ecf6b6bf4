"""Sources to check, and a network in memory in which their proxies and hosts follow scripts."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.check import CheckSettings, Finding, SourceChecker, SourceReport, Status, Subject
from kumotwist.egress import Source
from kumotwist.egress.settings import SourceSettings
from kumotwist.settings import declared
from kumotwist.settings.types import IPAddress
from kumotwist.testing.dns import FakeResolver
from kumotwist.testing.scripted import Close, Expect, ScriptedServer, Send, Step
from tests.memory_network import MemoryNetwork

__all__ = [
    "BIND", "CONNECT", "GREETING", "CheckCase", "Script", "make_source", "reply", "smtp",
]  # fmt: skip

#: What the client says to a SOCKS5 proxy to leave from 10.0.0.1, to 192.0.2.25:25.
GREETING = b"\x05\x01\x00"
BIND = b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x00"
CONNECT = b"\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"


def reply(rep: int = 0, address: bytes = b"\x0a\x00\x00\x01", port: int = 40000) -> bytes:
    """A SOCKS5 reply with an IPv4 address, by default 10.0.0.1."""
    return bytes((5, rep, 0, 1)) + address + port.to_bytes(2, "big")


def smtp(hello: str = "mx.example", banner: str = "220 mx.example ESMTP") -> tuple[Step, ...]:
    """A polite visit, as the server sees it.

    @param hello: the first line of its answer to EHLO.
    """
    return (
        Send(f"{banner}\r\n".encode()),
        Expect(b"EHLO mta.example\r\n"),
        Send(f"250-{hello}\r\n250 PIPELINING\r\n".encode()),
        Expect(b"QUIT\r\n"),
        Send(b"221 bye\r\n"),
        Close(),
    )


class Script(Factory):
    """A host that follows a script in each connection.

    @ivar played: the connections.
    """

    noisy = False

    def __init__(self, *steps: Step) -> None:
        self.steps = steps
        self.played: list[ScriptedServer] = []

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """One more connection."""
        self.played.append(ScriptedServer(self.steps))
        return self.played[-1]


def make_source(name: str = "ip-1", **texts: str) -> Source:
    """A source, its keys written as in a file."""
    keys = declared(SourceSettings)
    values = {keys[key][0].name: keys[key][1].kind.parse(text) for key, text in texts.items()}
    return Source.of(attrs.evolve(SourceSettings(name=name), **values))


class CheckCase(SynchronousTestCase):
    """A checker over scripts.

    @ivar network: where the hosts stand.
    @ivar records: what DNS knows.
    @ivar broken: names that cannot be looked up.
    @ivar unplumbed: addresses that this machine does not have.
    """

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.records: dict[str, Sequence[str]] = {}
        self.broken: dict[str, str] = {}
        self.unplumbed: set[str] = set()

    def put(self, host: str, port: int, *steps: Step) -> Script:
        """Put a host that follows a script at an address."""
        script = self.network.servers[host, port] = Script(*steps)
        return script

    def start(
        self, *sources: Source, ehlo: str = "mta.example", **texts: str
    ) -> Deferred[list[SourceReport]]:
        """Begin to check sources.

        @param texts: the keys of C{[check]}.
        """
        keys = declared(CheckSettings)
        values: Mapping[str, Any] = {
            keys[key][0].name: keys[key][1].kind.parse(text) for key, text in texts.items()
        }
        settings = attrs.evolve(CheckSettings(), **values)
        resolver = FakeResolver(self.records, self.broken)
        self.checker = SourceChecker(self.network, settings, resolver, resolver, self._bind)
        subjects = [Subject(source, ehlo) for source in sources]
        checking = Deferred.fromCoroutine(self.checker.check(subjects))
        self.network.settle()
        return checking

    def _bind(self, address: IPAddress) -> OSError | None:
        if str(address) in self.unplumbed:
            return OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return None

    def check_all(self, *sources: Source, **options: str) -> list[SourceReport]:
        """Check sources to the end; no time passes."""
        reports = self.successResultOf(self.start(*sources, **options))
        self.assertEqual(list(self.network.getDelayedCalls()), [])
        return reports

    def check(self, source: Source, **options: str) -> SourceReport:
        """Check a source that has one way out."""
        [report] = self.check_all(source, **options)
        return report

    def finding(self, report: SourceReport, check: str) -> Finding:
        """The one answer to a question."""
        [found] = [one for one in report.findings if one.check == check]
        return found

    def assert_found(self, report: SourceReport, check: str, status: Status, text: str) -> None:
        """A question was answered like this."""
        found = self.finding(report, check)
        self.assertEqual((found.status, found.text), (status, text))

    def statuses(self, report: SourceReport) -> dict[str, str]:
        """The answers in one word each; without those of DNS where these were skipped."""
        return {
            one.check: one.status.value
            for one in report.findings
            if one.check not in ("ptr", "fcrdns", "ehlo") or one.status is not Status.SKIPPED
        }
