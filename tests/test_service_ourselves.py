"""Which addresses lead back to this node."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.service.ourselves import OwnAddresses, is_local


class OwnAddressesTests(SynchronousTestCase):
    """L{OwnAddresses}."""

    def test_listening(self) -> None:
        """An address on which the node listens is its own, on that port; where it listens on
        all, every address of the machine is."""
        local = ip_address("198.51.100.1")
        for host, port, address, ours in (
            ("192.0.2.1", 25, "192.0.2.1", True),
            ("192.0.2.1", 25, "192.0.2.2", False),
            ("192.0.2.1", 2525, "192.0.2.1", False),
            ("0.0.0.0", 25, "198.51.100.1", True),
            ("0.0.0.0", 25, "192.0.2.1", False),
            ("::", 25, "198.51.100.1", True),
            ("0.0.0.0", 25, "2001:db8::1", False),
            ("fe80::1%eth0", 25, "fe80::1", True),
        ):
            own = OwnAddresses(lambda: [(host, port)], lambda one: one == local)  # noqa: B023
            self.assertIs(own(ip_address(address), 25), ours, (host, port, address))

    def test_local(self) -> None:
        """The machine's own address is local, a documentation address is not."""
        self.assertTrue(is_local(ip_address("127.0.0.1")))
        self.assertFalse(is_local(ip_address("192.0.2.1")))
        self.assertFalse(is_local(ip_address("2001:db8::1")))
