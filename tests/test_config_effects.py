"""Keys that are given and can have no effect."""

from __future__ import annotations

from tests.config_case import ConfigCase


class EffectTests(ConfigCase):
    """Each is one error with its line; the same key where it matters is none."""

    def assert_told(self, text: str, *errors: str) -> None:
        """These are the errors of a text, without the file's name."""
        if errors:
            found = [line.removeprefix("kumo.ini:") for line in self.problems(text)]
            self.assertEqual(found, [*errors])
        else:
            self.load(text)

    def test_source(self) -> None:
        """Keys that speak of a proxy, or of an address, that a source does not have."""
        self.assert_told(
            "[source:a]\n"
            "suspend_when_proxy_unhealthy = 10m\n"
            "proxy_selection = balanced\n"
            "suspend_when_unplumbed = 10m\n"
            "verify_source_address = no\n",
            "2: [source:a] suspend_when_proxy_unhealthy: has no effect: there is no proxy that "
            "could be unhealthy (socks5_proxy_server = HOST:PORT)",
            "3: [source:a] proxy_selection: has no effect: there are no proxies to choose from "
            "(socks5_proxy_server = HOST:PORT, HOST:PORT)",
            "4: [source:a] suspend_when_unplumbed: has no effect: there is no local address that "
            "could be missing (source_address = ADDR)",
            "5: [source:a] verify_source_address: has no effect: no address is asked for that "
            "could be verified (socks5_proxy_source_address = ADDR)",
        )
        self.assert_told(
            "[source:a]\n"
            "socks5_proxy_server = 10.0.0.1:5000, 10.0.0.2:5000\n"
            "socks5_proxy_source_address = 10.0.0.7\n"
            "source_address = 10.0.0.3\n"
            "suspend_when_proxy_unhealthy = 10m\n"
            "proxy_selection = balanced\n"
            "suspend_when_unplumbed = 10m\n"
            "verify_source_address = no\n"
            "[source:b]\nendpoint = tcp:{host}:{port}\nsuspend_when_proxy_unhealthy = 10m\n"
            "suspend_when_unplumbed = 10m\n",
        )

    def test_one_error_is_enough(self) -> None:
        """A proxy that cannot be read is not told a second time as one that is not there."""
        error = self.one("[source:a]\nsocks5_proxy_server = nonsense\nproxy_selection = balanced\n")
        self.assertIn("2: [source:a] socks5_proxy_server: ", error)

    def test_defaults(self) -> None:
        """What is the default anyway may be written down: C{kumo config} does."""
        self.assert_told(
            "[source:a]\nproxy_selection = ordered\nverify_source_address = yes\n"
            "[proxy:a]\nlisten = 127.0.0.1:5000\nlimit_wait = 20s\n"
        )

    def test_dane(self) -> None:
        """DANE without a name server that could vouch for anything."""
        path = "[path:default]\nenable_dane = yes\n"
        self.assert_told(
            f"[dns]\nnameservers = 192.0.2.1, 127.0.0.1\ntrusted_nameservers = ::1\n{path}",
            "5: [path:default] enable_dane: has no effect: no name server of [dns] is in "
            "trusted_nameservers",
        )
        for dns in (
            "nameservers = 192.0.2.1, 127.0.0.1",
            "nameservers = 192.0.2.1\ntrusted_nameservers = 192.0.2.0/24",
            "timeout = 5s",
        ):
            self.assert_told(f"[dns]\n{dns}\n{path}")

    def test_commas(self) -> None:
        """A comma too many may be a proxy that was lost."""
        for text in ("10.0.0.1:5000,", ",10.0.0.1:5000", "10.0.0.1:5000,,10.0.0.2:5000"):
            self.assert_told(
                f"[source:a]\nsocks5_proxy_server = {text}\n",
                "2: [source:a] socks5_proxy_server: there is nothing before or behind one of the "
                "commas",
            )
        self.assert_told("[source:a]\nsocks5_proxy_server = 10.0.0.1:5000,\n  10.0.0.2:5000\n")

    def test_proxy(self) -> None:
        """Keys of what a proxy has switched off or does not have."""
        self.assert_told(
            "[proxy:a]\nlisten = 127.0.0.1:5000\nkeepalive = no\nkeepalive_time = 1m\n"
            "limit_wait = 5s\n",
            "4: [proxy:a] keepalive_time: has no effect: there is no keepalive (keepalive = yes)",
            "5: [proxy:a] limit_wait: has no effect: there is no limit to wait for "
            "(max_connections_per_source = NUMBER)",
        )
        self.assert_told(
            "[proxy:a]\nlisten = 127.0.0.1:5000\nkeepalive_time = 1m\nlimit_wait = 5s\n"
            "max_connections_per_source = 2\n",
        )

    def test_users(self) -> None:
        """A rule for users of a proxy where nobody can log in would never match."""
        users = self.write("alice:secret\n", "users")
        open_one = "[proxy:open]\nlisten = 127.0.0.1:5000\n"
        closed = f"[proxy:closed]\nlisten = 127.0.0.1:5001\nauth = file:{users}\n"
        rule = "[proxy-rule:x]\nusers = alice\naction = deny\n"
        self.assert_told(
            open_one + rule,
            "4: [proxy-rule:x] users: nobody can log in: no [proxy:NAME] has auth",
        )
        self.assert_told(
            open_one + closed + rule + "proxy = open\n",
            "7: [proxy-rule:x] users: nobody can log in: [proxy:open] has no auth",
        )
        self.assert_told(open_one + closed + rule)
        self.assert_told(open_one + closed + rule + "proxy = closed\n")

    def test_empty_pool(self) -> None:
        """A pool without a source that a queue uses; one whose sources are off is a decision."""
        self.assert_told(
            "[pool:out]\n[queue:default]\negress_pool = out\n",
            "3: [queue:default] egress_pool: the pool 'out' has no source (a line SOURCE = 1 in "
            "[pool:out])",
        )
        self.assert_told(
            "[pool:unspecified]\n",
            "1: [pool:unspecified]: it has no source, and is the pool of every queue without "
            "egress_pool",
        )
        self.assert_told("[pool:out]\n")
        self.assert_told(
            "[source:a]\n[pool:out]\na = 0\n[queue:default]\negress_pool = out\n",
        )
