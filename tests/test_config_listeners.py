"""Tests of what a listener's section may say, and may not."""

from __future__ import annotations

import ipaddress

from kumotwist.config.rendering import render
from tests.config_case import ConfigCase


class AuthTests(ConfigCase):
    """Who may log in."""

    def test_file(self) -> None:
        """C{file:PATH} is taken if the file is there."""
        path = self.write("ann:s3cret\n", "users")
        configuration = self.load(f"[listener:main]\nauth = file:{path}\n")
        self.assertEqual(configuration.listeners["main"].auth, f"file:{path}")
        self.assertIn(f"auth = file:{path}", render(configuration))
        problem = self.one("[listener:main]\nauth = file:/not/there\n")
        self.assertIn("2: [listener:main] auth:", problem)
        self.assertIn("/not/there", problem)

    def test_secret(self) -> None:
        """Passwords in the string are masked, and no error shows them."""
        configuration = self.load("[listener:main]\nauth = memory:ann:s3cret\n")
        self.assertIn("auth = memory:********", render(configuration))
        self.assertNotIn("s3cret", repr(configuration))
        self.assertIn("no cred plugin", self.one("[listener:main]\nauth = memry:ann:s3cret\n"))
        self.assertNotIn("s3cret", self.one("[listener:main]\nauth = memry:ann:s3cret\n"))

    def test_nobody_could_log_in(self) -> None:
        """Logins that are required and impossible are errors."""
        self.assertIn("nobody can log in", self.one("[listener:main]\nrequire_auth = yes\n"))
        self.assertIn(
            "nobody can log in: there is no TLS",
            self.one("[listener:main]\ntls = none\nauth = memory:a:b\n"),
        )
        self.load("[listener:main]\ntls = none\nauth = memory:a:b\nallow_auth_without_tls = on\n")


class PeerTests(ConfigCase):
    """Exceptions for the clients of a network."""

    TEXT = (
        "[listener:main peer 10.0.0.0/8]\nmax_message_size = 1MiB\nbanner = in\n"
        "[listener:main]\nlisten = 127.0.0.1:2525\nclient_timeout = 9s\n"
        "[listener:main  peer 10.1.0.0/16]\nbanner = near\n"
        "[listener:main peer ::1]\nbanner = self\n"
        "[listener:other]\nlisten = 127.0.0.1:2526\n"
    )

    def test_merge(self) -> None:
        """Key by key the smallest network wins; other clients and other listeners are untouched."""
        listeners = self.load(self.TEXT).listeners
        for address, size, banner in (
            ("10.2.0.1", 1 << 20, "in"),
            ("10.1.0.1", 1 << 20, "near"),
            ("::1", 20 << 20, "self"),
            ("192.0.2.1", 20 << 20, "kumotwist"),
        ):
            found = listeners["main"].for_client(ipaddress.ip_address(address))
            self.assertEqual((found.max_message_size, found.banner), (size, banner))
            self.assertEqual((found.client_timeout, found.name), (9.0, "main"))
        self.assertEqual(listeners["other"].peers, ())

    def test_rendered(self) -> None:
        """What is written can be read again."""
        configuration = self.load(self.TEXT)
        text = render(configuration)
        self.assertIn("[listener:main peer 10.1.0.0/16]\nbanner = near\n", text)
        self.assertEqual(self.load(text), configuration)

    def test_wrong(self) -> None:
        """A listener that is not there, networks that are none, keys of the whole listener."""
        self.assertIn("there is no listener 'man'", self.one("[listener:man peer 10.0.0.0/8]\n"))
        base = "[listener:main]\n"
        for header in ("main peer", "main peer x", "main peer 10.0.0.1, 10.0.0.2", " peer ::1"):
            self.assertIn(" is n", self.one(f"{base}[listener:{header}]\n"), header)
        self.assertIn(
            "listen: unknown key (a key of [listener:NAME]",
            self.one(base + "[listener:main peer 10.0.0.0/8]\nlisten = 127.0.0.1:1\n"),
        )
        self.assertIn(
            "the section is already",
            self.one(base + "[listener:main peer 10.0.0.1]\n[listener:main peer 10.0.0.1/32]\n"),
        )

    def test_does_not_fit(self) -> None:
        """What contradicts the listener's own keys is found, once, where it stands."""
        self.assertIn(
            "3: [listener:main peer 10.0.0.0/8] require_auth: nobody can log in",
            self.one("[listener:main]\n[listener:main peer 10.0.0.0/8]\nrequire_auth = yes\n"),
        )
        self.assertIn(
            "max_message_size: one message",
            self.one("[listener:main]\n[listener:main peer ::/0]\nmax_message_size = 1GiB\n"),
        )


class PostmasterTests(ConfigCase):
    """C{postmaster} of C{[kumo]}."""

    def test_address(self) -> None:
        """It is an address with a domain, in ASCII."""
        node = self.load("[kumo]\npostmaster = ops@example.org\n").node
        self.assertEqual(node.postmaster, "ops@example.org")
        for wrong in (
            "postmaster",
            "a b@c.d",
            "j\u00fc@example.org",
            "a@b\u00fc.example",
            "<a@b.c>",
        ):
            self.assertIn("postmaster: ", self.one(f"[kumo]\npostmaster = {wrong}\n"))


class ProxyTests(ConfigCase):
    """Proxies in front of a listener."""

    def test_whom_to_believe(self) -> None:
        """A header is required of those who are named, or of those in a network's section."""
        self.assertIn(
            "whose headers are to be believed?",
            self.one("[listener:main]\nrequire_proxy_protocol = yes\n"),
        )
        self.load(
            "[listener:main]\nrequire_proxy_protocol = yes\ntrusted_proxies = 10.0.0.1\n"
            "[listener:other]\nlisten = 127.0.0.1:2526\n"
            "[listener:other peer 10.0.0.0/8]\nrequire_proxy_protocol = yes\n"
        )
