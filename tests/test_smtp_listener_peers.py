"""Tests of a listener that treats clients by their networks."""

from __future__ import annotations

import ipaddress
from types import MappingProxyType
from typing import Any

from twisted.internet.address import IPv6Address, UNIXAddress

from kumotwist.settings.layers import Rule
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import ListenerSettings
from tests.test_smtp_listener import ENVELOPE, HELLO, INSIDE, OUTSIDE, ListenerTestCase


class PeerTests(ListenerTestCase):
    """Exceptions for networks."""

    def peers(self, **rules: Any) -> ESMTPListenerFactory:
        """A listener with exceptions for C{near} (203.0.113.0/24) and C{host} (203.0.113.9)."""
        networks = {"near": "203.0.113.0/24", "host": "203.0.113.9/32", "local": "127.0.0.0/8"}
        settings = ListenerSettings(name="main").with_peers(
            Rule(ipaddress.ip_network(networks[name]), MappingProxyType(values))
            for name, values in rules.items()
        )
        return ESMTPListenerFactory(
            self.clock, settings, self.reception, self.tls, "mx.example.com"
        )

    def test_smallest_network(self) -> None:
        """Key by key the smallest network wins, in whatever order they were written."""
        factory = self.peers(host={"banner": "host"}, near={"banner": "near", "hostname": "n.ex"})
        _, transport = self.connect(OUTSIDE, factory)
        self.assertEqual(transport.value(), b"220 n.ex host\r\n")
        _, transport = self.connect(INSIDE, factory)
        self.assertEqual(transport.value(), b"220 mx.example.com kumotwist\r\n")

    def test_mapped_address(self) -> None:
        """An IPv4 client of an IPv6 socket is in IPv4 networks; a Unix socket's is on 127.0.0.1."""
        factory = self.peers(host={"banner": "host"}, local={"banner": "self"})
        for peer, banner in (
            (IPv6Address("TCP", "::ffff:203.0.113.9", 1), b"host"),
            (UNIXAddress("/run/mail"), b"self"),
            (IPv6Address("TCP", "2001:db8::1", 1), b"kumotwist"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), b"kumotwist"),
        ):
            _, transport = self.connect(peer, factory)
            self.assertIn(banner, transport.value())

    def test_everything_follows(self) -> None:
        """Relaying, limits and time are those of the client's network."""
        factory = self.peers(
            near={
                "relay_hosts": (ipaddress.ip_network("203.0.113.0/24"),),
                "max_recipients_per_message": 1,
                "client_timeout": 5.0,
            }
        )
        protocol, transport = self.connect(OUTSIDE, factory)
        protocol.dataReceived(HELLO + ENVELOPE + b"RCPT TO:<e@f.example>\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 452])
        self.clock.advance(6)
        self.assertEqual(self.codes(transport), [421])
