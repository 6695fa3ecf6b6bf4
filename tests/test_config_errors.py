"""Every mistake in a configuration is reported, each with its place and a way out."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.config import ConfigError, ConfigErrors, load
from kumotwist.config.errors import did_you_mean
from kumotwist.config.sections import KINDS
from tests.config_case import ConfigCase

TEN_MISTAKES = """\
[kumo]
hostnam = mx.example.com
workers = 0

[souce:ip-9]
source_address = 10.0.0.9

[listener:in]
listen = 127.0.0.1:2525
client_timeout = soon
tls_certificate = missing.pem
tls_private_key = missing.pem

[source:ip-1]
socks5_proxy_server = 10.0.5.10:5000
socks5_proxy_source_address = 10.0.0.1
ha_proxy_server = 10.0.5.10:2526
ha_proxy_source_address = 10.0.0.1

[pool:main]
ip1 = 1

[queue:default]
egress_pool = mian
max_age = 7d
max_age = 8d

[sink:trial]
listen = 127.0.0.1:2525
"""


class TenMistakesTests(ConfigCase):
    """A file in which nearly everything is wrong."""

    def test_all_at_once(self) -> None:
        """Every one of the mistakes is told in one run, in the order of the lines."""
        self.assertEqual(
            self.problems(TEN_MISTAKES),
            [
                "kumo.ini:2: [kumo] hostnam: unknown key (did you mean hostname?)",
                "kumo.ini:3: [kumo] workers: 0 is out of range (1 to 1000)",
                "kumo.ini:5: [souce:ip-9]: unknown section (did you mean [source:ip-9]?)",
                "kumo.ini:10: [listener:in] client_timeout: 'soon' is not a duration "
                "(such as 30s, 20m, 1h, 7d)",
                "kumo.ini:11: [listener:in] tls_certificate: cannot read 'missing.pem': "
                "No such file or directory",
                "kumo.ini:12: [listener:in] tls_private_key: cannot read 'missing.pem': "
                "No such file or directory",
                "kumo.ini:17: [source:ip-1] ha_proxy_server: a source has one way out, and "
                "socks5_proxy_server is another (one of them)",
                "kumo.ini:21: [pool:main] ip1: there is no source 'ip1' (did you mean ip-1?)",
                "kumo.ini:24: [queue:default] egress_pool: there is no pool 'mian' "
                "(did you mean main?)",
                "kumo.ini:26: [queue:default] max_age: is given twice (the first time on line 25)",
                "kumo.ini:29: [sink:trial] listen: tcp:2525:interface=127.0.0.1 is where "
                "[listener:in] listens (a port of its own)",
            ],
        )


class HeaderTests(ConfigCase):
    """Sections that cannot be what they say."""

    def test_unknown(self) -> None:
        """An unknown section that resembles none is answered with those there are."""
        self.assertEqual(
            self.one("[zzz]\n"),
            "1: [zzz]: unknown section (one of [kumo], [spool], [log], [dns], [listener:NAME], "
            "[listener:NAME peer NETWORK], "
            "[http], [source:NAME], [pool:NAME], [queue:PATTERN], [path:PATTERN], [proxy:NAME], "
            "[proxy-rule:NAME], [sink:NAME], [tls-reports], [check])",
        )

    def test_planned(self) -> None:
        """A section that is agreed on and not built is refused as such."""
        self.assertEqual(
            self.one("[dkim:example.com]\nselector = a\n"),
            "1: [dkim:example.com]: the section is not supported yet",
        )

    def test_name_missing(self) -> None:
        """A section that needs a name says so."""
        self.assertEqual(
            self.one("[source]\n"), "1: [source]: the section needs a name ([source:NAME])"
        )

    def test_name_unwanted(self) -> None:
        """A section that there is only once takes no name."""
        self.assertEqual(self.one("[kumo:a]\n"), "1: [kumo:a]: the section takes no name ([kumo])")

    def test_name_bad(self) -> None:
        """A name has no blanks; the keys of such a section are still checked."""
        self.assertEqual(
            self.problems("[source:a b]\nremote_port = x\n"),
            [
                "kumo.ini:1: [source:a b]: 'a b' is not a name "
                "(letters, digits and any of . _ - : / +)",
                "kumo.ini:2: [source:a b] remote_port: 'x' is not a whole number "
                "(such as 1000 or 1,000)",
            ],
        )

    def test_twice(self) -> None:
        """A section that is there twice is refused, also if the spelling differs."""
        problem = self.one("[queue:example.com]\n\n[queue:Example.COM]\n")
        self.assertTrue(problem.startswith("3: [queue:Example.COM]: the section is already at "))
        self.assertTrue(problem.endswith("kumo.ini:1"))

    def test_bad_patterns(self) -> None:
        """Patterns that can match nothing are refused."""
        for text, problem in {
            "[queue:a b]": "1: [queue:a b]: 'a b' is not a pattern of queues (default, DOMAIN, "
            "TENANT@DOMAIN or CAMPAIGN:TENANT@DOMAIN, with a * in any part)",
            "[queue:t@default]": "1: [queue:t@default]: 't@default': default stands alone (t@*)",
            "[queue:-a-]": "1: [queue:-a-]: '-a-' is not a domain name (such as example.com)",
            "[queue:*.a$]": "1: [queue:*.a$]: '*.a$' is not a pattern of domains "
            "(such as *.example.com)",
            "[path:a b]": "1: [path:a b]: 'a b' is not a domain name (such as example.com)",
            "[path:a.b via ip]": "1: [path:a.b via ip]: there is no source 'ip' "
            "(a section [source:ip])",
            "[path:*.a.b]": "1: [path:*.a.b]: '*.a.b' is not a domain name (such as example.com)",
        }.items():
            self.assertEqual(self.one(text + "\n"), problem)


class KeyTests(ConfigCase):
    """Keys and values that are wrong."""

    def test_planned(self) -> None:
        """A key that is agreed on and not built is refused as such, not as unknown."""
        self.assertEqual(
            self.one("[kumo]\npolicy = policy.py\n"),
            "2: [kumo] policy: is not supported yet",
        )

    def test_elsewhere(self) -> None:
        """A key of another section is told where it belongs."""
        self.assertEqual(
            self.one("[queue:default]\nmax_ready = 3\n"),
            "2: [queue:default] max_ready: unknown key (a key of [path:PATTERN])",
        )

    def test_missing(self) -> None:
        """A key that must be there is asked for."""
        self.assertEqual(
            self.one("[proxy:a]\n"), "1: [proxy:a] listen: is missing (server endpoint)"
        )

    def test_protocol(self) -> None:
        """A delivery protocol that does not exist is refused, with those that do."""
        self.assertEqual(
            self.one("[queue:default]\nprotocol = uucp\n"),
            "2: [queue:default] protocol: 'uucp' is not a protocol (smtp, lmtp, maildir:PATH, "
            "null)",
        )

    def test_no_follow_up(self) -> None:
        """A value that cannot be read is one problem, also if others depend on it."""
        self.assertEqual(
            self.one(
                "[source:a]\nsocks5_proxy_server = nowhere\nsocks5_proxy_source_address = 10.0.0.1"
            ),
            "2: [source:a] socks5_proxy_server: 'nowhere' is not HOST:PORT "
            "(such as 10.0.5.10:5000 or [2001:db8::1]:5000)",
        )

    def test_undefined_proxy(self) -> None:
        """A rule for a proxy that is not there is refused."""
        self.assertEqual(
            self.one("[proxy-rule:a]\nproxy = b\naction = deny\n"),
            "2: [proxy-rule:a] proxy: there is no proxy 'b' (a section [proxy:b])",
        )
        self.assertEqual(
            self.one("[proxy-rule:a]\nproxy = b, c\naction = deny\n"),
            "2: [proxy-rule:a] proxy: takes one name (a rule for each proxy, or none of this key "
            "for all)",
        )

    def test_empty_rule(self) -> None:
        """A key of a rule that is left empty does not mean that anything matches."""
        keys = ("users", "clients", "sources", "destinations", "ports")
        for key in keys:
            for empty in ("", " ,"):
                self.assertEqual(
                    self.one(f"[proxy-rule:a]\naction = allow\n{key} ={empty}\n"),
                    f"3: [proxy-rule:a] {key}: the value is empty (leave the key out if anything "
                    "may match)",
                )

    def test_host_bits(self) -> None:
        """An address within a network is no network, wherever one is named."""
        for section, key in (
            ("[proxy-rule:a]\naction = allow\n", "sources"),
            ("[listener:a]\nlisten = 127.0.0.1:1\n", "relay_hosts"),
            ("[listener:a]\nlisten = 127.0.0.1:1\n", "trusted_proxies"),
            ("[http]\nlisten = 127.0.0.1:1\n", "trusted_hosts"),
            ("[path:default]\nenable_tls = Disabled\n", "skip_hosts"),
        ):
            self.assertIn(
                f"3: {section.splitlines()[0]} {key}: '1.2.3.4/8' is an address within the network "
                "1.0.0.0/8; write",
                self.one(f"{section}{key} = 1.2.3.4/8\n"),
            )

    def test_control_characters(self) -> None:
        """What cannot be shown is escaped in messages."""
        self.assertEqual(self.one("[kumo]\nx\x1b[2J = 1\n"), "2: [kumo] x\\x1b[2j: unknown key")

    def test_unreadable_proxy_certificate(self) -> None:
        """Every certificate that is named must be readable."""
        problems = self.problems(
            "[proxy:a]\nlisten = 127.0.0.1:1\ntls_certificate = /nonexistent/c.pem\n"
        )
        self.assertEqual(
            problems,
            [
                "kumo.ini:3: [proxy:a] tls_certificate: cannot read '/nonexistent/c.pem': "
                "No such file or directory"
            ],
        )

    def test_bad_endpoint_strings(self) -> None:
        """Server endpoint strings are understood when the file is read."""
        for text, problem in {
            "tpc:25": "there is no server endpoint 'tpc' (did you mean tcp?)",
            "tcp:25:foo=bar": "'tcp:25:foo=bar' is not a server endpoint: got an unexpected "
            "keyword argument 'foo' (such as tcp:2525:interface=127.0.0.1)",
            "2525": "'2525' is neither ADDR:PORT nor a server endpoint string "
            "(such as 127.0.0.1:2525 or tcp:2525:interface=127.0.0.1)",
        }.items():
            self.assertEqual(self.one(f"[http]\nlisten = {text}\n"), f"2: [http] listen: {problem}")

    def test_bad_endpoint_of_a_source(self) -> None:
        """Client endpoint strings too."""
        problem = self.one("[source:a]\nendpoint = sock5:{host}:{port}:server=a\n")
        self.assertTrue(problem.startswith("2: [source:a] endpoint: "), problem)

    def test_secret_stays_secret(self) -> None:
        """No message contains a password."""
        for line in (
            "socks5_proxy_password = geheim",
            "socks5_proxy_password = geheim\n  geheim",
            "endpoint = socks5:{host}:{port}:server=x:username=u:password=geheim:bogus=1",
            "endpoint = nonsense:{host}:{port}:password=geheim",
            "socks5_proxy_server = socks5:a:1:server=x:password=geheim:bogus=1",
        ):
            problems = self.problems(f"[source:a]\n{line}\n")
            self.assertNotIn("geheim", "\n".join(problems))


class ListeningTests(ConfigCase):
    """Two servers in one place."""

    def clash(self, one: str, other: str) -> bool:
        """Whether two places collide."""
        path = self.write(f"[sink:a]\nlisten = {one}\n[sink:b]\nlisten = {other}\n")
        try:
            load(path)
        except ConfigErrors:
            return True
        return False

    def test_collisions(self) -> None:
        """The same port on the same address, or on all of them."""
        self.assertTrue(self.clash("127.0.0.1:25", "tcp:25:interface=127.0.0.1"))
        self.assertTrue(self.clash("*:25", "127.0.0.1:25"))
        self.assertTrue(self.clash("[::1]:25", "[::]:25"))
        self.assertTrue(self.clash("unix:/run/a", "unix:/run/a"))

    def test_neighbours(self) -> None:
        """Other addresses, other ports, any free port."""
        self.assertFalse(self.clash("127.0.0.1:25", "127.0.0.2:25"))
        self.assertFalse(self.clash("127.0.0.1:25", "127.0.0.1:26"))
        self.assertFalse(self.clash("127.0.0.1:25", "[::1]:25"))
        self.assertFalse(self.clash("127.0.0.1:0", "127.0.0.1:0"))
        self.assertFalse(self.clash("unix:/run/a", "unix:/run/b"))


class FileTests(ConfigCase):
    """Files that cannot be read, or are not INI files."""

    def test_missing_file(self) -> None:
        """A file that is not there is named."""
        errors = self.assertRaises(ConfigErrors, load, "/nonexistent/kumo.ini")
        self.assertEqual(
            str(errors), "/nonexistent/kumo.ini:1: cannot be read: No such file or directory"
        )

    def test_directory(self) -> None:
        """A directory is not a file."""
        errors = self.assertRaises(ConfigErrors, load, os.fspath(self.directory))
        self.assertIn("cannot be read: Is a directory", str(errors))

    def test_not_utf8(self) -> None:
        """A file in another encoding is refused with the line of the first wrong byte."""
        path = Path(self.write(""))
        path.write_bytes(b"[kumo]\nhostname = caf\xe9\n")
        errors = self.assertRaises(ConfigErrors, load, os.fspath(path))
        self.assertEqual(str(errors), f"{path}:2: byte 0xe9 is not UTF-8 (a file in UTF-8)")

    def test_not_ini(self) -> None:
        """A file in another language is one problem, not one a line."""
        self.assertEqual(
            self.problems("kumo.on('init', function()\n  x = 1\nend)\ny = 2\n"),
            ["kumo.ini:1: there is no section above this line (such as [kumo])"],
        )

    def test_bad_lines(self) -> None:
        """Lines that are nothing, each once, with the lines that continue them."""
        self.assertEqual(
            self.problems("[kumo]\nhostname: x\n  y\n= z\n[sink:a] ; trial\n[oops\nfoo = 1\n"),
            [
                "kumo.ini:2: [kumo]: the line is neither [SECTION] nor KEY = VALUE",
                "kumo.ini:4: [kumo]: the line is neither [SECTION] nor KEY = VALUE",
                "kumo.ini:5: '[sink:a] ; trial' is not a section header "
                "([NAME] and nothing after it)",
                "kumo.ini:6: '[oops' is not a section header ([NAME] and nothing after it)",
            ],
        )

    def test_include_without_match(self) -> None:
        """A pattern that matches no file is a mistake."""
        self.assertEqual(
            self.problems("[kumo]\ninclude = conf.d/*.ini\n"),
            [
                "kumo.ini:2: [kumo] include: 'conf.d/*.ini' matches no file "
                "(relative to the file that says it)"
            ],
        )

    def test_errors_of_included_files(self) -> None:
        """Mistakes in included files carry those files' names and lines."""
        self.write("\n[sink:a]\nlisten = x\n", "conf.d/a.ini")
        self.write("[sink:a]\n", "conf.d/b.ini")
        problems = self.problems("[kumo]\ninclude = conf.d/*.ini\n")
        self.assertEqual(len(problems), 2)
        self.assertTrue(problems[0].startswith("conf.d/a.ini:3: [sink:a] listen: 'x' is "))
        self.assertEqual(
            problems[1], "conf.d/b.ini:1: [sink:a]: the section is already at conf.d/a.ini:2"
        )


class ConfigErrorTests(SynchronousTestCase):
    """The errors as values."""

    def test_sorted(self) -> None:
        """They are sorted by file and line, whatever their order was."""
        errors = ConfigErrors(
            ConfigError(file, line, "s", "k", "p") for file, line in [("b", 1), ("a", 10), ("a", 9)]
        )
        self.assertEqual(
            [(error.file, error.line) for error in errors.errors], [("a", 9), ("a", 10), ("b", 1)]
        )

    def test_suggestions(self) -> None:
        """A word that is nearly right is recognised, whatever its case; others are not."""
        self.assertEqual(did_you_mean("LISTN", ["listen"]), " (did you mean listen?)")
        self.assertEqual(did_you_mean("zebra", ["listen"]), "")


class UnknownKeyTests(ConfigCase):
    """Nothing is silently ignored."""

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from([kind for kind in KINDS.values() if not kind.is_pool]),
        st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True),
    )
    def test_always_refused(self, kind: object, key: str) -> None:
        """Whatever the section, a key that is not declared is an error on its line."""
        assert hasattr(kind, "keys")
        assert hasattr(kind, "form")
        if key in kind.keys:
            return
        header = kind.form.replace("NAME", "a").replace("PATTERN", "example.com")
        problems = self.problems(f"[{header}]\n{key} = 1\n")
        mine = [line for line in problems if line.startswith(f"kumo.ini:2: [{header}] {key}: ")]
        self.assertEqual(len(mine), 1)
