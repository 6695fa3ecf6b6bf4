"""KumoProxy's metrics and its health page."""

from __future__ import annotations

from twisted.web.resource import Resource, getChildForRequest
from twisted.web.test.requesthelper import DummyRequest

from kumotwist.proxy.metrics import render_metrics
from kumotwist.proxy.web import proxy_pages
from tests.proxy_case import BIND, CONNECT, GREETING, ProxyCase


class WebTests(ProxyCase):
    """Pages as a browser or Prometheus gets them."""

    def get(self, *path: bytes) -> tuple[int, str]:
        """The status and the text of a page."""
        request = DummyRequest(list(path))
        root = Resource()
        for name, page in proxy_pages([self.service]).items():
            root.putChild(name, page)
        page = getChildForRequest(root, request)
        text: bytes = page.render(request)
        return request.responseCode or 200, text.decode()

    def test_status(self) -> None:
        """A proxy that listens is OK; one that drains is not."""
        self.start()
        self.assertEqual(self.get(b"proxy", b"status"), (200, "KumoProxy OK\n"))
        self.client()
        self.service.stopService()
        self.assertEqual(self.get(b"proxy", b"status"), (503, "KumoProxy: main is draining\n"))

    def test_nothing_else(self) -> None:
        """What lies above the health page is not there."""
        self.start()
        self.assertEqual(self.get(b"proxy"), (404, ""))

    def test_metrics(self) -> None:
        """The counters are there under KumoMTA's names."""
        self.start()
        client, outgoing = self.relaying()
        client.say(b"EHLO me\r\n")
        outgoing.transport.protocol.dataReceived(b"250 ok\r\n")
        refused = self.client()
        refused.say(GREETING + BIND + BIND + CONNECT)
        refused.transport.lose()
        lines = self.get(b"metrics")[1].splitlines()
        for line in (
            'proxy_connections_accepted_total{listener="main"} 2',
            'proxy_connections_failed_total{listener="main"} 1',
            'proxy_connections_completed_total{listener="main"} 0',
            'proxy_active_connections{listener="main"} 1',
            'proxy_bytes_client_to_dest_total{listener="main"} 9',
            'proxy_bytes_dest_to_client_total{listener="main"} 8',
            'proxy_outbound_connections_total{listener="main"} 1',
            'proxy_tls_handshake_failures_total{listener="main"} 0',
            'proxy_requests_refused_total{listener="main",rep="01"} 1',
            'proxy_requests_refused_total{listener="main",rep="08"} 0',
        ):
            self.assertIn(line, lines)

    def test_text_format(self) -> None:
        """Every family is described once, and names are escaped."""
        self.start()
        self.service.name = 'a"b\\c'
        text = render_metrics([self.service])
        self.assertIn('{listener="a\\"b\\\\c"}', text)
        helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
        self.assertEqual(len(helps), len(set(helps)))
        self.assertTrue(text.endswith("\n"))
