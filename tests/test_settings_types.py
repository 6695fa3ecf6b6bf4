"""The types of settings: what is written can be read again, what is wrong is explained."""

from __future__ import annotations

import ipaddress
import os
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.settings import declared, setting
from kumotwist.settings.types import (
    BOOLEAN,
    DOMAIN,
    DURATION,
    HOST_NAME,
    HOST_PORT,
    IP_ADDRESS,
    NETWORKS,
    PORTS,
    RATE,
    READABLE_FILE,
    SECRET,
    SERVER_ENDPOINT,
    SIZE,
    TEXT,
    HostPort,
    PortRange,
    Rate,
    Secret,
    SettingType,
    choice,
    duration,
    integer,
    list_of,
    split_list,
)

_LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_DOMAIN = st.builds(lambda labels: ".".join([*labels, "example"]), st.lists(_LABEL, max_size=3))
_PORT = st.integers(1, 65535)
_ADDRESS = st.ip_addresses()
_NETWORK = st.builds(
    lambda address, bits: ipaddress.ip_network(
        (address, min(bits, address.max_prefixlen)), strict=False
    ),
    _ADDRESS,
    st.integers(0, 128),
)
_DURATION = st.one_of(st.integers(0, 10**9).map(float), st.floats(0, 10**9, allow_subnormal=False))
_RANGE = st.tuples(_PORT, _PORT).map(lambda ends: PortRange(min(ends), max(ends)))

#: Each type with values that it can have.
VALUES: list[tuple[SettingType[Any], st.SearchStrategy[Any]]] = [
    (BOOLEAN, st.booleans()),
    (integer(), st.integers(0, 10**12)),
    (DURATION, _DURATION),
    (duration(0.5), st.floats(0.5, 10**6)),
    (SIZE, st.integers(0, 10**13)),
    (
        RATE,
        st.builds(
            Rate,
            st.integers(1, 10**6),
            st.floats(0.001, 10**6),
            st.integers(1, 10**6),
            st.booleans(),
        ),
    ),
    (TEXT, st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)),
    (choice("Deny", "Allow", "Fix"), st.sampled_from(["Deny", "Allow", "Fix"])),
    (DOMAIN, _DOMAIN),
    (HOST_NAME, _DOMAIN),
    (IP_ADDRESS, _ADDRESS),
    (NETWORKS, st.lists(_NETWORK, max_size=4).map(tuple)),
    (HOST_PORT, st.builds(HostPort, st.one_of(_DOMAIN, _ADDRESS.map(str)), _PORT)),
    (PORTS, st.lists(_RANGE, max_size=4).map(tuple)),
    (list_of(DOMAIN), st.lists(_DOMAIN, max_size=4).map(tuple)),
    (
        SERVER_ENDPOINT,
        st.builds(lambda address, port: f"{address}:{port}", st.just("127.0.0.1"), _PORT).map(
            SERVER_ENDPOINT.parse
        ),
    ),
]


class RoundTripTests(SynchronousTestCase):
    """C{parse(render(value)) == value}."""

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_round_trip(self, data: st.DataObject) -> None:
        """A value that is written is the value that is read."""
        kind, values = data.draw(st.sampled_from(VALUES))
        value = data.draw(values)
        self.assertEqual(kind.parse(kind.render(value)), value, kind.name)

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from([kind for kind, _ in VALUES]), st.text(max_size=30))
    def test_only_value_errors(self, kind: SettingType[Any], text: str) -> None:
        """Any text is either a value, which can be written, or a ValueError with words."""
        try:
            value = kind.parse(text)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertEqual(kind.parse(kind.render(value)), value)


class NumberTests(SynchronousTestCase):
    """Counts, durations, sizes and rates."""

    def test_durations(self) -> None:
        """Durations are spelled with units, or are seconds."""
        for text, seconds in {
            "30s": 30.0,
            "20 minutes": 1200.0,
            "1h30m": 5400.0,
            "7d": 604800.0,
            "45": 45.0,
            "1.5s": 1.5,
            "250ms": 0.25,
        }.items():
            self.assertEqual(DURATION.parse(text), seconds)

    def test_rendered_duration(self) -> None:
        """They are written in the largest unit that fits."""
        self.assertEqual(
            [DURATION.render(value) for value in (0.0, 90.0, 120.0, 7200.0, 604800.0, 0.25)],
            ["0s", "90s", "2m", "2h", "7d", "0.25s"],
        )

    def test_bounds(self) -> None:
        """What is too short, too long or too many is refused with the bounds."""
        for kind, text, problem in (
            (duration(1), "0", "'0' is too short (at least 1s)"),
            (DURATION, "9" * 60, f"'{'9' * 40}' is too long (at most 36500d)"),
            (integer(1, 65535), "0", "0 is out of range (1 to 65535)"),
            (integer(1), "0", "0 is out of range (at least 1)"),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, kind.parse, text)), problem)

    def test_rates(self) -> None:
        """Rates are spelled as in KumoMTA."""
        self.assertEqual(RATE.parse("100/s"), Rate(100, 1.0, 100))
        self.assertEqual(RATE.parse("1,000/hour"), Rate(1000, 3600.0, 1000))
        self.assertEqual(RATE.parse("local:10/5m,max_burst=3"), Rate(10, 300.0, 3, True))
        for text in ("0/s", "10/0s", "10/s,max_burst=0", "10", "10/fortnight"):
            self.assertRaises(ValueError, RATE.parse, text)

    def test_sizes(self) -> None:
        """Sizes know decimal and binary units."""
        self.assertEqual([SIZE.parse(text) for text in ("10MB", "64KiB", "7")], [10**7, 65536, 7])


class WordTests(SynchronousTestCase):
    """Texts, names and addresses."""

    def test_text_has_one_line(self) -> None:
        """A text cannot smuggle lines or control characters into a protocol."""
        for text in ("", "a\nb", "a\x07b"):
            self.assertRaises(ValueError, TEXT.parse, text)

    def test_domains(self) -> None:
        """Domains become lower-case A-labels."""
        self.assertEqual(DOMAIN.parse("Bücher.Example."), "xn--bcher-kva.example")
        for text in ("", "a..b", "-a.b", "a b", "10.0.0.1", "a" * 64, "\u2028.com", "."):
            self.assertRaises(ValueError, DOMAIN.parse, text)

    def test_host_names(self) -> None:
        """A host's name may be an address literal."""
        self.assertEqual(HOST_NAME.parse("[10.0.0.1]"), "[10.0.0.1]")
        self.assertEqual(HOST_NAME.parse("[IPv6:2001:DB8::1]"), "[IPv6:2001:db8::1]")
        self.assertRaises(ValueError, HOST_NAME.parse, "[10.0.0]")

    def test_server_endpoints(self) -> None:
        """ADDR:PORT is a shorthand for a TCP endpoint."""
        for text, endpoint in {
            "127.0.0.1:2525": "tcp:2525:interface=127.0.0.1",
            "*:25": "tcp:25",
            ":25": "tcp:25",
            "localhost:25": "tcp:25:interface=127.0.0.1",
            "[::1]:25": r"tcp6:25:interface=\:\:1",
            "unix:/run/kumo.sock": "unix:/run/kumo.sock",
        }.items():
            self.assertEqual(SERVER_ENDPOINT.parse(text), endpoint)
        for text in ("300.0.0.1:25", "[10.0.0.1.2]:25", "25", "a.example:25", "1.2.3.4:65536"):
            self.assertRaises(ValueError, SERVER_ENDPOINT.parse, text)

    def test_networks(self) -> None:
        """A network is a network or a single address, never an address within one."""
        for text, network in {
            "10.0.0.0/8": "10.0.0.0/8",
            "10.0.0.1": "10.0.0.1/32",
            "10.0.0.1/32": "10.0.0.1/32",
            "10.0.0.0/255.0.0.0": "10.0.0.0/8",
            "::1": "::1/128",
            "2001:db8::/32": "2001:db8::/32",
        }.items():
            self.assertEqual([str(found) for found in NETWORKS.parse(text)], [network])

    def test_host_bits(self) -> None:
        """Host bits are refused, naming both things that may be meant."""
        for text, network, address in (
            ("1.2.3.4/8", "1.0.0.0/8", "1.2.3.4"),
            ("2001:db8::7/64", "2001:db8::/64", "2001:db8::7"),
            ("10.0.0.1/0", "0.0.0.0/0", "10.0.0.1"),
        ):
            error = self.assertRaises(ValueError, NETWORKS.parse, f"127.0.0.0/8, {text}")
            self.assertEqual(
                str(error),
                f"{text!r} is an address within the network {network}; write {network} for the "
                f"network, {address} for the address alone",
            )

    def test_lists(self) -> None:
        """Items are separated by commas or line ends."""
        self.assertEqual(split_list("a, b\n c,,\n"), ["a", "b", "c"])


class SecretTests(SynchronousTestCase):
    """Secrets are read from where they are kept and shown nowhere."""

    def test_literal(self) -> None:
        """A literal secret is masked."""
        secret = SECRET.parse("geheim")
        self.assertEqual(secret, "geheim")
        self.assertEqual(SECRET.render(secret), "********")
        self.assertEqual(SECRET.reveal(secret), "geheim")
        self.assertNotIn("geheim", repr(secret))

    def test_file(self) -> None:
        """C{file:PATH} is the file's text without its line end; the reference is no secret."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("geheim\n")
        secret = SECRET.parse(f"file:{path}")
        self.assertEqual(secret, "geheim")
        self.assertEqual(SECRET.render(secret), f"file:{path}")

    def test_environment(self) -> None:
        """C{env:NAME} is a variable."""
        self.patch(os, "environ", {"KUMO_TEST": "geheim"})
        secret = SECRET.parse("env:KUMO_TEST")
        self.assertEqual((secret, SECRET.render(secret)), ("geheim", "env:KUMO_TEST"))
        error = self.assertRaises(ValueError, SECRET.parse, "env:KUMO_OTHER")
        self.assertEqual(str(error), "the environment has no variable 'KUMO_OTHER'")

    def test_wrong(self) -> None:
        """A secret that cannot be had is explained without telling it."""
        for text, problem in {
            "": "the secret is empty",
            "a\nb": "the secret has several lines (one line, or file:PATH)",
            "file:/nonexistent": "cannot read the secret from '/nonexistent': "
            "No such file or directory",
        }.items():
            self.assertEqual(str(self.assertRaises(ValueError, SECRET.parse, text)), problem)

    def test_binary_file(self) -> None:
        """A secret is text."""
        path = self.mktemp()
        with open(path, "wb") as stream:
            stream.write(b"\xff\xfe")
        error = self.assertRaises(ValueError, SECRET.parse, f"file:{path}")
        self.assertEqual(str(error), f"the secret in {path!r} is not UTF-8 text")

    def test_repr_of_settings(self) -> None:
        """Settings that hold secrets do not show them in a traceback either."""

        @attrs.define(frozen=True)
        class Login:
            password: str | None = setting(SECRET, "A password.", default=None)
            passwords: tuple[str, ...] = setting(list_of(SECRET), "Passwords.", default=())

        shown = repr(Login(password="geheim", passwords=("geheim", Secret("geheim"))))
        self.assertNotIn("geheim", shown)
        self.assertIn("None", repr(Login()))


class FileTests(SynchronousTestCase):
    """Files that are named must be readable."""

    def test_readable(self) -> None:
        """A file that can be read is its path."""
        self.assertEqual(READABLE_FILE.parse(f" {__file__} "), __file__)

    def test_not_readable(self) -> None:
        """Missing files and directories are refused."""
        for path, reason in (
            ("/nonexistent", "No such file or directory"),
            (os.path.dirname(__file__), "Is a directory"),
        ):
            error = self.assertRaises(ValueError, READABLE_FILE.parse, path)
            self.assertEqual(str(error), f"cannot read {path!r}: {reason}")


class DeclarationTests(SynchronousTestCase):
    """Settings declared as fields."""

    def test_declared(self) -> None:
        """The declarations are found by key, in their order, with what is known of them."""

        @attrs.define(frozen=True)
        class Settings:
            name: str = "x"
            first: int = setting(integer(), "One.")
            second: int = setting(integer(), "Two.", default=2, key="2nd", default_doc="two")

        found = declared(Settings)
        self.assertEqual(list(found), ["first", "2nd"])
        self.assertTrue(found["first"][1].required)
        self.assertEqual(found["2nd"][1].default_doc, "two")
        self.assertEqual(found["2nd"][0].name, "second")
        self.assertEqual(Settings(first=1).second, 2)
