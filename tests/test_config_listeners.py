"""Tests of what a listener's section may say, and may not."""

from __future__ import annotations

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
