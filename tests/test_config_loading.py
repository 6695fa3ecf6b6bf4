"""A configuration is read into values, defaults filled in."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import kumotwist
from kumotwist.config import load
from kumotwist.config.planned import CONTRACT
from kumotwist.config.reference import reference
from kumotwist.config.sections import KINDS, PLANNED_KINDS
from kumotwist.egress.settings import PoolEntry, PoolSettings, SourceSettings
from kumotwist.settings.types import HostPort
from tests.config_case import ConfigCase

ROOT = Path(kumotwist.__file__).parent.parent


class DefaultTests(ConfigCase):
    """What holds when nothing is said."""

    def test_empty_file(self) -> None:
        """An empty file is a configuration: nothing listens, mail leaves directly."""
        found = self.load("")
        self.assertEqual(found.node.state_dir, "var")
        self.assertIsNone(found.http)
        self.assertEqual(dict(found.listeners), {})
        self.assertEqual(dict(found.sources), {"unspecified": SourceSettings(name="unspecified")})
        self.assertEqual(
            dict(found.pools),
            {"unspecified": PoolSettings("unspecified", (PoolEntry("unspecified", 1),))},
        )
        self.assertEqual(found.queues.resolve("example.com").egress_pool, "unspecified")
        self.assertEqual(found.paths.resolve("a", "b", "c").smtp_port, 25)

    def test_host_name(self) -> None:
        """The node has the machine's name, if that is one that can be said in a greeting."""
        for name, expected in (("Mail-1.Example", "mail-1.example"), ("my_pc #1", "localhost")):
            self.patch(socket, "gethostname", lambda name=name: name)
            self.assertEqual(self.load("").node.hostname, expected)

    def test_http(self) -> None:
        """An empty section is there, with its defaults."""
        found = self.load("[http]\n")
        assert found.http is not None
        self.assertEqual(found.http.listen, "tcp:8000:interface=127.0.0.1")

    def test_own_unspecified(self) -> None:
        """The built-in source can be replaced."""
        found = self.load("[source:unspecified]\nsource_address = 10.0.0.1\n")
        self.assertEqual(
            found.sources["unspecified"].source_address, (ipaddress.ip_address("10.0.0.1"),)
        )


class ValueTests(ConfigCase):
    """What is said holds."""

    def test_seed(self) -> None:
        """A SOCKS5 source and an HAProxy source, as KumoMTA's documentation has them."""
        found = self.load(
            "[source:ip-1]\n"
            "socks5_proxy_server = 10.0.5.10:5000\n"
            "socks5_proxy_source_address = 10.0.0.1\n"
            "ehlo_domain = mta1.examplecorp.com\n"
            "[source:ip-2]\n"
            "ha_proxy_server = 10.0.5.10:2526\n"
            "ha_proxy_source_address = 10.0.0.2\n"
        )
        self.assertEqual(
            found.sources["ip-1"],
            SourceSettings(
                name="ip-1",
                socks5_proxy_server=(HostPort("10.0.5.10", 5000),),
                socks5_proxy_source_address=(ipaddress.ip_address("10.0.0.1"),),
                ehlo_domain="mta1.examplecorp.com",
            ),
        )
        self.assertEqual(
            found.sources["ip-2"],
            SourceSettings(
                name="ip-2",
                ha_proxy_server=(HostPort("10.0.5.10", 2526),),
                ha_proxy_source_address=(ipaddress.ip_address("10.0.0.2"),),
            ),
        )

    def test_case(self) -> None:
        """Keys and the kinds of sections have no case; names have."""
        found = self.load("[KUMO]\nHostName = a.example\n[Source:IP]\n[pool:P]\nIP = 3\n")
        self.assertEqual(found.node.hostname, "a.example")
        self.assertEqual(found.pools["P"].entries, (PoolEntry("IP", 3),))

    def test_names_of_sections(self) -> None:
        """Settings that carry a name have that of their section."""
        found = self.load("[listener:in]\n")
        self.assertEqual(found.listeners["in"].name, "in")

    def test_order_of_rules(self) -> None:
        """The proxy's rules keep the order of the file, which is their precedence."""
        text = "".join(f"[proxy-rule:{name}]\naction = deny\n" for name in ("z", "a", "m"))
        self.assertEqual(list(self.load(text).proxy_rules), ["z", "a", "m"])

    def test_frozen(self) -> None:
        """Nobody changes a configuration that has been read."""
        found = self.load("[sink:a]\n")
        with self.assertRaises(AttributeError):
            found.http = None  # type: ignore[misc]
        with self.assertRaises(TypeError):
            found.sinks["b"] = found.sinks["a"]  # type: ignore[index]


class IncludeTests(ConfigCase):
    """C{include} in C{[kumo]}."""

    def test_included(self) -> None:
        """Files are found from where the including file is, each is read once, in order."""
        self.write("[pool:p]\na = 1\n", "conf.d/2.ini")
        self.write("[source:a]\n", "conf.d/1.ini")
        found = self.load("[kumo]\ninclude = conf.d/1.ini, conf.d/*.ini, *.ini\n")
        self.assertIn("a", found.sources)
        self.assertIn("p", found.pools)
        self.assertEqual(
            [os.path.basename(path) for path in found.files], ["kumo.ini", "1.ini", "2.ini"]
        )
        self.assertEqual(found.node.include, ())

    def test_texts(self) -> None:
        """From the texts that were read comes the same again, whatever the files say now."""
        self.write("[source:a]\n", "conf.d/1.ini")
        found = self.load("[kumo]\ninclude = conf.d/*.ini\n")
        self.assertNotIn("include =", repr(found))
        self.write("[nonsense]\n", "conf.d/0.ini")
        self.write("nonsense", "kumo.ini")
        again = load(found.files[0], texts=found.texts)
        self.assertEqual((again, again.files, again.given), (found, found.files, found.given))


class PlannedTests(SynchronousTestCase):
    """What is agreed on and what is built."""

    def test_contract(self) -> None:
        """A key is planned or built, never both; what is built of a kind is in the contract."""
        for name, keys in CONTRACT.items():
            if name in KINDS:
                kind = KINDS[name]
                self.assertEqual(kind.planned, frozenset(keys) - frozenset(kind.keys))
        self.assertEqual(PLANNED_KINDS, {"dkim", "throttles"})


class ShippedFilesTests(SynchronousTestCase):
    """The files that come with the package."""

    def setUp(self) -> None:
        """They are only there in a checkout."""
        if not (ROOT / "etc" / "kumo.ini").exists():
            self.skipTest("not a checkout: etc/kumo.ini is not beside the package")

    def test_trial_configuration(self) -> None:
        """The trial touches loopback only, and its three sources differ in their address."""
        found = load(os.fspath(ROOT / "etc" / "kumo.ini"))
        places = [
            one.listen
            for group in (found.listeners, found.proxies, found.sinks)
            for one in group.values()
        ]
        assert found.http is not None
        for place in [*places, found.http.listen]:
            self.assertIn("interface=127.0.0.1", place)
        self.assertEqual(
            found.pools["trial"].entries,
            (
                PoolEntry("direct", 1),
                PoolEntry("via-kumoproxy", 1),
                PoolEntry("via-haproxy", 0),
            ),
        )
        for domain in ("example.com", "gmail.com"):
            (hop,) = found.queues.resolve(domain).route
            self.assertEqual(str(hop), "[127.0.0.1]:2526")
        self.assertIn("tcp:2526:interface=127.0.0.1", places)

    def test_haproxy_configuration(self) -> None:
        """The HAProxy that is shipped listens where the trial's source looks for it."""
        text = (ROOT / "etc" / "haproxy.cfg").read_text(encoding="utf-8")
        found = load(os.fspath(ROOT / "etc" / "kumo.ini"))
        (server,) = found.sources["via-haproxy"].ha_proxy_server or ()
        self.assertIn(f"bind {server} accept-proxy", text)

    def test_reference_is_current(self) -> None:
        """docs/reference.md is what the program says."""
        page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
        self.assertEqual(
            page,
            reference(),
            "run: python -m kumotwist.config.reference > docs/reference.md",
        )

    def test_examples_of_the_guide(self) -> None:
        """Every INI example in docs/configuration.md is right."""
        guide = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
        examples = re.findall(r"```ini\n(.*?)```", guide, re.DOTALL)
        self.assertTrue(examples)
        for example in examples:
            path = Path(self.mktemp())
            path.write_text(example, encoding="utf-8")
            load(os.fspath(path))

    def test_command(self) -> None:
        """The command that the page names prints the page."""
        printed = subprocess.run(
            [sys.executable, "-m", "kumotwist.config.reference"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        self.assertEqual(printed.stdout.decode(), reference())
        self.assertEqual(printed.stderr, b"")
