"""What a check has found, as values: a finding for each question, a report for each way out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

__all__ = ["Finding", "SourceReport", "Status", "worst"]


class Status(enum.Enum):
    """How a question was answered.

    C{WARNING} is for what is legal but unwise, and for what could not be found out; C{SKIPPED}
    for what was not asked and need not be; C{UNKNOWN} for what should have been asked, and was not,
    because nobody said of whom.
    """

    OK = "ok"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"
    WARNING = "warning"
    FAILURE = "failure"


_ORDER = tuple(Status)
_NO_FACTS: Mapping[str, Any] = MappingProxyType({})


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of several; what was skipped does no harm."""
    found = max(statuses, key=_ORDER.index, default=Status.OK)
    return Status.OK if found is Status.SKIPPED else found


@attrs.define(frozen=True)
class Finding:
    """The answer to one question.

    @ivar check: which question: C{proxy}, C{login}, C{bind}, C{mx}, C{echo}, C{ptr}, C{fcrdns},
        C{ehlo}, C{blocklist} or C{shared}.
    @ivar status: how it was answered.
    @ivar text: the answer in words, one line.
    @ivar subject: what it is about, where the question is asked of several: a blocklist's zone.
    @ivar seconds: how long it took, where that was measured.
    @ivar facts: what a program wants to know beyond that.
    """

    check: str
    status: Status
    text: str
    subject: str = ""
    seconds: float | None = None
    facts: Mapping[str, Any] = _NO_FACTS


@attrs.define(frozen=True)
class SourceReport:
    """Everything that was found out about one way of a source.

    @ivar name: the source.
    @ivar protocol: C{socks5}, C{haproxy}, C{http-connect}, C{endpoint} for an endpoint string of
        another kind, or empty.
    @ivar server: the proxy; empty for a direct source.
    @ivar through: both in words.
    @ivar configured: the address that it shall leave from; empty if nothing chooses one.
    @ivar reported: the address and port that the proxy, or this machine, says was used; may be
        empty.
    @ivar seen: the address that an echo peer saw; empty if none did.
    @ivar ehlo_domain: what the source calls itself.
    @ivar findings: in the order of the way out.
    """

    name: str
    protocol: str
    server: str
    configured: str
    reported: str
    seen: str
    ehlo_domain: str
    findings: tuple[Finding, ...]
    through: str = ""

    @property
    def status(self) -> Status:
        """The worst of the findings."""
        return worst(finding.status for finding in self.findings)
