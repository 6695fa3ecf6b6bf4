"""SMTP TLS reports (RFC 8460): what sessions with a domain came to, counted and written as JSON.

No I/O here: L{Tally} counts outcomes within one period, keeps its numbers in bounds, and writes the
report for each domain; L{read_report_record} reads where a domain wants its report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import attrs

from kumotwist.tls.policy import PolicyType

__all__ = ["TLSOutcome", "Tally", "fault_result", "read_report_record"]

#: Domains that are counted in one period; those that come later are not.
MAX_DOMAINS = 20_000
#: Policies of a domain, and kinds of failures of a policy, that are told apart.
MAX_POLICIES = 8
MAX_DETAILS = 64
#: Places that a report is sent to (RFC 8460, 3 lets a domain name several).
MAX_PLACES = 4
_MAX_TEXT = 255

_URI = re.compile(
    r"mailto:[A-Za-z0-9._+=-]{1,64}@[A-Za-z0-9.-]{1,253}|https://[A-Za-z0-9][!-~]{2,1000}",
    re.IGNORECASE,
)


@attrs.define(frozen=True)
class TLSOutcome:
    """What one session came to.

    @ivar domain: the mail domain.
    @ivar policy: whose policy applied.
    @ivar policy_lines: the policy's text, a line each: TLSA records, or the lines of its file.
    @ivar policy_hosts: the patterns of mail hosts that an MTA-STS policy lists.
    @ivar result: what went wrong, in the words of RFC 8460, 4.3; empty for success.
    @ivar source: the address that we sent from; empty if it is not known.
    @ivar host: the mail host's name.
    @ivar address: its address.
    @ivar detail: what went wrong, in words.
    """

    domain: str
    policy: PolicyType
    policy_lines: tuple[str, ...] = ()
    policy_hosts: tuple[str, ...] = ()
    result: str = ""
    source: str = ""
    host: str = ""
    address: str = ""
    detail: str = ""


_Key = tuple[str, tuple[str, ...], tuple[str, ...]]
_Detail = tuple[str, str, str, str, str]


@attrs.define
class _Counts:
    """Numbers for one policy of one domain."""

    successes: int = 0
    failures: int = 0
    details: dict[_Detail, int] = attrs.field(factory=dict)


class Tally:
    """Outcomes of one period.

    @ivar begin: the first moment; seconds since the epoch.
    """

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self._domains: dict[str, dict[_Key, _Counts]] = {}

    @property
    def domains(self) -> list[str]:
        """The domains that there is something to say about."""
        return list(self._domains)

    def count(self, outcome: TLSOutcome) -> None:
        """Count a session."""
        policies = self._domains.get(outcome.domain)
        if policies is None:
            if len(self._domains) >= MAX_DOMAINS:
                return
            policies = self._domains[outcome.domain] = {}
        key = (outcome.policy.value, outcome.policy_lines[:64], outcome.policy_hosts[:64])
        if key not in policies and len(policies) >= MAX_POLICIES:
            return
        counts = policies.setdefault(key, _Counts())
        if not outcome.result:
            counts.successes += 1
            return
        counts.failures += 1
        detail = (
            outcome.result, outcome.source, outcome.host, outcome.address,
            outcome.detail[:_MAX_TEXT],
        )  # fmt: skip
        if detail in counts.details or len(counts.details) < MAX_DETAILS:
            counts.details[detail] = counts.details.get(detail, 0) + 1

    # -- reports ----------------------------------------------------------------------------------

    def report(
        self, domain: str, *, end: float, organization: str, contact: str, report_id: str
    ) -> dict[str, Any]:
        """The report for a domain (RFC 8460, 4.4).

        @param end: the last moment of the period; seconds since the epoch.
        @param organization: who reports.
        @param contact: whom to ask about it.
        """
        policies = self._domains[domain]
        return {
            "organization-name": organization,
            "date-range": {"start-datetime": _moment(self.begin), "end-datetime": _moment(end)},
            "contact-info": contact,
            "report-id": report_id,
            "policies": [_policy_report(domain, key, counts) for key, counts in policies.items()],
        }

    # -- over a restart ---------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "begin": self.begin,
            "domains": {
                domain: [
                    [*key, counts.successes, counts.failures, [*map(list, counts.details.items())]]
                    for key, counts in policies.items()
                ]
                for domain, policies in self._domains.items()
            },
        }

    @classmethod
    def load(cls, dumped: Any) -> Tally:
        """The counterpart of L{dump}.

        @raise ValueError: if it was not that.
        """
        try:
            tally = cls(float(dumped["begin"]))
            for domain, rows in dumped["domains"].items():
                tally._domains[str(domain)] = {
                    (str(kind), tuple(map(str, lines)), tuple(map(str, hosts))): _Counts(
                        int(successes),
                        int(failures),
                        {_detail(detail): int(count) for detail, count in details},
                    )
                    for kind, lines, hosts, successes, failures, details in rows
                }
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the numbers of TLS reports: {error}") from None
        return tally


def _detail(values: Any) -> _Detail:
    result, source, host, address, words = map(str, values)
    return result, source, host, address, words


def _policy_report(domain: str, key: _Key, counts: _Counts) -> dict[str, Any]:
    kind, lines, hosts = key
    policy: dict[str, Any] = {"policy-type": kind}
    if lines:
        policy["policy-string"] = list(lines)
    policy["policy-domain"] = domain
    if hosts:
        policy["mx-host"] = list(hosts)
    written: dict[str, Any] = {
        "policy": policy,
        "summary": {
            "total-successful-session-count": counts.successes,
            "total-failure-session-count": counts.failures,
        },
    }
    if counts.details:
        written["failure-details"] = [
            {
                name: value
                for name, value in (
                    ("result-type", detail[0]),
                    ("sending-mta-ip", detail[1]),
                    ("receiving-mx-hostname", detail[2]),
                    ("receiving-ip", detail[3]),
                    ("failed-session-count", count),
                    ("failure-reason-code", detail[4]),
                )
                if value
            }
            for detail, count in counts.details.items()
        ]
    return written


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_report_record(texts: Iterable[bytes]) -> tuple[str, ...]:
    """Read the TXT records of C{_smtp._tls.DOMAIN} (RFC 8460, 3).

    @param texts: each record, its strings joined.
    @return: where reports go, C{mailto:} and C{https:} URIs; empty if the domain wants none, which
        is also what two records mean.
    """
    ours = []
    for text in texts:
        version, _, rest = text.decode("ascii", "replace").partition(";")
        if re.fullmatch(r"v\s*=\s*TLSRPTv1\s*", version):
            ours.append(rest)
    if len(ours) != 1:
        return ()
    for field in ours[0].split(";"):
        name, _, value = field.partition("=")
        if name.strip() == "rua":
            places = [place.strip() for place in value.split(",")]
            return tuple(place for place in places if _URI.fullmatch(place))[:MAX_PLACES]
    return ()


def fault_result(fault: str) -> str:
    """What a certificate's fault is called in reports.

    @param fault: in the words of L{kumotwist.tls.client} or L{kumotwist.tls.dane}.
    """
    if "has expired" in fault or "not yet valid" in fault:
        return "certificate-expired"
    if "is not for" in fault or "is for none of" in fault:
        return "certificate-host-mismatch"
    if not fault or "TLSA" in fault:
        return "validation-failure"
    return "certificate-not-trusted"
