"""Queues and paths: the most specific rule wins, key by key."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathPattern, PathSettings, PathTable
from kumotwist.queue.settings import (
    SMART_HOST,
    QueueName,
    QueuePattern,
    QueueSettings,
    QueueTable,
    SmartHost,
)
from kumotwist.settings.layers import Rule


def queues(rules: dict[str, dict[str, Any]]) -> QueueTable:
    """A table of rules by their patterns."""
    return QueueTable(Rule(QueuePattern.parse(key), rule) for key, rule in rules.items())


def paths(rules: dict[str, dict[str, Any]]) -> PathTable:
    """A table of rules by their patterns."""
    return PathTable(Rule(PathPattern.parse(key), rule) for key, rule in rules.items())


class QueueTableTests(SynchronousTestCase):
    """C{[queue:PATTERN]}."""

    def test_defaults(self) -> None:
        """Without rules KumoMTA's defaults hold."""
        self.assertEqual(QueueTable().resolve("example.com"), QueueSettings())
        self.assertEqual(QueueSettings().retry_interval, 1200.0)
        self.assertEqual(QueueSettings().max_age, 604800.0)
        self.assertEqual(QueueSettings().egress_pool, "unspecified")

    def test_key_by_key(self) -> None:
        """Each key comes from the most specific rule that has it."""
        table = queues(
            {
                "default": {"egress_pool": "all", "max_age": 1.0, "retry_interval": 1.0},
                "example.com": {"egress_pool": "example", "max_age": 2.0},
                "t@example.com": {"egress_pool": "tenant"},
            }
        )
        found = table.resolve("c:t@example.com")
        self.assertEqual(
            (found.egress_pool, found.max_age, found.retry_interval), ("tenant", 2.0, 1.0)
        )
        self.assertEqual(table.resolve("u@example.com").egress_pool, "example")
        self.assertEqual(table.resolve("t@example.net").egress_pool, "all")

    def test_order(self) -> None:
        """Domain before tenant before campaign; a word before a star; a longer star first."""
        patterns = [
            "*",
            "*:*@*",
            "c:*@*",
            "t@*",
            "*.com",
            "*.example.com",
            "t@*.example.com",
            "a.example.com",
            "*@a.example.com",
            "c:*@a.example.com",
            "t@a.example.com",
            "c*:t@a.example.com",
            "c:t@a.example.com",
        ]
        for position, pattern in enumerate(patterns):
            known = reversed(patterns[: position + 1])
            table = queues({one: {"egress_pool": one} for one in known})
            self.assertEqual(table.resolve("c:t@a.example.com").egress_pool, pattern)

    def test_equal_rules(self) -> None:
        """Of two rules that are equally specific the later one wins."""
        table = queues({"a*": {"egress_pool": "one"}, "*m": {"egress_pool": "two"}})
        self.assertEqual(table.resolve("a.com").egress_pool, "two")

    def test_star_matches_nothing_too(self) -> None:
        """A star also stands for a part that the queue does not have."""
        table = queues({"*@example.com": {"egress_pool": "one"}})
        self.assertEqual(table.resolve("example.com").egress_pool, "one")
        self.assertEqual(table.resolve("example.net").egress_pool, "unspecified")

    def test_international_domains(self) -> None:
        """Patterns are compared as A-labels in lower case."""
        self.assertEqual(str(QueuePattern.parse("T@Bücher.Example")), "T@xn--bcher-kva.example")
        self.assertEqual(str(QueuePattern.parse("*.Bücher.1")), "*.xn--bcher-kva.1")
        self.assertEqual(str(QueuePattern.parse("[10.0.0.1]")), "[10.0.0.1]")

    def test_shared(self) -> None:
        """Queues that the same rules match share one object."""
        table = queues({"*.com": {"egress_pool": "one"}})
        self.assertIs(table.resolve("a.com"), table.resolve("b.com"))
        self.assertIs(table.resolve("a.net"), table.default)

    def test_routing_domain(self) -> None:
        """The rules speak of the recipients' domain, not of the routing domain."""
        table = queues({"a.com": {"egress_pool": "one"}})
        self.assertEqual(table.resolve("t@a.com!b.com").egress_pool, "one")
        self.assertEqual(table.resolve("b.com!a.com").egress_pool, "unspecified")

    @settings(max_examples=100, deadline=None)
    @given(*[st.sampled_from(["", "a", "b.c"])] * 4)
    def test_queue_names(self, campaign: str, tenant: str, domain: str, routing: str) -> None:
        """A queue's name can be taken apart and put together."""
        name = QueueName(campaign, tenant, domain, routing)
        self.assertEqual(QueueName.parse(str(name)), name)


class RouteTests(SynchronousTestCase):
    """Smart hosts."""

    def test_spellings(self) -> None:
        """A name or an address, with or without a port."""
        for text, host, port in (
            ("[127.0.0.1]:2526", "127.0.0.1", 2526),
            ("127.0.0.1", "127.0.0.1", None),
            ("mx.Example.com:587", "mx.example.com", 587),
            ("[2001:DB8::1]:25", "2001:db8::1", 25),
            ("[IPv6:2001:db8::1]", "2001:db8::1", None),
        ):
            hop = SMART_HOST.parse(text)
            self.assertEqual(hop, SmartHost(host, port))
            self.assertEqual(SMART_HOST.parse(SMART_HOST.render(hop)), hop)

    def test_wrong(self) -> None:
        """What is no host is refused."""
        for text in ("", "2001:db8::1", "a b", "a:0", "a:65536", "[a.b]:25", "[]", "-a"):
            self.assertRaises(ValueError, SMART_HOST.parse, text)


class PathTableTests(SynchronousTestCase):
    """C{[path:PATTERN]}."""

    def test_defaults(self) -> None:
        """Without rules KumoMTA's defaults hold, timeouts among them."""
        path = PathTable().resolve("example.com", "site", "ip-1")
        self.assertEqual(path, PathSettings())
        self.assertEqual(
            (path.connection_limit, path.max_ready, path.enable_tls, path.smtp_port),
            (32, 1024, "Opportunistic", 25),
        )
        self.assertEqual(path.connect_timeout, 60.0)
        self.assertIn(ipaddress.ip_network("127.0.0.0/8"), path.prohibited_hosts)

    def test_order(self) -> None:
        """Default, site, domain; then the same again for the source."""
        patterns = [
            "default",
            "(a|b).mx.example",
            "example.com",
            "default via ip-1",
            "(a|b).mx.example via ip-1",
            "example.com via ip-1",
        ]
        for position, pattern in enumerate(patterns):
            table = paths(
                {
                    one: {"connection_limit": number + 1}
                    for number, one in reversed(list(enumerate(patterns[: position + 1])))
                }
            )
            found = table.resolve("example.com", "(a|b).mx.example", "ip-1")
            self.assertEqual(found.connection_limit, position + 1, pattern)

    def test_key_by_key(self) -> None:
        """Keys of all rules that match are merged."""
        table = paths(
            {
                "default": {"smtp_port": 26},
                "example.com": {"max_ready": 5},
                "default via Ip-1": {"connection_limit": 2},
            }
        )
        path = table.resolve("example.com", "site", "Ip-1")
        self.assertEqual((path.smtp_port, path.max_ready, path.connection_limit), (26, 5, 2))
        path = table.resolve("example.com", "site", "ip-1")
        self.assertEqual((path.smtp_port, path.max_ready, path.connection_limit), (26, 5, 32))

    def test_patterns(self) -> None:
        """Domains are normalised; sites and sources are taken as they are."""
        self.assertEqual(
            str(PathPattern.parse("Bücher.example via Ip-1")), "xn--bcher-kva.example via Ip-1"
        )
        site = "(alt1|alt2)?.gmail-smtp-in.l.google.com"
        self.assertEqual(str(PathPattern.parse(site)), site)
        for text in ("", "a b", "a.b via ", "(a b)", " via x", "*.a.b"):
            self.assertRaises(ValueError, PathPattern.parse, text)

    def test_equality(self) -> None:
        """Tables are equal if they mean the same: a default spelled out is the default."""
        self.assertEqual(paths({"default": {"connection_limit": 32}}), PathTable())
        self.assertNotEqual(paths({"default": {"connection_limit": 3}}), PathTable())
        self.assertNotEqual(paths({"a.b": {"connection_limit": 32}}), PathTable())
        self.assertNotEqual(PathTable(), QueueTable())

    def test_shared(self) -> None:
        """The same rules give the same object, also after very many combinations."""
        table = paths({"default via a": {"max_ready": 1}})
        self.assertIs(table.resolve("a.b", "s", "a"), table.resolve("c.d", "t", "a"))


class MisspeltDefaultTests(SynchronousTestCase):
    """A pattern that is nearly C{default}."""

    def test_refused(self) -> None:
        """It would be a domain that no mail is for, and its settings would hold for nothing."""
        for word in ("defualt", "deafult", "Default s", "defaults"):
            for parse in (QueuePattern.parse, PathPattern.parse):
                self.assertRaises(ValueError, parse, word)

    def test_domains(self) -> None:
        """Domains that merely contain the word are domains."""
        self.assertEqual(PathPattern.parse("default.example").target, "default.example")
        self.assertEqual(QueuePattern.parse("my-default.example").domain, "my-default.example")
