"""TLS reports (RFC 8460): counting, writing, asking who wants them, and sending."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import os
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSError
from kumotwist.message.queued import QueuedMessage
from kumotwist.message.tls_report import TLSReportMail
from kumotwist.queue.plan import Host, Plan
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.targets import Target
from kumotwist.queue.tls_reporting import SessionReport, tls_result
from kumotwist.service.tls_reports import TLSReportService
from kumotwist.testing.dns import FakeResolver
from kumotwist.tls.dane import DANE, TLSARecord
from kumotwist.tls.facts import TLSFacts
from kumotwist.tls.policy import PolicyType, TLSWish, decide
from kumotwist.tls.report import (
    MAX_DETAILS,
    Tally,
    TLSOutcome,
    fault_result,
    read_report_record,
)
from kumotwist.tls.settings import TLSReportSettings
from kumotwist.tls.sts import STSPolicy

DAY = 86400.0
GOOD = TLSOutcome("b.example", PolicyType.STS, ("version: STSv1",), ("*.b.example",))
BAD = TLSOutcome(
    "b.example", PolicyType.STS, ("version: STSv1",), ("*.b.example",), "certificate-expired",
    "198.51.100.1", "mx.b.example", "192.0.2.1", "the certificate has expired",
)  # fmt: skip


class RecordTests(SynchronousTestCase):
    """The TXT record (RFC 8460, 3)."""

    def test_good(self) -> None:
        """Places for mail and for HTTPS are read in their order."""
        for text, places in (
            (b"v=TLSRPTv1; rua=mailto:tls@b.example", ("mailto:tls@b.example",)),
            (
                b"v=TLSRPTv1;rua=https://b.example/r?x=1,mailto:tls@b.example; new=1",
                ("https://b.example/r?x=1", "mailto:tls@b.example"),
            ),
        ):
            self.assertEqual(read_report_record([b"v=spf1 -all", text]), places)

    def test_none(self) -> None:
        """No record, two of them, and places that make no sense mean no report."""
        for texts in (
            [], [b"v=spf1"], [b"v=TLSRPTv1; rua=mailto:a@b.example"] * 2, [b"v=TLSRPTv1"],
            [b"v=TLSRPTv1; rua=http://b.example/"], [b"v=TLSRPTv1; rua=mailto:a@b.example?cc=x"],
            [b"v=TLSRPTv1; rua=mailto:a@b.example\r\nX: y"], [b"rua=mailto:a@b; v=TLSRPTv1"],
        ):  # fmt: skip
            self.assertEqual(read_report_record(texts), (), texts)

    def test_bounded(self) -> None:
        """No domain has its report sent to many places."""
        many = b",".join(b"mailto:%d@b.example" % number for number in range(100))
        self.assertEqual(len(read_report_record([b"v=TLSRPTv1; rua=" + many])), 4)


class TallyTests(SynchronousTestCase):
    """L{Tally}."""

    def report(self, tally: Tally, domain: str = "b.example") -> Any:
        """The report for a domain."""
        return tally.report(
            domain, end=tally.begin + DAY - 1, organization="Us", contact="me@x", report_id="1"
        )

    def test_report(self) -> None:
        """Successes and failures are counted for each policy, failures of one kind together."""
        tally = Tally(10 * DAY)
        for outcome in (GOOD, BAD, GOOD, BAD, BAD):
            tally.count(outcome)
        tally.count(TLSOutcome("b.example", PolicyType.NONE))
        self.assertEqual(
            self.report(tally),
            {
                "organization-name": "Us",
                "date-range": {
                    "start-datetime": "1970-01-11T00:00:00Z",
                    "end-datetime": "1970-01-11T23:59:59Z",
                },
                "contact-info": "me@x",
                "report-id": "1",
                "policies": [
                    {
                        "policy": {
                            "policy-type": "sts",
                            "policy-string": ["version: STSv1"],
                            "policy-domain": "b.example",
                            "mx-host": ["*.b.example"],
                        },
                        "summary": {
                            "total-successful-session-count": 2,
                            "total-failure-session-count": 3,
                        },
                        "failure-details": [
                            {
                                "result-type": "certificate-expired",
                                "sending-mta-ip": "198.51.100.1",
                                "receiving-mx-hostname": "mx.b.example",
                                "receiving-ip": "192.0.2.1",
                                "failed-session-count": 3,
                                "failure-reason-code": "the certificate has expired",
                            }
                        ],
                    },
                    {
                        "policy": {
                            "policy-type": "no-policy-found",
                            "policy-domain": "b.example",
                        },
                        "summary": {
                            "total-successful-session-count": 1,
                            "total-failure-session-count": 0,
                        },
                    },
                ],
            },
        )

    def test_restart(self) -> None:
        """Numbers survive as JSON; what is not that is refused."""
        tally = Tally(10 * DAY)
        for outcome in (GOOD, BAD):
            tally.count(outcome)
        again = Tally.load(json.loads(json.dumps(tally.dump())))
        again.count(BAD)
        tally.count(BAD)
        self.assertEqual(self.report(again), self.report(tally))
        junk: Any
        for junk in (None, [], {}, {"begin": "x"}, {"begin": 1, "domains": {"a": [[1]]}}):
            self.assertRaises(ValueError, Tally.load, junk)

    def test_bounded(self) -> None:
        """Neither kinds of failures nor policies of a domain grow without end; the sums stay
        right."""
        tally = Tally(0)
        for number in range(200):
            tally.count(TLSOutcome("b.example", PolicyType.STS, result="x", host=str(number)))
            tally.count(TLSOutcome("c.example", PolicyType.STS, (str(number),)))
        [policy] = self.report(tally)["policies"]
        self.assertEqual(len(policy["failure-details"]), MAX_DETAILS)
        self.assertEqual(policy["summary"]["total-failure-session-count"], 200)
        self.assertLess(len(self.report(tally, "c.example")["policies"]), 10)

    def test_faults(self) -> None:
        """The faults of certificates have the RFC's names."""
        for fault, result in (
            ("the certificate has expired", "certificate-expired"),
            ("the certificate is not for mx.b.example", "certificate-host-mismatch"),
            ("the certificate is for none of mx.b.example", "certificate-host-mismatch"),
            ("the certificate is self-signed", "certificate-not-trusted"),
            ("no TLSA record of mx.b.example matches the certificate", "validation-failure"),
            ("", "validation-failure"),
        ):
            self.assertEqual(fault_result(fault), result, fault)


class MailTests(SynchronousTestCase):
    """L{TLSReportMail}."""

    def test_mail(self) -> None:
        """The mail is what RFC 8460, 5.3 describes, in lines that every server takes."""
        report = gzip.compress(b'{"a": "' + b"x" * 5000 + b'"}' + os.urandom(3000))
        mail = TLSReportMail(
            "us@mta.example", "tls@b.example", "b.example", "mta.example", "abc", 0, DAY - 1, report
        )
        octets = mail.octets(1_800_000_000)
        self.assertLess(max(map(len, octets.split(b"\r\n"))), 200)
        self.assertNotIn(b"\n", octets.replace(b"\r\n", b""))
        message: Any = email.message_from_bytes(octets, policy=email.policy.default)
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "tlsrpt")
        self.assertEqual(message["TLS-Required"], "No")
        self.assertEqual(message["TLS-Report-Domain"], "b.example")
        self.assertEqual(
            message["Subject"],
            "Report Domain: b.example Submitter: mta.example Report-ID: <abc@mta.example>",
        )
        text, attached = message.iter_parts()
        self.assertIn("RFC 8460", text.get_content())
        self.assertEqual(attached.get_content_type(), "application/tlsrpt+gzip")
        self.assertEqual(attached.get_filename(), "mta.example!b.example!0!86399!abc.json.gz")
        self.assertEqual(attached.get_payload(decode=True), report)


HOST = "mx.b.example"
STS = STSPolicy("b.example", "testing", (HOST,), 100)


def _plan(sts: STSPolicy | None = None, problem: str = "") -> Plan:
    return Plan(HOST, HOST, "b.example", (Host(HOST),), True, sts=sts, sts_problem=problem)


def _facts(verified: bool = True, error: str = "") -> AttemptFacts:
    return AttemptFacts(
        source_address="198.51.100.1:4321", tls=TLSFacts("c", "TLSv1.3", "", verified, error)
    )


class SessionTests(SynchronousTestCase):
    """What sessions count."""

    def setUp(self) -> None:
        self.outcomes: list[TLSOutcome] = []
        self.target = Target(Host(HOST), ip_address("192.0.2.1"), 25)

    def batch(self, *domains: str) -> list[QueuedMessage]:
        """Messages for domains."""
        return [
            QueuedMessage(domain, "a@x", f"c@{domain}", f"t@{domain}", 1, 0, 0)
            for domain in domains
        ]

    def test_results(self) -> None:
        """A session that was allowed to be worse than the policy wants is a failure."""
        dane = DANE(HOST, (TLSARecord(3, 1, 1, bytes(32)),), (HOST,))
        unusable = DANE(HOST, (), (HOST,))
        expired = "the certificate has expired"
        for demand, facts, plan, result in (
            (decide("Opportunistic", HOST), _facts(False, expired), _plan(), ""),
            (decide("Opportunistic", HOST), AttemptFacts(), _plan(), "starttls-not-supported"),
            (decide("Opportunistic", HOST, sts=STS), _facts(), _plan(STS), ""),
            (
                decide("OpportunisticInsecure", HOST, sts=STS), _facts(False, expired), _plan(STS),
                "certificate-expired",
            ),
            (decide("Required", "other", sts=STS), _facts(), _plan(STS), "validation-failure"),
            (decide("Opportunistic", HOST, dane=dane), _facts(), _plan(), ""),
            (decide("Opportunistic", HOST, dane=unusable), _facts(), _plan(), "tlsa-invalid"),
        ):  # fmt: skip
            host = "other" if result == "validation-failure" else HOST
            self.assertEqual(tls_result(demand, facts, host, plan)[0], result, demand)

    def test_domains(self) -> None:
        """A connection counts once for each domain whose mail it carries."""
        report = SessionReport(self.outcomes.append, _plan(STS))
        demand = decide("Opportunistic", HOST, sts=STS)
        report.dialled(self.batch("b.example"), self.target, demand, _facts(), "", "", stands=True)
        report.carries(self.batch("b.example", "c.example"))
        report.carries(self.batch("c.example"))
        self.assertEqual([each.domain for each in self.outcomes], ["b.example", "c.example"])
        first, second = self.outcomes
        self.assertEqual(first.policy_lines, STS.lines)
        self.assertEqual((first.source, first.address), ("198.51.100.1", "192.0.2.1"))
        self.assertEqual(second.policy_lines, (), "another domain has another policy")

    def test_refused(self) -> None:
        """A host that is not dialled for its policy is a failure."""
        report = SessionReport(self.outcomes.append, _plan(STS))
        enforce = STSPolicy("b.example", "enforce", ("no",), 100)
        demand = decide("Opportunistic", HOST, TLSWish.NOTHING, sts=enforce)
        report.refused(self.batch("b.example"), self.target, demand)
        [outcome] = self.outcomes
        self.assertEqual(outcome.result, "validation-failure")
        self.assertIn("does not list it", outcome.detail)

    def test_policy_problem(self) -> None:
        """A policy that could not be fetched is what is wrong with the session."""
        report = SessionReport(self.outcomes.append, _plan(None, "sts-webpki-invalid"))
        demand = decide("Opportunistic", HOST)
        report.dialled(self.batch("b.example"), self.target, demand, _facts(), "")
        [outcome] = self.outcomes
        self.assertEqual((outcome.policy, outcome.result), (PolicyType.STS, "sts-webpki-invalid"))

    def test_nobody_wants_it(self) -> None:
        """Without [tls-reports] a session tells nobody, which is no error."""
        report = SessionReport(None, _plan())
        demand = decide("Opportunistic", HOST)
        report.dialled(self.batch("b.example"), self.target, demand, _facts(), "", stands=True)
        report.carries(self.batch("c.example"))


class _Pool:
    """A thread pool without threads."""

    def callInThreadWithCallback(self, onResult: Any, func: Any, *args: Any) -> None:
        """Do it now."""
        onResult(True, func(*args))


class _Reactor(Clock):
    """A clock with a thread pool."""

    def getThreadPool(self) -> _Pool:
        """The pool."""
        return _Pool()

    def callFromThread(self, func: Any, *args: Any) -> None:
        """Do it now."""
        func(*args)


class ServiceTests(SynchronousTestCase):
    """L{TLSReportService} on a simulated clock."""

    RECORD = 'TXT "v=TLSRPTv1; rua=mailto:tls@b.example"'

    def setUp(self) -> None:
        self.clock = _Reactor()
        self.clock.advance(20_000 * DAY + 3600)
        self.sent: list[tuple[QueuedMessage, bytes]] = []
        self.directory = self.mktemp()
        self.records: dict[str, list[str]] = {"_smtp._tls.b.example": [self.RECORD]}
        self.fail_dns: dict[str, str] = {}
        self.start()
        self.addCleanup(lambda: self.service.stopService())

    def start(self, *left_over: str) -> None:
        """Start the service, as a new process does."""
        self.service = TLSReportService(
            self.clock,
            TLSReportSettings(organization_name="Us", contact_info="me@mta.example"),
            self.directory,
            "mta.example",
            FakeResolver(self.records, self.fail_dns),
            lambda domain: None,  # type: ignore[arg-type,return-value]
            self.send,
            lambda: 0.5,
            left_over,
        )
        self.service.startService()

    def send(self, message: QueuedMessage, body: bytes) -> Deferred[None]:
        """Take a message."""
        self.sent.append((message, body))
        return succeed(None)

    def days_end(self) -> None:
        """Let the day end, and the delay of its reports pass."""
        self.clock.advance(DAY - self.clock.seconds() % DAY)
        self.clock.advance(7200)

    def reports(self) -> list[Any]:
        """The reports that were sent."""
        found = []
        for _, body in self.sent:
            message: Any = email.message_from_bytes(body, policy=email.policy.default)
            attached = list(message.iter_parts())[1]
            found.append(json.loads(gzip.decompress(attached.get_payload(decode=True))))
        return found

    def test_day(self) -> None:
        """When a day is over, those who ask get its numbers, and nobody hears of failures."""
        self.service.count(BAD)
        self.service.count(TLSOutcome("silent.example", PolicyType.NONE))
        self.days_end()
        [(message, _)] = self.sent
        self.assertEqual(message.recipient, "tls@b.example")
        self.assertEqual((message.sender, message.queue), ("me@mta.example", "b.example"))
        self.assertEqual(message.meta["dsn_notify"], [])
        self.assertTrue(message.meta["tls_not_required"])
        [report] = self.reports()
        self.assertEqual(report["date-range"]["start-datetime"], "2024-10-04T00:00:00Z")
        self.days_end()
        self.assertEqual(len(self.sent), 1)
        self.assertEqual(os.listdir(self.directory), [])

    def test_restart(self) -> None:
        """Numbers of the day survive a restart, and so do those of a day that is over."""
        self.service.count(BAD)
        self.service.stopService()
        self.start()
        self.service.count(BAD)
        self.service.stopService()
        self.clock.advance(DAY)
        self.start()
        self.clock.advance(7200)
        [report] = self.reports()
        self.assertEqual(report["policies"][0]["summary"]["total-failure-session-count"], 2)
        self.assertEqual(os.listdir(self.directory), [])

    def test_left_over(self) -> None:
        """What a process has counted that there is no more is reported by another one."""
        self.service.count(BAD)
        self.service.stopService()
        former, self.directory = self.directory, self.mktemp()
        self.start(former, self.mktemp())
        self.service.count(BAD)
        self.days_end()
        self.assertEqual(len(self.sent), 2)
        self.assertEqual((os.listdir(former), os.listdir(self.directory)), ([], []))

    def test_killed(self) -> None:
        """A process that is killed loses what it has counted within the last minute."""
        self.service.count(BAD)
        self.clock.advance(61)
        self.service.count(BAD)
        self.start()
        self.days_end()
        sums = [
            report["policies"][0]["summary"]["total-failure-session-count"]
            for report in self.reports()
        ]
        # The process that was killed lives on here, and reports, too.
        self.assertEqual(sorted(sums), [1, 2])

    def test_damaged_file(self) -> None:
        """A file that cannot be read does not keep the node from working."""
        self.service.stopService()
        with open(os.path.join(self.directory, "86400.json"), "w", encoding="ascii") as stream:
            stream.write("nonsense")
        self.start()
        self.service.count(BAD)
        self.days_end()
        self.assertEqual(len(self.sent), 1)

    def test_dns_failure(self) -> None:
        """While DNS fails it is tried again, for a day."""
        self.service.stopService()
        self.fail_dns["_smtp._tls.b.example"] = "SERVFAIL"
        self.start()
        self.service.count(BAD)
        self.days_end()
        self.assertEqual(self.sent, [])
        self.assertEqual(len(os.listdir(self.directory)), 1)
        self.clock.pump([600] * 200)
        self.assertEqual(self.sent, [])
        self.assertEqual(os.listdir(self.directory), [])

    def test_dns_recovers(self) -> None:
        """What could not be asked first is reported when it can be."""
        answers = [DNSError("b.example", "SERVFAIL")]
        resolver = FakeResolver(self.records)

        def lookup(name: str) -> Deferred[tuple[bytes, ...]]:
            if answers:
                raise answers.pop()
            return resolver.lookup_text(name)

        self.service._resolver.lookup_text = lookup
        self.service.count(BAD)
        self.days_end()
        self.assertEqual(self.sent, [])
        self.clock.advance(600)
        self.assertEqual(len(self.sent), 1)
