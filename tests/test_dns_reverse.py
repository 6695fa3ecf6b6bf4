"""What others see of an address: its names, and what blocklists say."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSError, DNSSettings, Resolver
from kumotwist.dns.settings import parse_hosts
from kumotwist.testing.dns import FakeAsker, FakeResolver

V4 = ip_address("192.0.2.10")
V6 = ip_address("2001:db8::1")
V4_NAME = "10.2.0.192.in-addr.arpa"
V6_NAME = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"


class PointerTests(SynchronousTestCase):
    """RFC 1035, 3.5 and RFC 3596, 2.5."""

    def test_names(self) -> None:
        """The names of an address of either family come in lower case, sorted, without dots."""
        resolver = FakeResolver(
            {V4_NAME: ["PTR MX2.example.com", "PTR mx1.example.com."], V6_NAME: ["PTR six.example"]}
        )
        self.assertEqual(
            self.successResultOf(resolver.lookup_pointer(V4)),
            ("mx1.example.com", "mx2.example.com"),
        )
        self.assertEqual(self.successResultOf(resolver.lookup_pointer(V6)), ("six.example",))

    def test_alias(self) -> None:
        """A PTR may stand behind an alias, as in delegations of less than 256 addresses (RFC
        2317)."""
        resolver = FakeResolver(
            {V4_NAME: ["CNAME 10.0-127.2.0.192.in-addr.arpa"], "10.0-127.2.0.192.in-addr.arpa": []}
        )
        self.assertEqual(self.successResultOf(resolver.lookup_pointer(V4)), ())

    def test_none(self) -> None:
        """An address without names has none; that is no error."""
        self.assertEqual(self.successResultOf(FakeResolver({}).lookup_pointer(V4)), ())

    def test_failure(self) -> None:
        """That nobody answers is an error, not an answer."""
        resolver = FakeResolver({}, fail={V4_NAME: "timed out"})
        failure = self.failureResultOf(resolver.lookup_pointer(V4), DNSError)
        self.assertFalse(failure.value.permanent)

    def test_hostile_names(self) -> None:
        """Names that no host can have, and more names than anybody needs, are left out."""
        resolver = FakeResolver({V4_NAME: ["PTR a\\032b.example", "PTR a\\010b", "PTR ."]})
        self.assertEqual(self.successResultOf(resolver.lookup_pointer(V4)), ())
        resolver = FakeResolver({V4_NAME: [f"PTR n{number}.example" for number in range(99)]})
        self.assertEqual(len(self.successResultOf(resolver.lookup_pointer(V4))), 10)

    def test_known_hosts_do_not_count(self) -> None:
        """The names that the configuration gives to addresses are not what others see."""
        settings = DNSSettings(hosts=parse_hosts("192.0.2.10 mx.example"))
        resolver = Resolver(None, settings, asker=FakeAsker({}))
        self.assertEqual(self.successResultOf(resolver.lookup_pointer(V4)), ())


class ListingTests(SynchronousTestCase):
    """RFC 5782, 2.1 and 2.4."""

    def test_question(self) -> None:
        """The octets, or the nibbles, are asked for in reverse order under the list's zone."""
        resolver = FakeResolver({})
        for address in (V4, V6, ip_address("::ffff:7f00:2")):
            self.successResultOf(resolver.lookup_listing(address, "Bl.example."))
        self.assertEqual(
            resolver.questions,
            [
                "A of 10.2.0.192.bl.example",
                f"A of 1{'.0' * 23}.8.b.d.0.1.0.0.2.bl.example",
                f"A of 2.0.0.0.0.0.f.7.f.f.f.f{'.0' * 20}.bl.example",
            ],
        )

    def test_codes(self) -> None:
        """The answer's addresses come sorted, once each."""
        resolver = FakeResolver(
            {"10.2.0.192.bl.example": ["A 127.0.0.10", "A 127.0.0.4", "A 127.0.0.10"]}
        )
        self.assertEqual(
            self.successResultOf(resolver.lookup_listing(V4, "bl.example")),
            (IPv4Address("127.0.0.4"), IPv4Address("127.0.0.10")),
        )

    def test_not_listed(self) -> None:
        """No such name means not listed."""
        self.assertEqual(
            self.successResultOf(FakeResolver({}).lookup_listing(V4, "bl.example")), ()
        )

    def test_failures(self) -> None:
        """A list that does not answer, or cannot be one, is an error."""
        resolver = FakeResolver({}, fail={"10.2.0.192.bl.example": "timed out"})
        self.failureResultOf(resolver.lookup_listing(V4, "bl.example"), DNSError)
        self.failureResultOf(resolver.lookup_listing(V4, "no such list"), DNSError)
        self.failureResultOf(resolver.lookup_listing(V6, "x." * 100 + "example"), DNSError)
