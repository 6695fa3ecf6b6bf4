"""Who may go from where to where."""

from __future__ import annotations

import ipaddress

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.proxy import ProxyRuleSettings
from kumotwist.proxy.rules import DEFAULT_PORTS, Decision, Rules
from kumotwist.settings.types import IPAddress
from tests.proxy_case import rule

CLIENT = ipaddress.ip_address("198.51.100.7")
SOURCE = ipaddress.ip_address("203.0.113.1")


class RulesTests(SynchronousTestCase):
    """Decisions as values."""

    def decide(
        self,
        *rules: ProxyRuleSettings,
        to: str = "192.0.2.25",
        port: int = 25,
        user: str | None = None,
        client: IPAddress | None = CLIENT,
        source: IPAddress = SOURCE,
    ) -> Decision:
        """Decide by rules called a, b, c, …"""
        named = [(chr(ord("a") + number), one) for number, one in enumerate(rules)]
        return Rules(named, "main").decide(user, client, source, ipaddress.ip_address(to), port)

    def test_default_ports(self) -> None:
        """Without rules the ports of mail are open, and no others."""
        for port in DEFAULT_PORTS:
            self.assertEqual(self.decide(port=port), Decision(True, "the default"))
        for port in (1, 24, 26, 80, 2526, 65535):
            self.assertEqual(
                self.decide(port=port), Decision(False, "the default: not a port for mail")
            )

    def test_default_guards(self) -> None:
        """Without rules this host and its neighbours on the link are out of reach."""
        for to, why in (
            ("127.0.0.1", "loopback"),
            ("127.255.0.3", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("224.0.0.1", "multicast or broadcast"),
            ("ff02::1", "multicast or broadcast"),
            ("255.255.255.255", "multicast or broadcast"),
        ):
            self.assertEqual(self.decide(to=to), Decision(False, f"the default: {why}"))

    def test_own_listener(self) -> None:
        """The proxy does not connect to itself unless a rule names its address."""
        rules = [("any", rule("allow", ports="1-65535"))]
        named = [("named", rule("allow", ports="1-65535", destinations="203.0.113.0/24"))]
        own = ipaddress.ip_address("203.0.113.9")

        def is_own(address: IPAddress, port: int) -> bool:
            return (address, port) == (own, 5000)

        self.assertEqual(
            Rules(rules, "main", is_own).decide(None, CLIENT, SOURCE, own, 5000),
            Decision(False, "the default: the proxy's own listener"),
        )
        self.assertTrue(Rules(rules, "main", is_own).decide(None, CLIENT, SOURCE, own, 25).allowed)
        self.assertTrue(
            Rules(named, "main", is_own).decide(None, CLIENT, SOURCE, own, 5000).allowed
        )

    def test_trial(self) -> None:
        """A rule that names loopback opens it, for its ports only."""
        trial = rule("allow", destinations="127.0.0.0/8", ports="2526")
        self.assertEqual(
            self.decide(trial, to="127.0.0.3", port=2526), Decision(True, "[proxy-rule:a]")
        )
        self.assertFalse(self.decide(trial, to="127.0.0.3", port=25).allowed)

    def test_allow_without_destinations(self) -> None:
        """A rule that names no destinations does not open loopback."""
        anywhere = rule("allow", ports="1-65535")
        self.assertTrue(self.decide(anywhere, port=80).allowed)
        self.assertFalse(self.decide(anywhere, to="127.0.0.1", port=80).allowed)

    def test_allow_without_ports(self) -> None:
        """A rule that names no ports opens those of mail."""
        clients = rule("allow", destinations="127.0.0.0/8")
        self.assertTrue(self.decide(clients, to="127.0.0.1", port=587).allowed)
        self.assertFalse(self.decide(clients, to="127.0.0.1", port=6379).allowed)

    def test_deny_without_ports(self) -> None:
        """A rule that denies and names no ports denies them all."""
        self.assertEqual(
            self.decide(rule("deny", destinations="192.0.2.0/24")),
            Decision(False, "[proxy-rule:a]"),
        )

    def test_first_match(self) -> None:
        """The first rule that matches decides."""
        narrow = rule("deny", destinations="192.0.2.25")
        wide = rule("allow", destinations="192.0.2.0/24")
        self.assertEqual(self.decide(narrow, wide), Decision(False, "[proxy-rule:a]"))
        self.assertEqual(self.decide(wide, narrow), Decision(True, "[proxy-rule:a]"))
        self.assertEqual(
            self.decide(narrow, wide, to="192.0.2.26"), Decision(True, "[proxy-rule:b]")
        )

    def test_users(self) -> None:
        """A rule for users concerns only those who logged in under one of the names."""
        rules = (rule("allow", users="alice,bob"), rule("deny"))
        self.assertTrue(self.decide(*rules, user="bob").allowed)
        self.assertFalse(self.decide(*rules, user="Bob").allowed)
        self.assertFalse(self.decide(*rules, user=None).allowed)

    def test_clients(self) -> None:
        """A rule for clients concerns their networks, and never a client without an address."""
        rules = (rule("allow", clients="198.51.100.0/24, 2001:db8::/32"), rule("deny"))
        self.assertTrue(self.decide(*rules).allowed)
        self.assertTrue(self.decide(*rules, client=ipaddress.ip_address("2001:db8::9")).allowed)
        self.assertFalse(self.decide(*rules, client=ipaddress.ip_address("10.0.0.1")).allowed)
        self.assertFalse(self.decide(*rules, client=None).allowed)

    def test_sources(self) -> None:
        """A rule for sources concerns their networks."""
        rules = (rule("allow", sources="203.0.113.1"), rule("deny"))
        self.assertTrue(self.decide(*rules).allowed)
        self.assertFalse(self.decide(*rules, source=ipaddress.ip_address("203.0.113.2")).allowed)

    def test_rules_of_other_proxies(self) -> None:
        """A rule of another proxy is not looked at."""
        self.assertTrue(self.decide(rule("deny", proxy="other")).allowed)
        self.assertFalse(self.decide(rule("deny", proxy="main")).allowed)

    def test_source_alone(self) -> None:
        """BIND is refused where no destination could be allowed from that source."""
        rules = Rules(
            [
                ("alice", rule("allow", users="alice", sources="203.0.113.1")),
                ("web", rule("deny", ports="80")),
                ("rest", rule("deny")),
            ]
        )
        self.assertTrue(rules.decide_source("alice", CLIENT, SOURCE).allowed)
        self.assertEqual(
            rules.decide_source("bob", CLIENT, SOURCE), Decision(False, "[proxy-rule:rest]")
        )
        self.assertTrue(Rules().decide_source(None, CLIENT, SOURCE).allowed)
