"""Proxies and sinks that run alone, and their certificates."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import IService, MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.http.settings import HTTPSettings
from kumotwist.proxy import ProxyService
from kumotwist.proxy.settings import ProxySettings
from kumotwist.service.errors import StartError
from kumotwist.service.listening import ListeningService
from kumotwist.service.standalone import (
    proxy_services,
    sink_service,
    standalone_proxies,
    standalone_sink,
    tls_context,
)
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from tests.proxy_case import ObedientTransport


class TLSTests(SynchronousTestCase):
    """The TLS context of a listener."""

    def setUp(self) -> None:
        """A state directory."""
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def test_off(self) -> None:
        """Without TLS nothing is made."""
        settings = ListenerSettings(name="main", tls="none")
        self.assertIsNone(tls_context(settings, "mta.example", self.directory))
        self.assertEqual(os.listdir(self.directory), [])

    def test_self_signed(self) -> None:
        """Without a certificate one is made, and kept for the next start."""
        settings = ListenerSettings(name="main")
        self.assertIsNotNone(tls_context(settings, "mta.example", self.directory))
        files = [path for path in Path(self.directory).rglob("*") if path.is_file()]
        kept = {path: path.read_bytes() for path in files}
        self.assertTrue(kept)
        tls_context(settings, "mta.example", self.directory)
        for path, content in kept.items():
            self.assertEqual(path.read_bytes(), content)

    def test_unusable(self) -> None:
        """A certificate that is none is named."""
        path = Path(self.mktemp())
        path.write_text("this is no certificate")
        settings = ListenerSettings(
            name="main", tls_certificate=str(path), tls_private_key=str(path)
        )
        failure = self.assertRaises(StartError, tls_context, settings, "x", self.directory)
        self.assertIn(str(path), str(failure))

    def test_no_place(self) -> None:
        """A certificate that cannot be kept is told."""
        path = Path(self.mktemp())
        path.write_text("a file, not a directory")
        settings = ListenerSettings(name="main")
        self.assertRaises(StartError, tls_context, settings, "mta.example", str(path))


class SinkTests(SynchronousTestCase):
    """C{twistd kumosink}, and C{[sink:NAME]}."""

    def test_listens(self) -> None:
        """A sink listens where it was told."""
        reactor = MemoryReactorClock()
        settings = SinkSettings(name="kumosink", tls="none", listen="tcp:2626:interface=127.0.0.1")
        state = self.mktemp()
        service = standalone_sink(reactor, settings, state)
        service.startService()
        self.assertEqual([each[0] for each in reactor.tcpServers], [2626])
        self.assertFalse(os.path.exists(state))
        self.assertTrue(IService.providedBy(service))

    def test_state(self) -> None:
        """Only a certificate of its own makes it keep something."""
        state = self.mktemp()
        standalone_sink(MemoryReactorClock(), SinkSettings(name="kumosink"), state)
        self.assertTrue(os.listdir(state))

    def test_cannot_start(self) -> None:
        """Errors name the sink."""
        settings = SinkSettings(name="x", tls="none", listen="nonsense:1")
        service = sink_service(MemoryReactorClock(), "[sink:x]", settings, "mta.example", ".")
        failure = self.assertRaises(StartError, service.startService)
        self.assertIn("[sink:x] listen", str(failure))


class ProxyTests(SynchronousTestCase):
    """C{twistd kumoproxy}, and C{[proxy:NAME]}."""

    def test_built(self) -> None:
        """One service for all proxies."""
        settings = ProxySettings(listen="tcp:5000:interface=127.0.0.1")
        service = proxy_services(MemoryReactorClock(), {"local": settings}, {})
        self.assertTrue(IService.providedBy(service))

    def test_pages_are_its_own(self) -> None:
        """The proxy leads nobody to the pages of its process, from when on they are served."""
        reactor = MemoryReactorClock()
        settings = ProxySettings(listen="tcp:5000:interface=127.0.0.1")
        pages: list[tuple[str, ListeningService]] = []
        [proxy] = list(proxy_services(reactor, {"local": settings}, {}, pages))
        for what, port in (("[listener:in]", 2525), ("[http]", 8000)):
            place = f"tcp:{port}:interface=10.0.0.1"
            pages.append((what, ListeningService(reactor, what, place, Factory())))
        here = ip_address("0.0.0.0")  # where every port of this reactor is
        self.assertFalse(proxy._is_own(here, 8000))
        for _, service in pages:
            service.startService()
        self.assertTrue(proxy._is_own(here, 8000))
        self.assertFalse(proxy._is_own(here, 2525))

    def test_pages_last(self) -> None:
        """While the proxies drain their pages are there, and say that they drain."""
        reactor = MemoryReactorClock()
        settings = ProxySettings(listen="tcp:5000:interface=127.0.0.1")
        service = standalone_proxies(
            reactor, {"local": settings}, {}, HTTPSettings(listen="tcp:8001:interface=127.0.0.1")
        )
        service.startService()
        [proxies] = [one for one in service if isinstance(one, MultiService)]
        [proxy] = proxies
        [pages] = [one for one in service if isinstance(one, ListeningService)]
        assert isinstance(proxy, ProxyService)
        client = ObedientTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 5))
        factory: Any = next(each[1] for each in reactor.tcpServers if each[0] == 5000)
        client.protocol = factory.buildProtocol(None)
        client.protocol.makeConnection(client)
        stopping = service.stopService()
        self.assertEqual((proxy.status, pages.running), ("draining", 1))
        client.lose()
        self.successResultOf(stopping)
        self.assertEqual((proxy.status, pages.running), ("stopped", 0))

    def test_cannot_be_built(self) -> None:
        """What is wrong with one stops the start."""
        settings = ProxySettings(listen="tcp:5000", require_auth=True)
        for wrong in (settings, attrs.evolve(settings, listen="nonsense:1", require_auth=False)):
            self.assertRaises(
                StartError, proxy_services, MemoryReactorClock(), {"local": wrong}, {}
            )
