"""Where a domain's mail goes, decided from records in memory."""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.dns import DNSError, DNSSettings, MailExchangers, Resolver, site_name
from kumotwist.dns.answers import Answer, Question
from kumotwist.dns.exchangers import in_order
from kumotwist.dns.settings import parse_hosts
from kumotwist.interfaces import IResolver
from kumotwist.testing.dns import FakeAsker, FakeResolver


class MXTests(SynchronousTestCase):
    """RFC 5321, 5.1 and RFC 7505."""

    def lookup(self, domain: str, **records: list[str]) -> MailExchangers:
        """Look a domain up among records; C{__} in a name stands for a dot."""
        resolver = FakeResolver({name.replace("__", "."): r for name, r in records.items()})
        return self.successResultOf(resolver.lookup_mx(domain))

    def error(self, domain: str, **records: list[str]) -> DNSError:
        """The error of a look-up."""
        resolver = FakeResolver({name.replace("__", "."): r for name, r in records.items()})
        failure = self.failureResultOf(resolver.lookup_mx(domain), DNSError)
        assert isinstance(failure.value, DNSError)
        return failure.value

    def test_interfaces(self) -> None:
        """The resolver and its fake are resolvers."""
        verifyObject(IResolver, Resolver(None, DNSSettings(), asker=FakeAsker({})))
        verifyObject(IResolver, FakeResolver({}))

    def test_order(self) -> None:
        """Hosts come by preference, in lower case."""
        found = self.lookup(
            "Example.COM.", example__com=["MX 20 MX2.example.com", "MX 10 mx1.example.com"]
        )
        self.assertEqual(
            found,
            MailExchangers(
                "example.com",
                ((10, "mx1.example.com"), (20, "mx2.example.com")),
                "(mx1|mx2).example.com",
            ),
        )

    def test_shuffle(self) -> None:
        """Hosts of one preference come in any order, and the site's name is the same."""
        records = {"example.com": [f"MX 10 mx{n}.example.com" for n in range(5)] + ["MX 5 a.b"]}
        asker = FakeAsker(records)
        orders = set()
        sites = set()
        for seed in range(20):
            resolver = Resolver(None, DNSSettings(), asker=asker, chance=random.Random(seed))
            found = self.successResultOf(resolver.lookup_mx("example.com"))
            self.assertEqual(found.hosts[0], (5, "a.b"))
            orders.add(found.hosts)
            sites.add(found.site_name)
        self.assertGreater(len(orders), 5)
        self.assertEqual(len(sites), 1)

    def test_duplicates(self) -> None:
        """A host that is named twice is tried once for each preference."""
        found = self.lookup("e.com", e__com=["MX 10 mx.e.com", "MX 10 MX.e.com", "MX 20 mx.e.com"])
        self.assertEqual(found.hosts, ((10, "mx.e.com"), (20, "mx.e.com")))
        self.assertEqual(found.site_name, "mx.e.com")

    def test_null_mx(self) -> None:
        """A domain can say that it takes no mail."""
        found = self.lookup("e.com", e__com=["MX 0 ."])
        self.assertTrue(found.null_mx)
        self.assertEqual(found.hosts, ())

    def test_null_mx_beside_hosts(self) -> None:
        """A null MX beside hosts is a mistake: the hosts count."""
        found = self.lookup("e.com", e__com=["MX 0 .", "MX 10 mx.e.com"])
        self.assertFalse(found.null_mx)
        self.assertEqual(found.hosts, ((10, "mx.e.com"),))

    def test_implicit_mx(self) -> None:
        """A domain with addresses and no MX is its own host."""
        found = self.lookup("e.com", e__com=["AAAA 2001:db8::1"])
        self.assertEqual(found, MailExchangers("e.com", ((0, "e.com"),), "e.com", implicit=True))

    def test_alias(self) -> None:
        """A domain that is an alias has the exchangers of its target."""
        found = self.lookup("e.com", e__com=["CNAME f.com"], f__com=["MX 10 mx.f.com"])
        self.assertEqual(found.hosts, ((10, "mx.f.com"),))

    def test_no_domain(self) -> None:
        """A domain that does not exist is a permanent error."""
        error = self.error("e.com")
        self.assertTrue(error.permanent)
        self.assertEqual(str(error), "the domain e.com does not exist")
        self.assertEqual(error.domain, "e.com")

    def test_domain_without_anything(self) -> None:
        """So is one that has neither exchangers nor addresses."""
        error = self.error("e.com", e__com=["TXT hello"])
        self.assertTrue(error.permanent)
        self.assertIn("neither", error.text)

    def test_name_server_failure(self) -> None:
        """A failure of name servers is temporary, for the exchangers and for the addresses."""
        resolver = FakeResolver({}, fail={"e.com": "SERVFAIL"})
        failure = self.failureResultOf(resolver.lookup_mx("e.com"), DNSError)
        self.assertFalse(failure.value.permanent)

    def test_impossible_domains(self) -> None:
        """What cannot be a domain is never asked for."""
        resolver = FakeResolver({})
        for domain in ["", ".", "a..b", "a b", "x" * 64, "a." * 130, "é.com", "a\\.b", "a/b", "\n"]:
            failure = self.failureResultOf(resolver.lookup_mx(domain), DNSError)
            self.assertTrue(failure.value.permanent, domain)
            self.assertTrue(failure.value.text.isascii() and failure.value.text.isprintable())
        self.assertEqual(resolver.questions, [])

    def test_unusable_exchangers(self) -> None:
        """A host name that nobody can have is left out; none left is a temporary error."""
        found = self.lookup("e.com", e__com=["MX 10 a\\032b.e.com", "MX 20 mx.e.com"])
        self.assertEqual(found.hosts, ((20, "mx.e.com"),))
        self.assertFalse(self.error("e.com", e__com=["MX 10 a\\032b.e.com"]).permanent)

    def test_literals(self) -> None:
        """A domain literal is its own host; nobody is asked."""
        for domain, host in [
            ("[192.0.2.1]", "192.0.2.1"),
            ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ]:
            found = self.lookup(domain)
            self.assertEqual(found.hosts, ((0, host),))
            self.assertEqual(found.site_name, host)

    def test_wrong_literals(self) -> None:
        """A literal that is no address is a permanent error."""
        for domain in ["[]", "[1.2.3]", "[IPv6:zz]", "[1.2.3.4]:25", "[mx.example.com]"]:
            self.assertTrue(self.error(domain).permanent, domain)

    def test_configured_hosts(self) -> None:
        """A domain among the configured hosts is its own exchanger; nobody is asked."""
        settings = DNSSettings(hosts=parse_hosts("127.0.0.1 e.com"))
        asker = FakeAsker({})
        resolver = Resolver(None, settings, asker=asker)
        found = self.successResultOf(resolver.lookup_mx("E.com"))
        self.assertEqual(found.hosts, ((0, "e.com"),))
        self.assertEqual(
            self.successResultOf(resolver.lookup_addresses("e.com")), (ip_address("127.0.0.1"),)
        )
        self.assertEqual(asker.questions, [])


class AddressTests(SynchronousTestCase):
    """A and AAAA."""

    def lookup(self, name: str, records: Any, fail: Any = None) -> Any:
        """The addresses of a host among records."""
        return self.successResultOf(FakeResolver(records, fail).lookup_addresses(name))

    def test_both_families(self) -> None:
        """IPv4 and IPv6 addresses are found together, IPv4 first."""
        found = self.lookup("MX.e.com", {"mx.e.com": ["AAAA ::2", "A 192.0.2.1", "A 192.0.2.2"]})
        self.assertEqual({str(address) for address in found[:2]}, {"192.0.2.1", "192.0.2.2"})
        self.assertEqual(found[2], ip_address("::2"))

    def test_none(self) -> None:
        """A host without addresses, or none at all, has no addresses: that is not an error."""
        self.assertEqual(self.lookup("mx.e.com", {"mx.e.com": []}), ())
        self.assertEqual(self.lookup("mx.e.com", {}), ())

    def test_address(self) -> None:
        """An address is its own."""
        self.assertEqual(self.lookup("192.0.2.1", {}), (ip_address("192.0.2.1"),))
        self.assertEqual(self.lookup("2001:db8::1", {}), (ip_address("2001:db8::1"),))

    def test_bounded(self) -> None:
        """A host with hundreds of addresses is tried at some of them."""
        records = {"mx.e.com": [f"A 192.0.2.{n}" for n in range(200)]}
        self.assertEqual(len(self.lookup("mx.e.com", records)), 32)

    def test_one_family_fails(self) -> None:
        """An address is used although the look-up of the other family failed; without any
        the failure counts."""
        asker = _SlowAsker()
        resolver = Resolver(None, DNSSettings(), asker=asker)
        for v4, fails in [(("A 192.0.2.1",), False), ((), True)]:
            result = resolver.lookup_addresses("mx.e.com")
            a, aaaa = asker.waiting[-2:]
            aaaa.errback(DNSError("mx.e.com", "SERVFAIL"))
            values = self.successResultOf(
                FakeAsker({"mx.e.com": list(v4)}).ask(asker.questions[-2])
            )
            a.callback(values)
            if fails:
                self.failureResultOf(result, DNSError)
            else:
                self.assertEqual(self.successResultOf(result), (ip_address("192.0.2.1"),))

    def test_cancel(self) -> None:
        """Cancelling ends both look-ups."""
        asker = _SlowAsker()
        result = Resolver(None, DNSSettings(), asker=asker).lookup_addresses("mx.e.com")
        result.cancel()
        self.assertEqual(asker.cancelled, 2)
        result.addErrback(lambda failure: failure.trap(CancelledError, Exception))


class _SlowAsker:
    """Keeps everybody waiting."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Answer]] = []
        self.questions: list[Question] = []
        self.cancelled = 0

    def ask(self, question: Question, whose: str = "") -> Deferred[Answer]:
        """Wait."""
        self.questions.append(question)
        self.waiting.append(Deferred(self._cancel))
        return self.waiting[-1]

    def _cancel(self, waiter: Deferred[Answer]) -> None:
        self.cancelled += 1


class SiteNameTests(SynchronousTestCase):
    """KumoMTA's names of sites."""

    def test_names(self) -> None:
        """Labels that differ become alternatives, labels that are missing become optional."""
        for hosts, name in [
            (["mx.example.com"], "mx.example.com"),
            (["mta5.AM0.net.", "mta6.am0.net"], "(mta5|mta6).am0.net"),
            (
                ["in.l.example.com", "alt1.in.l.example.com", "alt2.in.l.example.com"],
                "(alt1|alt2)?.in.l.example.com",
            ),
            (
                ["a.mail.one.com", "b.mail.two.example.net", "b.mail.two.example.net"],
                "b?.(a|mail).(mail|two).(one|example).(com|net)",
            ),
            (["example.com", "mail.example.com"], "mail?.example.com"),
            ([], ""),
        ]:
            self.assertEqual(site_name(hosts), name)

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdef")), max_size=8))
    def test_order_is_stable(self, hosts: list[tuple[int, str]]) -> None:
        """Sorting keeps every host, and preferences rise."""
        found = in_order(hosts, random.Random(0))
        self.assertEqual(set(found), set(hosts))
        self.assertEqual([host[0] for host in found], sorted(host[0] for host in found))
