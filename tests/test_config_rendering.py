"""The effective configuration can be shown, and read again."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kumotwist.config import load, render
from tests.config_case import ConfigCase

_NAME = st.from_regex(r"[A-Za-z][A-Za-z0-9.-]{0,6}", fullmatch=True)
_DOMAIN = st.sampled_from(["example.com", "bücher.example", "gmail.com"])
_DURATION = st.sampled_from(["30s", "20 minutes", "1h30m", "7d", "1.25s"])


@st.composite
def configurations(draw: Any) -> str:
    """INI texts that are right."""
    names = draw(st.lists(_NAME, min_size=1, max_size=4, unique=True))
    lines = ["[kumo]", "hostname = mx.example.com"]
    for number, name in enumerate(names):
        lines.append(f"[source:{name}]")
        lines += draw(
            st.sampled_from(
                [
                    [],
                    ["source_address = 10.0.0.1"],
                    [
                        "socks5_proxy_server = [2001:db8::5]:5000",
                        "socks5_proxy_source_address = 10.0.0.1",
                        "verify_source_address = off",
                    ],
                    ["ha_proxy_server = a.example:1", "ha_proxy_source_address = 2001:db8::1"],
                    [r"endpoint = haproxy:{host}:{port}:server=a\:1:source=10.0.0.4"],
                ]
            )
        )
        lines += [f"[sink:{name}]", f"listen = 127.0.0.1:{3000 + number}"]
        lines += [f"[path:{draw(_DOMAIN)} via {name}]", f"idle_timeout = {draw(_DURATION)}"]
    lines.append("[pool:main]")
    lines += [f"{name} = {draw(st.integers(0, 9))}" for name in names]
    lines += ["[queue:default]", "egress_pool = main", f"max_age = {draw(_DURATION)}"]
    for pattern in draw(st.sets(st.sampled_from(["*@example.com", "t@*", "c:t@example.com"]))):
        lines += [f"[queue:{pattern}]", "route = [::1]:25,", "  mx.example.com", "", "  10.0.0.1"]
    lines += draw(st.sampled_from([[], ["[http]", "trusted_hosts ="]]))
    return "\n".join(lines) + "\n"


class RenderTests(ConfigCase):
    """C{render}."""

    @settings(max_examples=60, deadline=None)
    @given(configurations())
    def test_round_trip(self, text: str) -> None:
        """What is shown means what was read, and is shown the same."""
        found = self.load(text)
        shown = render(found)
        again = self.load(shown)
        self.assertEqual(again, found)
        self.assertEqual(render(again), shown)

    def test_defaults_are_shown(self) -> None:
        """Keys that nobody set are shown with their values, unset ones as comments."""
        shown = render(self.load("[kumo]\nhostname = a.example\n"))
        self.assertIn("[kumo]\nhostname = a.example\nstate_dir = var\nworkers = 1\n", shown)
        self.assertIn("[queue:default]\negress_pool = unspecified\nretry_interval = 20m\n", shown)
        self.assertIn("\n# max_retry_interval =\n", shown)
        self.assertIn("[pool:unspecified]\nunspecified = 1\n", shown)
        self.assertNotIn("[http]", shown)

    def test_rules_keep_their_keys(self) -> None:
        """A rule shows the keys that it sets: others would override less specific rules."""
        shown = render(self.load("[queue:a.example]\nmax_age = 1d\n"))
        self.assertIn("[queue:a.example]\nmax_age = 1d\n\n", shown)

    def test_proxy_rule(self) -> None:
        """A rule that leaves out what it matches is shown so that it can be read again."""
        found = self.load("[proxy-rule:a]\nusers = bob\naction = allow\n")
        shown = render(found)
        self.assertIn("users = bob\n# clients =\n# sources =\n# destinations =\n", shown)
        self.assertEqual(self.load(shown), found)

    def test_secrets(self) -> None:
        """Secrets are masked unless they are asked for; references are shown."""
        path = self.write("geheim\n", "password")
        found = self.load(
            "[source:a]\n"
            "socks5_proxy_server = a.example:1\n"
            "socks5_proxy_username = u\n"
            "socks5_proxy_password = geheim\n"
            "[source:b]\n"
            "socks5_proxy_server = a.example:1\n"
            "socks5_proxy_username = u\n"
            f"socks5_proxy_password = file:{path}\n"
            "[source:c]\n"
            r"endpoint = socks5:{host}:{port}:server=a\:1:username=u:password=geheim"
            "\n"
        )
        shown = render(found)
        self.assertNotIn("geheim", shown)
        self.assertIn("socks5_proxy_password = ********\n", shown)
        self.assertIn(f"socks5_proxy_password = file:{path}\n", shown)
        self.assertIn(":username=u:password=********\n", shown)
        self.load(shown)
        self.assertEqual(self.load(render(found, mask=False)), found)
        self.assertNotIn("geheim", repr(found))

    def test_include_is_merged(self) -> None:
        """What was included is part of what is shown."""
        self.write("[source:a]\n", "conf.d/a.ini")
        path = self.write("[kumo]\ninclude = conf.d/*.ini\n")
        found = load(path)
        self.write(render(found))
        os.remove(self.directory / "conf.d" / "a.ini")
        self.assertEqual(load(path), found)
