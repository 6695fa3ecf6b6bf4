"""Egress sources: exactly one way out, and everything that belongs to it."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.source_settings import (
    ADDRESSES,
    ENDPOINT,
    MOST_PROXIES,
    PROXY_SERVERS,
    SourceSettings,
)
from kumotwist.egress.suspension import SUSPENSION, Suspension
from kumotwist.settings.types import HostPort

V4 = (ipaddress.ip_address("10.0.0.1"),)
V6 = (ipaddress.ip_address("2001:db8::1"),)
PROXY = (HostPort("10.0.5.10", 5000),)
PROXY_V6 = (HostPort("2001:db8::5", 5000),)


def problem_keys(**values: Any) -> list[str]:
    """The keys that the problems of a source point at."""
    return [problem.keys[0] for problem in SourceSettings(name="a", **values).problems()]


class GoodSourceTests(SynchronousTestCase):
    """Sources that nothing is wrong with."""

    def test_each_way_out(self) -> None:
        """The default route, a local address, each kind of proxy, an endpoint."""
        good: list[dict[str, Any]] = [
            {},
            {"source_address": V4},
            {"socks5_proxy_server": PROXY},
            {"socks5_proxy_server": PROXY, "socks5_proxy_source_address": V4},
            {"ha_proxy_server": PROXY, "ha_proxy_source_address": V4},
            {"socks5_proxy_server": PROXY, "source_address": V4},
            {
                "socks5_proxy_server": PROXY,
                "socks5_proxy_username": "u",
                "socks5_proxy_password": "p",
            },
            {"endpoint": "tcp:{host}:{port}"},
        ]
        for values in good:
            self.assertEqual(problem_keys(**values), [], values)

    def test_one_proxy_for_both_families(self) -> None:
        """A proxy that is reached by IPv4 may send from IPv6."""
        self.assertEqual(
            problem_keys(socks5_proxy_server=PROXY, socks5_proxy_source_address=V6), []
        )
        self.assertEqual(problem_keys(ha_proxy_server=PROXY_V6, ha_proxy_source_address=V4), [])


class BadSourceTests(SynchronousTestCase):
    """Sources that cannot work."""

    def test_two_ways(self) -> None:
        """Two ways out are one too many."""
        self.assertEqual(
            problem_keys(
                socks5_proxy_server=PROXY, ha_proxy_server=PROXY, ha_proxy_source_address=V4
            ),
            ["ha_proxy_server"],
        )
        self.assertEqual(problem_keys(socks5_proxy_server=PROXY, endpoint="x"), ["endpoint"])

    def test_halves(self) -> None:
        """Half of a proxy's configuration would silently go out directly; it is refused."""
        for values, key in (
            ({"socks5_proxy_source_address": V4}, "socks5_proxy_source_address"),
            ({"ha_proxy_source_address": V4}, "ha_proxy_source_address"),
            ({"ha_proxy_server": PROXY}, "ha_proxy_server"),
            (
                {"socks5_proxy_server": PROXY, "socks5_proxy_password": "p"},
                "socks5_proxy_password",
            ),
            (
                {"socks5_proxy_server": PROXY, "socks5_proxy_username": "p"},
                "socks5_proxy_username",
            ),
        ):
            arguments: dict[str, Any] = dict(values)
            self.assertEqual(problem_keys(**arguments), [key])

    def test_login_without_server(self) -> None:
        """A login without a proxy is two keys that nothing uses."""
        self.assertEqual(
            problem_keys(socks5_proxy_username="u", socks5_proxy_password="p"),
            ["socks5_proxy_username", "socks5_proxy_password"],
        )

    def test_too_long_login(self) -> None:
        """SOCKS5 has one octet for each length."""
        self.assertEqual(
            problem_keys(
                socks5_proxy_server=PROXY,
                socks5_proxy_username="ü" * 128,
                socks5_proxy_password="p" * 256,
            ),
            ["socks5_proxy_username", "socks5_proxy_password"],
        )

    def test_families(self) -> None:
        """A local IPv6 address does not reach a proxy at an IPv4 address."""
        self.assertEqual(
            problem_keys(socks5_proxy_server=PROXY, source_address=V6), ["source_address"]
        )
        self.assertEqual(
            problem_keys(socks5_proxy_server=(HostPort("proxy.example", 1),), source_address=V6), []
        )

    def test_each_proxy_is_checked(self) -> None:
        """Every proxy of a list must be reachable from a local address."""
        both = (*PROXY, *PROXY_V6)
        self.assertEqual(
            problem_keys(socks5_proxy_server=both, source_address=V4), ["source_address"]
        )
        self.assertEqual(problem_keys(socks5_proxy_server=both, source_address=V4 + V6), [])
        self.assertEqual(
            problem_keys(socks5_proxy_server=("unix:/a", *PROXY, "unix:/b"), source_address=V4),
            ["source_address", "source_address"],
        )

    def test_two_local_addresses_and_a_name(self) -> None:
        """Which local address leads to a name cannot be known before it is resolved."""
        named = (HostPort("proxy.example", 1),)
        self.assertEqual(
            problem_keys(socks5_proxy_server=named, source_address=V4 + V6), ["source_address"]
        )

    def test_no_address_of_a_host(self) -> None:
        """Nothing is sent from 0.0.0.0, :: or a multicast address."""
        for text in ("0.0.0.0", "::", "224.0.0.1"):
            self.assertEqual(
                problem_keys(source_address=(ipaddress.ip_address(text),)), ["source_address"]
            )

    def test_source_address_without_effect(self) -> None:
        """An endpoint string brings its own local address."""
        self.assertEqual(problem_keys(endpoint="x", source_address=V4), ["source_address"])
        self.assertEqual(
            problem_keys(socks5_proxy_server=("unix:/run/x",), source_address=V4),
            ["source_address"],
        )


class ProxyServerTests(SynchronousTestCase):
    """Where a proxy is."""

    def test_spellings(self) -> None:
        """A host and a port, or an endpoint string."""
        parse = PROXY_SERVERS.parse
        self.assertEqual(parse("10.0.5.10:5000"), PROXY)
        self.assertEqual(parse("[2001:db8::5]:5000"), PROXY_V6)
        self.assertEqual(parse("localhost:5000"), (HostPort("localhost", 5000),))
        self.assertEqual(parse("unix:/run/x"), ("unix:/run/x",))
        self.assertEqual(parse("tcp:proxy.example.com:1080"), ("tcp:proxy.example.com:1080",))
        for text in (
            "",
            " , ",
            "10.0.5.10",
            "10.0.5.10:0",
            "a b:1",
            "nonsense:a:b",
            "tcp:{host}:1",
        ):
            self.assertRaises(ValueError, parse, text)

    def test_lists(self) -> None:
        """Several proxies are separated by commas or lines; a comma in a string is escaped."""
        text = "10.0.5.10:5000,\n[2001:db8::5]:5000, unix:/run/a\\,b"
        servers = PROXY_SERVERS.parse(text)
        self.assertEqual(servers, (*PROXY, *PROXY_V6, "unix:/run/a\\,b"))
        self.assertEqual(PROXY_SERVERS.parse(PROXY_SERVERS.render(servers)), servers)

    def test_every_item_is_checked(self) -> None:
        """Each item that is wrong is told, with its place in the list."""
        error = self.assertRaises(ValueError, PROXY_SERVERS.parse, "a:1, b, c:2, d:99999, a:1")
        for words in ("proxy 2 of 5: 'b' is not HOST:PORT", "proxy 4 of 5", "proxy 5 of 5 is the"):
            self.assertIn(words, str(error))
        many = ", ".join(f"10.0.0.{number}:1" for number in range(MOST_PROXIES + 1))
        self.assertRaises(ValueError, PROXY_SERVERS.parse, many)

    def test_a_password_with_a_comma(self) -> None:
        """What stands behind a comma that should have been escaped is not told to anybody."""
        text = r"socks5:a:1:server=b\:1:username=u:password=not,geheim"
        error = self.assertRaises(ValueError, PROXY_SERVERS.parse, text)
        self.assertNotIn("geheim", str(error))
        self.assertIn("proxy 2 of 2: it is not HOST:PORT (a comma", str(error))
        escaped = text.replace("not,", "not\\,")
        self.assertEqual(PROXY_SERVERS.parse(escaped), (escaped,))

    def test_endpoint_leads_to_the_destination(self) -> None:
        """An endpoint that always leads to the same place would deliver mail to the wrong host."""
        self.assertEqual(ENDPOINT.parse(" tcp:{host}:{port} "), "tcp:{host}:{port}")
        self.assertRaises(ValueError, ENDPOINT.parse, "tcp:192.0.2.1:25")

    def test_passwords_are_masked(self) -> None:
        """Passwords in endpoint strings are not shown, also not those of nested proxies."""
        nested = (
            r"socks5:{host}:{port}:server=socks5\:a\:1\:password=geheim\\\:x:password=geheim:t=1"
        )
        self.assertEqual(
            ENDPOINT.render(nested),
            r"socks5:{host}:{port}:server=socks5\:a\:1\:password=********:password=********:t=1",
        )
        self.assertEqual(ENDPOINT.reveal(nested), nested)
        shown = repr(SourceSettings(name="a", endpoint=nested))
        self.assertNotIn("geheim", shown)


class AddressesTests(SynchronousTestCase):
    """The addresses of a source."""

    def test_one_of_each_family(self) -> None:
        """An address, or one of IPv4 and one of IPv6."""
        self.assertEqual(ADDRESSES.parse("10.0.0.1"), V4)
        self.assertEqual(ADDRESSES.parse("10.0.0.1, 2001:db8::1"), V4 + V6)
        self.assertEqual(ADDRESSES.render(V4 + V6), "10.0.0.1, 2001:db8::1")
        for text in ("", "10.0.0.1, 10.0.0.2", "10.0.0.1, x"):
            self.assertRaises(ValueError, ADDRESSES.parse, text)


class SuspensionTypeTests(SynchronousTestCase):
    """C{suspend_when_proxy_unhealthy} as it is written."""

    def test_spellings(self) -> None:
        """A duration, or a trigger and a duration."""
        for text, value in {
            "10m": Suspension(600.0),
            "3/5m for 10m": Suspension(600.0, 3, 300.0),
            "10/hour for 1h30m": Suspension(5400.0, 10, 3600.0),
            "1/5m for 10m": Suspension(600.0),
        }.items():
            self.assertEqual(SUSPENSION.parse(text), value)
            self.assertEqual(SUSPENSION.parse(SUSPENSION.render(value)), value)

    def test_nonsense(self) -> None:
        """What is wrong is told together with what would be right."""
        for text in ("", "soon", "0", "3/5m", "3/5m for", "x for 10m", "3/5m,max_burst=9 for 1m",
                     "local:3/5m for 10m", "5000/1h for 10m"):  # fmt: skip
            self.assertRaises(ValueError, SUSPENSION.parse, text)
        error = self.assertRaises(ValueError, SUSPENSION.parse, "3/5m")
        self.assertIn("3/5m for 10m", str(error))
