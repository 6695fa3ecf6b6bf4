"""The result of a check: a table for people, JSON for programs, a status for monitoring."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kumotwist.check.blocklists import Blocklist
from kumotwist.check.findings import Finding, SourceReport, Status, worst

__all__ = ["exit_status", "table", "to_json"]

_WORDS = {
    Status.OK: "ok",
    Status.SKIPPED: "-",
    Status.UNKNOWN: "?",
    Status.WARNING: "warning",
    Status.FAILURE: "FAILURE",
}
_SUMMARY = (
    (Status.OK, "all right"),
    (Status.UNKNOWN, "not followed to the end"),
    (Status.WARNING, "with warnings"),
    (Status.FAILURE, "failed"),
)


def exit_status(reports: Sequence[SourceReport], *, strict: bool = False) -> int:
    """0 if all is well, 1 if a source fails.

    @param strict: let warnings fail, and ways of which not enough is known.
    """
    status = worst(report.status for report in reports)
    return int(status is Status.FAILURE or (strict and status is not Status.OK))


def _heading(report: SourceReport) -> str:
    way = report.through or f"{report.protocol} {report.server}".strip() or "direct"
    address = f" from {report.configured}" if report.configured else ""
    return f"{report.name}: {way}{address}, EHLO {report.ehlo_domain}"


def table(
    reports: Sequence[SourceReport],
    paint: Callable[[Status, str], str] = lambda status, text: text,
) -> Iterator[str]:
    """The lines of the table.

    @param paint: colours a status word, for a terminal.
    """
    for report in reports:
        yield _heading(report)
        for checks, status, text in _rows(report.findings):
            word = paint(status, f"{_WORDS[status]:<7}")
            yield f"  {word}  {checks:<9}  {text}"
        yield ""
    counts = Counter(report.status for report in reports)
    parts = [f"{counts[status]} {words}" for status, words in _SUMMARY if counts[status]]
    number = f"{len(reports)} {'way' if len(reports) == 1 else 'ways'} out"
    yield f"{number}: {', '.join(parts) or 'nothing to check'}"


def _rows(findings: Sequence[Finding]) -> Iterator[tuple[str, Status, str]]:
    """One row for each finding; questions that were skipped for the same reason share one."""

    def kind(finding: Finding) -> tuple[str, ...]:
        if finding.status is Status.SKIPPED:
            return (finding.text,)
        return (finding.check, finding.subject)

    for _, group in itertools.groupby(findings, kind):
        alike = list(group)
        checks = ", ".join(dict.fromkeys(finding.check for finding in alike))
        yield checks, alike[0].status, alike[0].text


def _finding(finding: Finding) -> dict[str, Any]:
    found: dict[str, Any] = {
        "check": finding.check,
        "status": finding.status.value,
        "text": finding.text,
    }
    if finding.subject:
        found["subject"] = finding.subject
    if finding.seconds is not None:
        found["seconds"] = round(finding.seconds, 6)
    return found | dict(finding.facts)


def to_json(
    reports: Sequence[SourceReport], blocklists: Sequence[Blocklist], unchecked: Sequence[str] = ()
) -> dict[str, Any]:
    """The whole as a value that C{json.dumps} takes.

    @param unchecked: the names of sources that were left out.
    """
    return {
        "status": worst(report.status for report in reports).value,
        "ways": [
            {
                "source": report.name,
                "status": report.status.value,
                "protocol": report.protocol or None,
                "server": report.server or None,
                "configured_address": report.configured or None,
                "reported_address": report.reported or None,
                "seen_address": report.seen or None,
                "ehlo_domain": report.ehlo_domain,
                "checks": [_finding(finding) for finding in report.findings],
            }
            for report in reports
        ],
        "blocklists": [
            {
                "zone": one.zone,
                "family": f"IPv{one.version}",
                "usable": not one.problem,
                "problem": one.problem or None,
            }
            for one in blocklists
        ],
        "unchecked": list(unchecked),
    }
