"""A check's result for people, for programs and for monitoring; and the settings."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.check import (
    Blocklist,
    CheckSettings,
    Finding,
    SourceReport,
    Status,
    exit_status,
    table,
    to_json,
    worst,
)
from kumotwist.check.settings import MX
from kumotwist.settings import declared

OPEN = Finding("mx", Status.UNKNOWN, "no mail host is named")
BAD = Finding("bind", Status.FAILURE, "the proxy refused to bind 10.0.0.1")
ODD = Finding("ehlo", Status.WARNING, "another name")
GOOD = Finding("proxy", Status.OK, "10.0.5.10:5000 is reachable, 3 ms", seconds=0.00312345)
LISTED = Finding(
    "blocklist", Status.FAILURE, "on it", "bl.example", facts={"codes": ("127.0.0.2",)}
)


def skipped(check: str, why: str = "a private address") -> Finding:
    """A question that was not asked."""
    return Finding(check, Status.SKIPPED, why)


def report(*findings: Finding, name: str = "ip-1") -> SourceReport:
    """A report of a SOCKS5 source."""
    return SourceReport(
        name, "socks5", "10.0.5.10:5000", "10.0.0.1", "", "", "mta.example", findings
    )


class StatusTests(SynchronousTestCase):
    """C{exit_status}."""

    def test_worst(self) -> None:
        """The worst counts, and what was skipped does not."""
        self.assertEqual(worst([]), Status.OK)
        self.assertEqual(report(GOOD, skipped("ptr")).status, Status.OK)
        self.assertEqual(report(GOOD, ODD, skipped("ptr")).status, Status.WARNING)
        self.assertEqual(report(GOOD, OPEN, skipped("ptr")).status, Status.UNKNOWN)
        self.assertEqual(report(OPEN, ODD).status, Status.WARNING)
        self.assertEqual(report(BAD, ODD).status, Status.FAILURE)

    def test_exit_status(self) -> None:
        """A failure is 1; a warning, or a way that was not followed to its end, only if it shall
        be."""
        for reports, strict, status in (
            ([], False, 0),
            ([report(GOOD, skipped("mx"))], True, 0),
            ([report(ODD)], False, 0),
            ([report(ODD)], True, 1),
            ([report(GOOD, OPEN)], False, 0),
            ([report(GOOD, OPEN)], True, 1),
            ([report(GOOD), report(BAD)], False, 1),
        ):
            self.assertEqual(exit_status(reports, strict=strict), status)


class TableTests(SynchronousTestCase):
    """C{table}."""

    def test_table(self) -> None:
        """A heading for each way, a row for each answer; those that were skipped for one reason
        share a row."""
        lines = list(
            table([report(GOOD, BAD, skipped("ptr"), skipped("ehlo"), skipped("mx", "x"))])
        )
        self.assertEqual(
            lines,
            [
                "ip-1: socks5 10.0.5.10:5000 from 10.0.0.1, EHLO mta.example",
                "  ok       proxy      10.0.5.10:5000 is reachable, 3 ms",
                "  FAILURE  bind       the proxy refused to bind 10.0.0.1",
                "  -        ptr, ehlo  a private address",
                "  -        mx         x",
                "",
                "1 way out: 1 failed",
            ],
        )

    def test_summary(self) -> None:
        """The last line counts."""
        lines = list(table([report(GOOD), report(GOOD), report(ODD)]))
        self.assertEqual(lines[-1], "3 ways out: 2 all right, 1 with warnings")
        lines = list(table([report(GOOD, OPEN)]))
        self.assertIn("  ?        mx         no mail host is named", lines)
        self.assertEqual(lines[-1], "1 way out: 1 not followed to the end")
        self.assertEqual(list(table([])), ["0 ways out: nothing to check"])

    def test_direct(self) -> None:
        """A source without proxy and address says so."""
        direct = SourceReport("d", "", "", "", "", "", "mta.example", ())
        self.assertEqual(next(table([direct])), "d: direct, EHLO mta.example")

    def test_paint(self) -> None:
        """The status words can be coloured."""
        lines = list(table([report(BAD)], lambda status, text: f"<{text.strip()}>"))
        self.assertIn("<FAILURE>", lines[1])


class JSONTests(SynchronousTestCase):
    """C{to_json}."""

    def test_json(self) -> None:
        """All of it is there, and it is JSON."""
        made = to_json(
            [report(GOOD, LISTED)],
            [Blocklist("bl.example", 4), Blocklist("x.y", 6, "dead")],
            ["ip-9"],
        )
        read = json.loads(json.dumps(made))
        self.assertEqual((read["status"], read["unchecked"]), ("failure", ["ip-9"]))
        [way] = read["ways"]
        self.assertEqual(
            {key: value for key, value in way.items() if key != "checks"},
            {
                "source": "ip-1",
                "status": "failure",
                "protocol": "socks5",
                "server": "10.0.5.10:5000",
                "configured_address": "10.0.0.1",
                "reported_address": None,
                "seen_address": None,
                "ehlo_domain": "mta.example",
            },
        )
        self.assertEqual(
            way["checks"],
            [
                {"check": "proxy", "status": "ok", "text": GOOD.text, "seconds": 0.003123},
                {
                    "check": "blocklist",
                    "status": "failure",
                    "text": "on it",
                    "subject": "bl.example",
                    "codes": ["127.0.0.2"],
                },
            ],
        )
        self.assertEqual(
            read["blocklists"],
            [
                {"zone": "bl.example", "family": "IPv4", "usable": True, "problem": None},
                {"zone": "x.y", "family": "IPv6", "usable": False, "problem": "dead"},
            ],
        )


class SettingsTests(SynchronousTestCase):
    """C{[check]}."""

    def test_mx(self) -> None:
        """The port is 25 unless another is named."""
        for text, value in (
            ("mx.example", ("mx.example", 25)),
            ("192.0.2.1:2525", ("192.0.2.1", 2525)),
            ("[2001:db8::1]", ("2001:db8::1", 25)),
        ):
            found = MX.parse(text)
            self.assertEqual(found, value)
            self.assertEqual(MX.parse(MX.render(found)), found)
        error = self.assertRaises(ValueError, MX.parse, "a:b")
        self.assertIn("HOST[:PORT]", str(error))

    def test_defaults(self) -> None:
        """Nothing is tried that was not named."""
        self.assertEqual(CheckSettings(), CheckSettings(mx=None, echo=None, blocklists=()))
        self.assertEqual(set(declared(CheckSettings)), {"mx", "echo", "blocklists", "timeout"})
