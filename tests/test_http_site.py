"""Who may ask the HTTP listener what."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.http import http_site
from kumotwist.http.settings import HTTPSettings
from kumotwist.journal import Trace
from tests.http_client import Connection

LIVENESS = "/api/check-liveness/v1"


class SiteCase(SynchronousTestCase):
    """A site with the default settings."""

    def setUp(self) -> None:
        """Build it."""
        self.clock = Clock()
        self.trouble = ""
        self.trace = Trace(self.clock)
        self.site = http_site(
            self.clock, HTTPSettings().trusted_hosts, self.trace, lambda: self.trouble
        )

    def ask(
        self, path: str = LIVENESS, *headers: str, peer: Any = None, **facts: Any
    ) -> Connection:
        """The answer to a request on a connection of its own."""
        return Connection(self.site, peer).ask(path, *headers, **facts)


class LivenessTests(SiteCase):
    """C{/api/check-liveness/v1}."""

    def test_live(self) -> None:
        """A node that takes mail says so."""
        answer = self.ask()
        self.assertEqual((answer.status, json.loads(answer.body)), (200, {"status": "ok"}))
        self.assertIn("content-type: application/json", answer.header)

    def test_not_live(self) -> None:
        """A node that does not says why."""
        self.trouble = "the spool cannot be written"
        answer = self.ask()
        self.assertEqual((answer.status, json.loads(answer.body)), (503, {"error": self.trouble}))

    def test_head(self) -> None:
        """HEAD tells the status alone."""
        answer = self.ask(method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_other_methods(self) -> None:
        """Nothing can be changed here."""
        for method in ("POST", "PUT", "DELETE"):
            answer = self.ask(LIVENESS, "Content-Length: 0", method=method)
            self.assertIn(answer.status, (405, 501))


class PathTests(SiteCase):
    """What is there and what is not."""

    def test_nothing_there(self) -> None:
        """Other paths are 404, however strange they are."""
        for path in (
            "/",
            "/api",
            "/api/",
            "/api/v1",
            "/api/../etc/passwd",
            "/%00",
            "//",
            "/api/%2e",
        ):
            self.assertEqual(self.ask(path).status, 404, path)

    def test_kept_alive(self) -> None:
        """Several requests can share a connection."""
        connection = self.ask()
        connection.ask(LIVENESS)
        self.assertEqual(connection.said.count(b"HTTP/1.1 200"), 2)


class TrustTests(SiteCase):
    """C{trusted_hosts}."""

    def test_trusted(self) -> None:
        """Loopback is trusted by default, in every spelling."""
        for peer in (
            IPv4Address("TCP", "127.0.0.1", 1),
            IPv4Address("TCP", "127.9.9.9", 1),
            IPv6Address("TCP", "::1", 1),
            IPv6Address("TCP", "::ffff:127.0.0.1", 1),
            UNIXAddress(b"/run/kumo.sock"),
            UNIXAddress(None),
        ):
            self.assertEqual(self.ask(peer=peer).status, 200, peer)

    def test_stranger(self) -> None:
        """Nobody else gets anything, not even the news that a path does not exist."""
        for peer in (
            IPv4Address("TCP", "192.0.2.1", 1),
            IPv6Address("TCP", "2001:db8::1", 1),
            IPv6Address("TCP", "fe80::1%eth0", 1),
            IPv6Address("TCP", "::ffff:192.0.2.1", 1),
            IPv4Address("TCP", "not an address", 1),
        ):
            for path in (LIVENESS, "/api/trace/v1", "/", "/nowhere"):
                answer = self.ask(path, peer=peer)
                self.assertEqual(answer.status, 403, (peer, path))
        self.assertFalse(self.trace.watched)

    def test_forwarded(self) -> None:
        """What a client says of itself in headers is not believed."""
        stranger = IPv4Address("TCP", "192.0.2.1", 1)
        for header in ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1"):
            self.assertEqual(self.ask(LIVENESS, header, peer=stranger).status, 403)
            self.assertEqual(self.ask(LIVENESS, header.replace("127", "9")).status, 200)

    def test_configured(self) -> None:
        """The networks are those that were configured."""
        networks = [ipaddress.ip_network("192.0.2.0/24")]
        site = http_site(self.clock, networks, self.trace, lambda: "")
        for host, status in (("192.0.2.9", 200), ("127.0.0.1", 403)):
            answer = Connection(site, IPv4Address("TCP", host, 1)).ask(LIVENESS)
            self.assertEqual(answer.status, status)


class WebPageTests(SiteCase):
    """A web page that is open on the same machine must not reach the node."""

    def test_host(self) -> None:
        """The Host header must be an address or localhost: a name may have been rebound."""
        for host, status in (
            ("127.0.0.1", 200),
            ("127.0.0.1:8000", 200),
            ("[::1]:8000", 200),
            ("[::1]", 200),
            ("localhost", 200),
            ("LocalHost:8000", 200),
            ("10.0.0.1:8000", 200),
            ("evil.example", 403),
            ("evil.example:8000", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("evil.example@127.0.0.1", 403),
            ("[::1].evil.example", 403),
            ("127.0.0.1:8000:evil", 403),
            ("[evil]", 403),
            ("1", 403),
            ("\N{DEGREE SIGN}", 403),
        ):
            self.assertEqual(self.ask(host=host).status, status, host)

    def test_no_host(self) -> None:
        """A program of HTTP/1.0, or on a Unix socket, need not name a host; browsers always do."""
        for peer in (None, UNIXAddress(b"/run/kumo.sock")):
            connection = Connection(self.site, peer)
            connection.protocol.dataReceived(f"GET {LIVENESS} HTTP/1.0\r\n\r\n".encode())
            self.assertEqual(connection.status, 200)

    def test_other_sites(self) -> None:
        """A browser that asks for a page of another site is refused."""
        for header, status in (
            ("Sec-Fetch-Site: cross-site", 403),
            ("Sec-Fetch-Site: same-site", 403),
            ("Sec-Fetch-Site: same-origin", 200),
            ("Sec-Fetch-Site: none", 200),
            ("Origin: https://evil.example", 403),
            ("Origin: http://127.0.0.1:9999", 403),
            ("Origin: null", 403),
            ("Origin: http://127.0.0.1:8000", 200),
        ):
            self.assertEqual(self.ask(LIVENESS, header).status, status, header)


class BoundTests(SiteCase):
    """A client cannot make the node keep what it sends."""

    def test_body(self) -> None:
        """The body of a request is read past, however large it says it is."""
        connection = self.ask(LIVENESS, "Content-Length: 10000000000", method="POST")
        for _ in range(10):
            connection.protocol.dataReceived(b"x" * 100_000)
        request = connection.protocol._channel.requests[0]  # type: ignore[attr-defined]
        self.assertEqual(request.content.getvalue(), b"")

    def test_form(self) -> None:
        """A form is not looked at."""
        connection = self.ask(
            LIVENESS, "Content-Type: application/x-www-form-urlencoded", "Content-Length: 3",
            method="POST",
        )  # fmt: skip
        connection.protocol.dataReceived(b"a=b")
        self.assertIn(connection.status, (405, 501))

    def test_idle(self) -> None:
        """A client that says nothing is sent away."""
        connection = Connection(self.site)
        self.clock.advance(61)
        self.assertTrue(connection.transport.disconnecting)
