"""The proxy as a service: start, what it tells, and an orderly end."""

from __future__ import annotations

import ipaddress
import os
import resource
from pathlib import Path
from typing import Any

import trustme
from twisted.application.service import IService
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from kumotwist.proxy import (
    ProxyError,
    ProxyService,
    ProxySettings,
    build_proxies,
    raise_descriptor_limit,
)
from kumotwist.proxy.certificate import CertificateError, ProxyCertificate
from tests.proxy_case import BIND, CONNECT, GREETING, ProxyCase, refusal, rule


class LifeTests(ProxyCase):
    """Start and stop."""

    def test_start(self) -> None:
        """After the start it says where it listens; starting privileged listens only once."""
        service = ProxyService(self.reactor, "main", ProxySettings(listen="tcp:5000"))
        verifyObject(IService, service)
        self.assertEqual((service.status, service.listening), ("stopped", ()))
        service.privilegedStartService()
        service.startService()
        self.assertEqual(len(self.reactor.tcpServers), 1)
        [address] = service.listening
        self.assertEqual(address, IPv4Address("TCP", "0.0.0.0", 5000))
        self.assertEqual(service.status, "OK")

    def test_stop_idle(self) -> None:
        """Without sessions it stops at once."""
        service = self.start()
        self.successResultOf(service.stopService())
        self.assertEqual((service.status, service.listening), ("stopped", ()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_drain(self) -> None:
        """While it drains new requests get REP 01 and running sessions go on to their end."""
        service = self.start(drain_timeout=10.0)
        client, outgoing = self.relaying()
        negotiating = self.client()
        negotiating.say(GREETING)
        stopped = service.stopService()
        self.assertEqual(service.status, "draining")
        self.assertEqual(self.client().say(GREETING + BIND), b"\x05\x00" + refusal(1))
        self.assertEqual(negotiating.say(CONNECT), refusal(1))
        client.say(b"QUIT\r\n")
        self.assertEqual(outgoing.transport.taken(), b"QUIT\r\n")
        others: Any = service._shared.sessions - {client.protocol}
        for session in others:
            session.connectionLost()
        self.assertNoResult(stopped)
        client.transport.lose()
        outgoing.transport.lose()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_drain_is_bounded(self) -> None:
        """Sessions that go on for too long are cut."""
        service = self.start(drain_timeout=10.0)
        client, outgoing = self.relaying()
        stopped = service.stopService()
        self.reactor.advance(10)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(outgoing.transport.aborted)
        client.transport.lose(ConnectionLost())
        outgoing.transport.lose(ConnectionLost())
        self.successResultOf(stopped)
        self.assertEqual(self.outcome(), "cut: the proxy shut down")

    def test_cut_while_connecting(self) -> None:
        """So are those that still wait for their destination."""
        service = self.start(drain_timeout=1.0)
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        stopped = service.stopService()
        self.reactor.advance(1)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(self.dialer.made[-1].cancelled)
        client.transport.lose(ConnectionLost())
        self.successResultOf(stopped)

    def test_restart(self) -> None:
        """A stopped proxy can be started again."""
        service = self.start()
        self.successResultOf(service.stopService())
        service.startService()
        self.assertEqual(self.client().say(GREETING), b"\x05\x00")


class ConfiguredTests(ProxyCase):
    """What cannot be built says so, by the key."""

    def wrong(self, key: str, **settings: Any) -> str:
        """The text of the error that names C{key}."""
        values = {"listen": "tcp:5000", **settings}
        error = self.assertRaises(
            ProxyError, ProxyService, self.reactor, "main", ProxySettings(**values)
        )
        self.assertEqual(error.key, key)
        return str(error)

    def test_listen(self) -> None:
        """A string that no endpoint understands."""
        self.wrong("listen", listen="nonsense:5000")

    def test_auth(self) -> None:
        """A checker that no plugin makes, and a login that is required but cannot be checked."""
        self.wrong("auth", auth="nonsense:x")
        self.wrong("require_auth", require_auth=True)

    def test_auth_without_passwords(self) -> None:
        """A checker that does not check passwords."""
        self.assertRaises(
            ProxyError,
            ProxyService,
            self.reactor,
            "main",
            ProxySettings(listen="tcp:5000"),
            checker=AllowAnonymousAccess(),
        )

    def test_auth_file(self) -> None:
        """A file of users, as C{auth} names it."""
        path = Path(self.mktemp())
        path.write_text("mta:secret\n", encoding="utf-8")
        self.start(auth=f"file:{path}", require_auth=True)
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x02\x01\x03mta\x06secret"), b"\x05\x02\x01\x00")
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x02\x01\x03mta\x06Secret"), b"\x05\x02\x01\x01")

    def test_tls_files(self) -> None:
        """A certificate that is not there, and a key without a certificate."""
        self.assertIn("/none", self.wrong("tls_certificate", tls_certificate="/none"))
        self.wrong("tls_private_key", tls_private_key="/none")


class TogetherTests(TestCase):
    """Several proxies in one process."""

    def test_build(self) -> None:
        """They are found by name, have their own rules, and keep off each other's listeners."""
        reactor: Any = MemoryReactorClock()
        together = build_proxies(
            reactor,
            {
                "one": ProxySettings(listen="tcp:5000:interface=203.0.113.1"),
                "two": ProxySettings(listen="tcp:5001:interface=203.0.113.1"),
            },
            [("ports", rule("allow", ports="1-65535"))],
        )
        one: Any = together.getServiceNamed("one")
        two: Any = together.getServiceNamed("two")
        together.startService()
        own = two.listening[0]
        address = ipaddress.ip_address(own.host)
        for service in (one, two):
            self.assertTrue(service._is_own(address, own.port))
            self.assertFalse(service._is_own(address, 25))
        self.successResultOf(together.stopService())

    def test_descriptor_limit(self) -> None:
        """Raising the limit of descriptors leaves the soft one at what it says."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        limit = raise_descriptor_limit()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], limit)


class CertificateTests(ProxyCase):
    """TLS on the listener."""

    authority = trustme.CA()

    def files(self, name: str = "proxy.example") -> tuple[str, str]:
        """Certificate with chain, and key, in two files."""
        directory = Path(self.mktemp())
        directory.mkdir()
        issued = self.authority.issue_cert(name)
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return str(certificate), str(key)

    def test_listener(self) -> None:
        """With a certificate the listener speaks TLS, and failed handshakes are counted."""
        certificate, key = self.files()
        service = self.start(tls_certificate=certificate, tls_private_key=key)
        factory = self.reactor.tcpServers[-1][1]
        self.assertIsInstance(factory, TLSMemoryBIOFactory)
        client = self.client()
        client.say(GREETING)
        client.transport.lose(ConnectionLost())
        self.assertEqual(service.counters.tls_failures, 1)
        self.assertIn("TLS handshake failed", self.outcome())
        client = self.client()
        client.say(b"GET / HTTP/1.1\r\n\r\n")
        client.transport.lose()
        service._shared.log.flush()
        self.assertEqual(self.lines()[-1]["outcome"], "TLS handshake failed: http request")

    def test_renewal(self) -> None:
        """A renewed certificate is used for the next clients; a broken one leaves the old."""
        certificate, key = self.files()
        clock = Clock()
        source = ProxyCertificate(certificate, key, clock.seconds)
        verifyObject(IOpenSSLServerConnectionCreator, source)

        def context() -> Any:
            clock.advance(10)
            return source.serverConnectionForTLS(None).get_context()

        first = context()
        self.assertIs(context(), first)
        for new, old in zip(self.files(), (certificate, key), strict=True):
            os.replace(new, old)
        second = context()
        self.assertIsNot(second, first)
        Path(key).write_text("nonsense", encoding="utf-8")
        self.assertIs(context(), second)
        self.assertIs(context(), second)

    def test_unusable(self) -> None:
        """Files that hold something else are refused with the file's name."""
        certificate, key = self.files()
        _, other_key = self.files()
        for first, second, named in (
            (key, key, key),
            (certificate, certificate, certificate),
            (certificate, other_key, other_key),
        ):
            error = self.assertRaises(
                CertificateError, ProxyCertificate, first, second, Clock().seconds
            )
            self.assertIn(named, str(error))


class SettingsTests(SynchronousTestCase):
    """Defaults."""

    def test_defaults(self) -> None:
        """The defaults are those that are documented."""
        settings = ProxySettings(listen="tcp:5000")
        self.assertEqual(
            (settings.timeout, settings.idle_timeout, settings.drain_timeout), (60, 300, 10)
        )
        self.assertFalse(settings.require_auth or settings.allow_names)
        self.assertTrue(settings.keepalive)
