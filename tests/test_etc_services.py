"""The files of C{etc/} that a machine's operator copies: systemd units and KumoProxy's example."""

from __future__ import annotations

import configparser
import ipaddress
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.config import Configuration, load
from kumotwist.proxy import build_proxies
from kumotwist.proxy.rules import Rules

ETC = Path(__file__).resolve().parents[1] / "etc"
UNITS = ("kumo.service", "kumoproxy.service")

#: What both units must say, whatever else they do.
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "Restart": "always",
}


class EtcCase(SynchronousTestCase):
    """Skipped where the checkout is not there."""

    def setUp(self) -> None:
        """Look for the files."""
        if not (ETC / "kumoproxy.ini").exists():
            self.skipTest("not a checkout: etc/ is not beside the package")

    def unit(self, name: str) -> configparser.ConfigParser:
        """A unit, read as far as it is an INI file."""
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read(ETC / name, encoding="utf-8")
        return unit


class UnitTests(EtcCase):
    """C{etc/*.service}."""

    def test_hardened(self) -> None:
        """They give up what the programs do not need, and start again after a crash."""
        for name in UNITS:
            service = self.unit(name)["Service"]
            for key, value in HARDENED.items():
                self.assertEqual(service[key], value, f"{name} {key}")
            self.assertGreaterEqual(int(service["LimitNOFILE"]), 65536)
            self.assertEqual(service["CapabilityBoundingSet"], service["AmbientCapabilities"])
        self.assertEqual(self.unit("kumoproxy.service")["Service"]["CapabilityBoundingSet"], "")

    def test_time_to_stop(self) -> None:
        """systemd waits longer than the example's proxy drains."""
        seconds = self.unit("kumoproxy.service")["Service"]["TimeoutStopSec"].removesuffix("s")
        drain = load(str(ETC / "kumoproxy.ini")).proxies["main"].drain_timeout
        self.assertGreater(float(seconds), drain)

    def test_systemd_understands(self) -> None:
        """C{systemd-analyze verify} has nothing to say about them."""
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            self.skipTest("systemd-analyze is not installed")
        directory = Path(self.mktemp())
        directory.mkdir()
        for name in UNITS:
            text = (ETC / name).read_text(encoding="utf-8")
            # The programs are not where an operator will install them.
            text = re.sub(r"(?m)^(Exec\w+)=\S+", rf"\1={sys.executable}", text)
            path = directory / name
            path.write_text(text, encoding="utf-8")
            found = subprocess.run(
                [analyze, "verify", "--man=no", str(path)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            self.assertEqual((found.returncode, found.stdout + found.stderr), (0, ""), name)


class ExampleTests(EtcCase):
    """C{etc/kumoproxy.ini}."""

    def example(self, text: str = "") -> Configuration:
        """The example, or another text, with its files in a place of the test's."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        for name in ("proxy-users", "proxy.pem", "proxy.key"):
            (self.directory / name).write_text("mta-marketing:secret\n", encoding="utf-8")
        text = text or (ETC / "kumoproxy.ini").read_text(encoding="utf-8")
        path = self.directory / "kumoproxy.ini"
        path.write_text(text.replace("/etc/kumo", str(self.directory)), encoding="utf-8")
        return load(str(path))

    def test_builds(self) -> None:
        """It is good, and a proxy can be built of it."""
        configuration = self.example()
        rules = configuration.proxy_rules.items()
        services = build_proxies(MemoryReactorClock(), configuration.proxies, rules)
        self.assertEqual([service.name for service in services], ["main"])
        self.assertIsNotNone(configuration.http)

    def test_tls_lines(self) -> None:
        """The lines for TLS that are commented out are keys that exist."""
        text = (ETC / "kumoproxy.ini").read_text(encoding="utf-8")
        main = self.example(text.replace("#tls_", "tls_")).proxies["main"]
        self.assertEqual(main.tls_certificate, f"{self.directory}/proxy.pem")
        self.assertEqual(main.tls_private_key, f"{self.directory}/proxy.key")

    def test_rules(self) -> None:
        """Each user has the sources of its own, for mail, and nobody else has any."""
        rules = Rules(self.example().proxy_rules.items(), "main")
        address = ipaddress.ip_address
        client, there = address("10.0.5.7"), address("192.0.2.25")
        for user, source, port, allowed in (
            ("mta-marketing", "203.0.113.7", 25, True),
            ("mta-marketing", "203.0.113.17", 25, False),
            ("mta-marketing", "203.0.113.7", 80, False),
            ("mta-transactional", "203.0.113.17", 25, True),
            (None, "203.0.113.7", 25, False),
        ):
            decision = rules.decide(user, client, address(source), there, port)
            self.assertEqual(decision.allowed, allowed, (user, source, port))
