"""The settings of name resolution, and those of the system."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSSettings, system_nameservers
from kumotwist.dns.settings import parse_hosts
from kumotwist.settings import declared
from kumotwist.settings.types import HostPort


class NameserverTests(SynchronousTestCase):
    """C{nameservers} and C{/etc/resolv.conf}."""

    def parse(self, text: str) -> object:
        """Read the setting C{nameservers}."""
        return declared(DNSSettings)["nameservers"][1].kind.parse(text)

    def test_addresses(self) -> None:
        """A name server is an address with or without a port."""
        self.assertEqual(
            self.parse("192.0.2.1, 192.0.2.2:5353, 2001:db8::1, [::1]:5353"),
            (
                HostPort("192.0.2.1", 53),
                HostPort("192.0.2.2", 5353),
                HostPort("2001:db8::1", 53),
                HostPort("::1", 5353),
            ),
        )

    def test_names_are_refused(self) -> None:
        """A name server cannot be given by name: who would look it up?"""
        error = self.assertRaises(ValueError, self.parse, "dns.example.com")
        self.assertIn("given by its address", str(error))

    def test_round_trip(self) -> None:
        """Every setting can be written and read again."""
        settings = DNSSettings(
            nameservers=(HostPort("::1", 53),), hosts=parse_hosts("192.0.2.1 a b, ::1 a")
        )
        for attribute, facts in declared(DNSSettings).values():
            value = getattr(settings, attribute.name)
            self.assertEqual(facts.kind.parse(facts.kind.render(value)), value)

    def test_resolv_conf(self) -> None:
        """The system's first three name servers are used; odd lines are passed over."""
        path = Path(self.mktemp())
        path.write_text(
            "# a comment\nsearch example.com\nnameserver\nnameserver 192.0.2.1\n"
            "nameserver nonsense\n  nameserver 2001:db8::1 \nnameserver 192.0.2.3\n"
            "nameserver 192.0.2.4\n"
        )
        self.assertEqual(
            [str(server) for server in system_nameservers(path)],
            ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"],
        )

    def test_no_resolv_conf(self) -> None:
        """Without a file the local host is asked, as the C library does it."""
        self.assertEqual(system_nameservers(self.mktemp()), (HostPort("127.0.0.1", 53),))


class HostsTests(SynchronousTestCase):
    """C{hosts}."""

    def test_entries(self) -> None:
        """Entries are lines or separated by commas; a name may have several addresses."""
        self.assertEqual(
            parse_hosts("192.0.2.1 MX.example.com. other\n ::1 mx.example.com, 192.0.2.2 third"),
            {
                "mx.example.com": (ip_address("192.0.2.1"), ip_address("::1")),
                "other": (ip_address("192.0.2.1"),),
                "third": (ip_address("192.0.2.2"),),
            },
        )

    def test_mistakes(self) -> None:
        """Each mistake is named."""
        for text, words in [
            ("mx.example.com 192.0.2.1", "is not ADDR NAME"),
            ("192.0.2.1", "the name is missing"),
            ("192.0.2.1 a b/c", "'b/c' is not a host name"),
        ]:
            error = self.assertRaises(ValueError, parse_hosts, text)
            self.assertIn(words, str(error))
