"""What a check finds out from DNS: names, and blocklists that may be dead or lie."""

from __future__ import annotations

from ipaddress import ip_address

from kumotwist.check import SourceReport, Status
from kumotwist.check.addresses import why_not_public
from tests.check_case import CheckCase, make_source

OK, SKIPPED, WARNING, FAILURE = Status.OK, Status.SKIPPED, Status.WARNING, Status.FAILURE
REVERSED = "1.2.0.192"
PTR = f"{REVERSED}.in-addr.arpa"
ALIVE = {"2.0.0.127.bl.example": ["A 127.0.0.2"]}
SIX = "2001:db8::1"
SIX_REVERSED = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2"
SIX_ALIVE = {f"2.0.0.0.0.0.f.7.f.f.f.f{'.0' * 20}.bl.example": ["A 127.0.0.2"]}


class ReverseTests(CheckCase):
    """C{ptr}, C{fcrdns} and C{ehlo}."""

    def look(self, address: str = "192.0.2.1", ehlo: str = "mta.example") -> SourceReport:
        """Check a source with an address, as DNS has it."""
        return self.check(make_source(source_address=address), ehlo=ehlo)

    def test_all_right(self) -> None:
        """The address has a name that leads back, and EHLO says it."""
        self.records.update({PTR: ["PTR mta.example"], "mta.example": ["A 192.0.2.1"]})
        report = self.look()
        self.assert_found(report, "ptr", OK, "192.0.2.1 is mta.example")
        self.assert_found(report, "fcrdns", OK, "mta.example leads back to 192.0.2.1")
        self.assert_found(report, "ehlo", OK, "mta.example is the address's confirmed name")
        self.assertEqual(self.finding(report, "ptr").facts["names"], ("mta.example",))

    def test_another_name(self) -> None:
        """That EHLO says another name is legal, as long as both lead to the address: a warning."""
        self.records.update(
            {PTR: ["PTR other.example"], "other.example": ["A 192.0.2.1"],
             "mta.example": ["A 192.0.2.1"]}
        )  # fmt: skip
        report = self.look()
        self.assertEqual(self.finding(report, "fcrdns").status, OK)
        self.assert_found(
            report,
            "ehlo",
            WARNING,
            "mta.example leads to 192.0.2.1, whose own name is other.example: legal",
        )
        self.assertEqual(report.status, WARNING)

    def test_no_name(self) -> None:
        """An address without a name fails."""
        self.records["mta.example"] = ["A 192.0.2.1"]
        report = self.look()
        self.assert_found(
            report, "ptr", FAILURE, "192.0.2.1 has no PTR: receivers will refuse its mail"
        )
        self.assertEqual(self.finding(report, "fcrdns").status, SKIPPED)
        self.assertIn("no confirmed name", self.finding(report, "ehlo").text)

    def test_name_leads_elsewhere(self) -> None:
        """A name that does not lead back fails; one of several that does will do."""
        self.records.update({PTR: ["PTR a.example"], "a.example": ["A 192.0.2.9"]})
        found = self.finding(self.look(), "fcrdns")
        self.assertEqual(found.status, FAILURE)
        self.assertIn("a.example does not lead back to 192.0.2.1", found.text)
        self.records.update({PTR: ["PTR a.example", "PTR b.example"], "b.example": ["A 192.0.2.1"]})
        self.assert_found(self.look(), "fcrdns", OK, "b.example leads back to 192.0.2.1")

    def test_dns_is_down(self) -> None:
        """What could not be looked up is a warning: it is not known, so it is not a failure."""
        self.broken[PTR] = "timed out"
        report = self.look()
        self.assert_found(
            report, "ptr", WARNING, "the PTR of 192.0.2.1 cannot be looked up: timed out"
        )
        self.assertEqual(self.finding(report, "fcrdns").status, SKIPPED)
        self.broken = {"mta.example": "timed out"}
        self.records[PTR] = ["PTR mta.example"]
        report = self.look()
        self.assert_found(report, "fcrdns", WARNING, "mta.example cannot be looked up")
        self.assert_found(report, "ehlo", WARNING, "mta.example cannot be looked up: timed out")

    def test_ehlo_name_of_another(self) -> None:
        """EHLO says the name of another machine, or of none."""
        self.records.update({PTR: ["PTR a.example"], "a.example": ["A 192.0.2.1"]})
        self.assertIn("has no address", self.finding(self.look(), "ehlo").text)
        self.records["mta.example"] = ["A 192.0.2.7", "AAAA 2001:db8::7"]
        self.assert_found(
            self.look(), "ehlo", WARNING, "mta.example is not 192.0.2.1 but 192.0.2.7, 2001:db8::7"
        )

    def test_ehlo_literal(self) -> None:
        """An address literal in EHLO is legal and unwise."""
        for literal, words in (("[192.0.2.1]", "receivers prefer"), ("[192.0.2.2]", "another")):
            found = self.finding(self.look(ehlo=literal), "ehlo")
            self.assertEqual(found.status, WARNING)
            self.assertIn(words, found.text)
        self.records[f"{SIX_REVERSED}.ip6.arpa"] = ["PTR six.example"]
        found = self.finding(self.look(SIX, ehlo=f"[IPv6:{SIX}]"), "ehlo")
        self.assertIn("the address itself", found.text)

    def test_ipv6(self) -> None:
        """IPv6 likewise."""
        self.records.update(
            {f"{SIX_REVERSED}.ip6.arpa": ["PTR mta.example"], "mta.example": [f"AAAA {SIX}"]}
        )
        self.assertEqual(self.finding(self.look(SIX), "ehlo").status, OK)

    def test_nobody_sees_it(self) -> None:
        """Of an address that never leaves the house, or that is not known, nothing is asked."""
        for address in ("10.0.0.1", "127.0.0.1"):
            self.assertEqual(self.finding(self.look(address), "ptr").status, SKIPPED)
        report = self.check(make_source())
        self.assert_found(report, "ptr", SKIPPED, "nobody knows the address")
        for text in ("100.64.0.1", "fd00::1", "fe80::1", "::1", "169.254.1.1"):
            self.assertTrue(why_not_public(ip_address(text)), text)
        for text in ("192.0.2.1", "2001:db8::1", "100.128.0.1"):
            self.assertEqual(why_not_public(ip_address(text)), "")


class BlocklistTests(CheckCase):
    """C{blocklist}: which lists can be believed, and what they say."""

    def look(self, address: str = "192.0.2.1", zones: str = "bl.example") -> SourceReport:
        """Check a source with an address, as the list has it."""
        return self.check(make_source(source_address=address), blocklists=zones)

    def assert_unusable(self, why: str) -> None:
        """The list is found to be unusable, and lists nobody."""
        found = self.finding(self.look(), "blocklist")
        self.assertEqual(found.status, WARNING)
        self.assertIn("bl.example is unusable: ", found.text)
        self.assertIn(why, found.text)
        [blocklist] = self.checker.blocklists
        self.assertIn(why, blocklist.problem)

    def test_not_listed(self) -> None:
        """A list that works and does not have the address."""
        self.records.update(ALIVE)
        self.assert_found(self.look(), "blocklist", OK, "192.0.2.1 is not on bl.example")
        [blocklist] = self.checker.blocklists
        self.assertEqual(blocklist.problem, "")

    def test_listed(self) -> None:
        """A list that works and has the address: a failure, with the codes."""
        self.records.update(ALIVE)
        self.records[f"{REVERSED}.bl.example"] = ["A 127.0.0.4", "A 127.0.0.10"]
        report = self.look()
        self.assert_found(
            report, "blocklist", FAILURE, "192.0.2.1 is on bl.example (127.0.0.4, 127.0.0.10)"
        )
        found = self.finding(report, "blocklist")
        self.assertEqual((found.subject, found.facts["codes"]),
                         ("bl.example", ("127.0.0.4", "127.0.0.10")))  # fmt: skip

    def test_dead(self) -> None:
        """A list that no longer lists its test entry."""
        self.assert_unusable("does not list 127.0.0.2")

    def test_lists_the_world(self) -> None:
        """A list that answers yes to everything."""
        for name in ("2.0.0.127", "1.0.0.127", REVERSED):
            self.records[f"{name}.bl.example"] = ["A 127.0.0.2"]
        self.assert_unusable("lists the world")

    def test_sold(self) -> None:
        """A list whose domain now answers with somebody's web server."""
        for name in ("2.0.0.127", "1.0.0.127", REVERSED):
            self.records[f"{name}.bl.example"] = ["A 203.0.113.80"]
        self.assert_unusable("answers 203.0.113.80")

    def test_refuses_queries(self) -> None:
        """127.255.255.x is no listing but a refusal: through a public resolver, or too many."""
        for name in ("2.0.0.127", "1.0.0.127", REVERSED):
            self.records[f"{name}.bl.example"] = ["A 127.255.255.254"]
        self.assert_unusable("refuses our queries (127.255.255.254)")

    def test_refuses_later(self) -> None:
        """A refusal, or nonsense, that comes only for our address lists nobody either."""
        self.records.update(ALIVE)
        for code in ("127.255.255.255", "198.51.100.1"):
            self.records[f"{REVERSED}.bl.example"] = [f"A {code}", "A 127.0.0.2"]
            found = self.finding(self.look(), "blocklist")
            self.assertEqual(found.status, WARNING)
            self.assertIn(code, found.text)

    def test_unreachable(self) -> None:
        """A list whose name servers do not answer."""
        self.broken["2.0.0.127.bl.example"] = "timed out"
        self.assert_unusable("it cannot be asked: timed out")
        self.broken = {f"{REVERSED}.bl.example": "timed out"}
        self.records.update(ALIVE)
        found = self.finding(self.look(), "blocklist")
        self.assertEqual(found.status, WARNING)
        self.assertIn("does not answer for 192.0.2.1", found.text)

    def test_ipv6(self) -> None:
        """A list is tried for each family by itself: many know no IPv6."""
        self.records.update(ALIVE)
        found = self.finding(self.look(SIX), "blocklist")
        self.assertEqual(found.status, WARNING)
        self.assertIn("knows no IPv6", found.text)
        self.records.update(SIX_ALIVE)
        self.assert_found(self.look(SIX), "blocklist", OK, f"{SIX} is not on bl.example")
        self.records[f"{SIX_REVERSED}.bl.example"] = ["A 127.0.0.2"]
        self.assertEqual(self.finding(self.look(SIX), "blocklist").status, FAILURE)

    def test_several(self) -> None:
        """Every list is asked, whatever the others say."""
        self.records.update(ALIVE)
        self.records[f"{REVERSED}.bl.example"] = ["A 127.0.0.2"]
        report = self.look(zones="dead.example, bl.example")
        self.assertEqual(
            [(one.subject, one.status) for one in report.findings if one.check == "blocklist"],
            [("dead.example", WARNING), ("bl.example", FAILURE)],
        )

    def test_no_address(self) -> None:
        """An address that nobody sees is not asked for, and the list is not troubled."""
        report = self.look("10.0.0.1")
        self.assert_found(report, "blocklist", SKIPPED, "10.0.0.1 is a private address")
        self.assertEqual(self.checker.blocklists, ())
