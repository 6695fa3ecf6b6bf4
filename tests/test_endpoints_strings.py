"""Tests for endpoint strings: the plugins, templates, and what wrong strings are told."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import (
    _parse,  # the syntax that ours must agree with
    clientFromString,
    quoteStringArgument,
)
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.plugin import IPlugin, getPlugins
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.endpoints import EndpointTemplate, ProxyBindError, ProxyHop
from kumotwist.endpoints.parsers import EndpointParser
from kumotwist.endpoints.strings import fill, join_arguments, split_arguments
from tests.test_endpoints_contract import Applications, authority

BOUND = b"\x05\x00\x00\x01\x0a\x00\x00\x01\xcf\xda"


def accept(reactor: MemoryReactorClock, factory: Any) -> tuple[Any, StringTransport]:
    """Let the last TCP connection of a reactor succeed; its protocol and transport."""
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


V4 = ipaddress.ip_address("10.0.0.4")


class SyntaxTests(SynchronousTestCase):
    """Taking endpoint strings apart and putting them together."""

    @settings(max_examples=150, deadline=None)
    @given(st.text(alphabet="ab1\\:=", max_size=24))
    def test_agrees_with_twisted(self, text: str) -> None:
        """Whatever Twisted's parser reads, ours reads as well."""
        try:
            expected = _parse(text)
        except (RuntimeError, StopIteration):
            self.assertRaises(ValueError, split_arguments, text)
            return
        try:
            self.assertEqual(split_arguments(text), expected)
        except ValueError as error:
            self.assertIn("twice", str(error))

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.text(alphabet="ab\\:=", min_size=1), min_size=1, max_size=4),
        st.dictionaries(st.sampled_from(["a", "b"]), st.text(alphabet="ab\\:=")),
    )
    def test_round_trip(self, positional: list[str], named: dict[str, str]) -> None:
        """What was put together is taken apart again, for us and for Twisted."""
        text = join_arguments(positional, named)
        self.assertEqual(split_arguments(text), (positional, named))
        self.assertEqual(_parse(text), (positional, named))

    def test_fill(self) -> None:
        """An IPv6 destination is quoted as often as the place demands."""
        for text, expected in (
            ("{host}", "2001:db8::1"),
            ("{port}", "25"),
            ("mx-{port}.example.com", "mx-25.example.com"),
            ("tcp:{host}:{port}", r"tcp:2001\:db8\:\:1:25"),
            (r"x:server=tcp\:{host}\:{port}", r"x:server=tcp\:2001\\\:db8\\\:\\\:1\:25"),
        ):
            self.assertEqual(fill(text, "2001:db8::1", 25), expected)
        self.assertEqual(fill(r"no\:thing", "2001:db8::1", 25), r"no\:thing")


class PluginTests(SynchronousTestCase):
    """C{clientFromString} knows our prefixes."""

    def test_registered(self) -> None:
        """The drop-in registers one parser for each prefix, and each is what it claims to be."""
        plugins = [
            plugin
            for plugin in getPlugins(IStreamClientEndpointStringParserWithReactor)
            if isinstance(plugin, EndpointParser)
        ]
        prefixes = sorted(plugin.prefix for plugin in plugins)
        self.assertEqual(prefixes, ["haproxy", "http-connect", "socks5"])
        for plugin in plugins:
            verifyObject(IStreamClientEndpointStringParserWithReactor, plugin)
            verifyObject(IPlugin, plugin)

    def test_drop_in_is_light(self) -> None:
        """Loading the drop-in imports nothing of this package but the parsers."""
        script = (
            "import sys, twisted.plugins.kumotwist_endpoints as p\n"
            "print(sorted(m for m in sys.modules if m.startswith('kumotwist')))"
        )
        root = FilePath(__file__).parent().parent().path
        printed = subprocess.run(
            [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
        ).stdout
        expected = ["kumotwist", "kumotwist.endpoints", "kumotwist.endpoints.parsers"]
        self.assertEqual(printed.strip(), str(expected))

    def test_socks5(self) -> None:
        """socks5: with everything makes an endpoint that says just that to the proxy."""
        for prefix in ("socks5", "SOCKS5"):
            reactor = MemoryReactorClock()
            endpoint = clientFromString(
                reactor,
                prefix + r":192.0.2.1:25:server=10.0.5.10\:5000:source=10.0.0.1"
                r":username=user:password=pa\:ss=word:timeout=7.5",
            )
            connecting: Any = endpoint.connect(Applications())
            host, port, factory, timeout, _ = reactor.tcpClients[0]
            self.assertEqual((host, port, timeout), ("10.0.5.10", 5000, 7.5))
            protocol, transport = accept(reactor, factory)
            for reply in (b"\x05\x02", b"\x01\x00", BOUND, BOUND + b"220 hello"):
                protocol.dataReceived(reply)
            self.assertEqual(
                transport.value(),
                b"\x05\x02\x00\x02\x01\x04user\x0apa:ss=word"
                b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19",
            )
            application = self.successResultOf(connecting)
            self.assertEqual(application.events, ["made", b"220 hello"])
            self.assertEqual(
                application.transport.getProxy(),
                ProxyHop("socks5", "10.0.5.10:5000", "10.0.0.1:53210", "192.0.2.1:25"),
            )

    def test_unverified_source(self) -> None:
        """verifySource=no accepts a proxy that reports a translated address."""
        translated = b"\x05\x00\x00\x01\xcb\x00\x71\x09\x00\x07"
        for verify in ("", ":verifySource=yes"):
            connecting, protocol = self.bind(verify)
            protocol.dataReceived(translated)
            self.failureResultOf(connecting, ProxyBindError)
        connecting, protocol = self.bind(":verifySource=no")
        protocol.dataReceived(translated)
        protocol.dataReceived(translated)
        hop = self.successResultOf(connecting).transport.getProxy()
        self.assertEqual(hop.source_address, "203.0.113.9:7")

    def bind(self, more: str) -> tuple[Any, Any]:
        """Connect as far as to BIND: what comes of it, and the connection to the proxy."""
        reactor = MemoryReactorClock()
        text = r"socks5:192.0.2.1:25:server=10.0.5.10\:5000:source=10.0.0.1" + more
        connecting = clientFromString(reactor, text).connect(Applications())
        protocol, _ = accept(reactor, reactor.tcpClients[0][2])
        protocol.dataReceived(b"\x05\x00")
        return connecting, protocol

    def test_haproxy(self) -> None:
        """haproxy: makes an endpoint that sends the header first and once."""
        reactor = MemoryReactorClock()
        endpoint = clientFromString(
            reactor,
            r"haproxy:2001\:db8\:\:1:25:server=[2001\:db8\:\:5]\:2526:source=2001\:db8\:\:9",
        )
        connecting: Any = endpoint.connect(Applications())
        self.assertEqual(reactor.tcpClients[0][:2], ("2001:db8::5", 2526))
        _, transport = accept(reactor, reactor.tcpClients[0][2])
        self.assertTrue(transport.value().startswith(b"\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24"))
        self.assertEqual(
            self.successResultOf(connecting).transport.getProxy(),
            ProxyHop("haproxy", "[2001:db8::5]:2526", "[2001:db8::9]:0", "[2001:db8::1]:25"),
        )

    def test_haproxy_facts(self) -> None:
        """haproxy: takes what else the header shall say."""
        reactor = MemoryReactorClock()
        endpoint = clientFromString(
            reactor,
            r"haproxy:192.0.2.1:25:server=10.0.5.10\:2526:source=10.0.0.2"
            r":uniqueId=session-7:authority=mx.example:alpn=smtp",
        )
        endpoint.connect(Applications())
        _, transport = accept(reactor, reactor.tcpClients[0][2])
        self.assertTrue(
            transport.value().endswith(
                b"\x05\x00\x09session-7\x02\x00\x0amx.example\x01\x00\x04smtp"
            )
        )

    def test_nested_in_tls(self) -> None:
        """Twisted's tls: takes ours as the connection below it."""
        reactor = MemoryReactorClock()
        inner = r"socks5:192.0.2.1:443:server=10.0.5.10\:5000"
        text = "tls:example.com:443:endpoint=" + quoteStringArgument(inner)
        clientFromString(reactor, text).connect(Applications())
        self.assertEqual(reactor.tcpClients[0][:2], ("10.0.5.10", 5000))

    def test_placeholders_are_for_templates(self) -> None:
        """A string for clientFromString has nothing to put in place of {host}."""
        text = r"socks5:{host}:25:server=10.0.5.10\:5000"
        self.assertRaises(ValueError, clientFromString, MemoryReactorClock(), text)


class TemplateTests(SynchronousTestCase):
    """Strings with {host} and {port}, parsed once."""

    def clients(self, text: str, host: str, port: int = 25) -> list[Any]:
        """The TCP connections that a template begins for a destination."""
        reactor = MemoryReactorClock()
        template = EndpointTemplate.parse(text)
        self.assertTrue(template.needs_destination)
        template.endpoint(reactor, host, port).connect(Applications())
        return reactor.tcpClients

    def test_destination(self) -> None:
        """The destination takes the place of the placeholders, IPv6 as well."""
        text = r"socks5:{host}:{port}:server=10.0.5.10\:5000"
        for host, request in (
            ("192.0.2.1", b"\x01\xc0\x00\x02\x01\x02\x4b"),
            ("2001:db8::1", b"\x04" + bytes.fromhex("20010db8000000000000000000000001024b")),
            ("mx.example", b"\x03\x0amx.example\x02\x4b"),
        ):
            [client] = self.clients(text, host, 587)
            protocol, transport = accept(MemoryReactorClock(), client[2])
            transport.clear()
            protocol.dataReceived(b"\x05\x00")
            self.assertEqual(transport.value(), b"\x05\x01\x00" + request)

    def test_nested_destination(self) -> None:
        """Within a string within a string the destination is found too."""
        text = (
            r"tls:{host}:{port}:endpoint=socks5\:{host}\:{port}"
            r"\:server=socks5\\\:10.0.7.7\\\:1080\\\:server=10.0.5.10\\\\\\\:5000"
        )
        for host in ("192.0.2.1", "2001:db8::1"):
            [client] = self.clients(text, host)
            self.assertEqual(client[:2], ("10.0.5.10", 5000))

    def test_unknown_kinds(self) -> None:
        """Other kinds of endpoints are filled in and left to those who know them."""
        [client] = self.clients("tcp:{host}:{port}:timeout=5", "2001:db8::1")
        self.assertEqual(client[:2], ("2001:db8::1", 25))
        reactor = MemoryReactorClock()
        template = EndpointTemplate.parse("unix:/run/{host}.sock")
        template.endpoint(reactor, "2001:db8::1", 25).connect(Applications())
        self.assertEqual(reactor.unixClients[0][0], "/run/2001:db8::1.sock")

    def test_parsed_once(self) -> None:
        """Making an endpoint neither looks for plugins nor parses."""
        from kumotwist.endpoints import kinds

        template = EndpointTemplate.parse(
            r"socks5:{host}:{port}:server=tls\:proxy.example.com\:1080:source=10.0.0.4"
        )
        for name in ("getPlugins", "split_arguments", "clientFromString", "parse_host_port"):
            self.patch(kinds, name, None)
        reactor = MemoryReactorClock()
        template.endpoint(reactor, "192.0.2.1", 25).connect(Applications())
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 1080))

    def test_destination_is_checked(self) -> None:
        """A destination that cannot be, or is missing, is refused."""
        template = EndpointTemplate.parse(
            r"socks5:{host}:{port}:server=10.0.5.10\:5000:source=10.0.0.4"
        )
        for host, port in (("", 25), ("mx.example.com", 25), ("192.0.2.1", 0)):
            self.assertRaises(ValueError, template.endpoint, MemoryReactorClock(), host, port)

    def test_without_destination(self) -> None:
        """A string without placeholders leads where it says."""
        template = EndpointTemplate.parse("tcp:192.0.2.1:25")
        self.assertFalse(template.needs_destination)
        reactor = MemoryReactorClock()
        template.endpoint(reactor).connect(Applications())
        self.assertEqual(reactor.tcpClients[0][:2], ("192.0.2.1", 25))

    def test_route(self) -> None:
        """A template tells which proxy and which address it leads through; of an endpoint that
        another program builds, its kind."""
        proxy = r":server=10.0.5.10\:5000"
        for text, words, source in (
            ("socks5:{host}:{port}" + proxy + ":source=10.0.0.4", "socks5 10.0.5.10:5000", V4),
            ("socks5:{host}:{port}" + proxy, "socks5 10.0.5.10:5000", None),
            ("haproxy:{host}:{port}" + proxy + ":source=10.0.0.4", "haproxy 10.0.5.10:5000", V4),
            ("http-connect:{host}:{port}" + proxy, "http-connect 10.0.5.10:5000", None),
            ("tcp:{host}:{port}:bindAddress=10.0.0.4", "", V4),
            ("tls:{host}:{port}:endpoint=" + r"tcp\:{host}\:{port}", "", None),
            ("unix:/run/{host}.sock", 'endpoint "unix:/run/{host}.sock"', None),
        ):
            route = EndpointTemplate.parse(text).route
            self.assertEqual((str(route), route.source), (words, source), text)

    def test_secrets(self) -> None:
        """A template does not show its password."""
        template = EndpointTemplate.parse(
            r"socks5:{host}:{port}:server=10.0.5.10\:5000:username=u:password=s3cret"
        )
        self.assertNotIn("s3cret", repr(template) + str(template) + template.name)

    def test_tls_files(self) -> None:
        """Authorities and the client's certificate are read when the string is parsed."""
        folder = FilePath(self.mktemp())
        folder.makedirs()
        mine = authority().issue_cert("me.example")
        folder.child("ca.pem").setContent(authority().cert_pem.bytes())
        folder.child("cert.pem").setContent(mine.cert_chain_pems[0].bytes())
        folder.child("key.pem").setContent(mine.private_key_pem.bytes())
        path = folder.path
        for trust in (path, f"{path}/ca.pem"):
            EndpointTemplate.parse(
                f"tls:{{host}}:{{port}}:trustRoots={trust}:certificate={path}/cert.pem"
                f":privateKey={path}/key.pem"
            )
        folder.child("bad.pem").setContent(
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        )
        for wrong, words in (
            ("trustRoots=/nonexistent", "trustRoots: cannot read"),
            (f"trustRoots={path}/key.pem", "trustRoots: there is no certificate"),
            (f"trustRoots={path}/bad.pem", "trustRoots: "),
            ("certificate=/nonexistent", "certificate: cannot read"),
            (f"certificate={path}/cert.pem", "certificate: "),
            (f"privateKey={path}/key.pem", "certificate: missing"),
        ):
            error = self.assertRaises(ValueError, EndpointTemplate.parse, f"tls:mx:25:{wrong}")
            self.assertIn(words, str(error))


class WrongStringTests(SynchronousTestCase):
    """Wrong strings are told which argument is wrong and why."""

    def test_wrong(self) -> None:
        """The same message comes from a template and from clientFromString."""
        for text, words in (
            ("socks5", "not an endpoint string"),
            ("socks5:192.0.2.1:25", r"server: missing (such as server=10.0.5.10\:5000)"),
            (r"socks5:192.0.2.1:server=a\:1", "port: missing"),
            (r"socks5:192.0.2.1:x:server=a\:1", "port: 'x' is not between 1 and 65535"),
            (r"socks5:192.0.2.1:65536:server=a\:1", "port: '65536' is not between"),
            (r"socks5:192.0.2:25:server=a\:1", "host: '192.0.2' is not an IP address"),
            (r"socks5:" + "x" * 256 + r":25:server=a\:1", "host: a name of 256 octets"),
            ("socks5:192.0.2.1:25:server=a", r"server: neither HOST\:PORT nor"),
            (r"socks5:192.0.2.1:25:server=nokind\:1\:2", "server: unknown endpoint type 'nokind'"),
            (r"socks5:192.0.2.1:25:server=tcp\:a", "server: tcp: port: missing"),
            (
                r"socks5:192.0.2.1:25:server=a\:99999",
                "server: port: '99999' is not between 1 and 65535",
            ),
            (r"socks5:192.0.2.1:25:server=a\:" + "9" * 5000, "server: port: '9999"),
            (r"socks5:192.0.2.1:25:server=[\:\:1]\:0", "server: port: '0' is not between"),
            (
                r"socks5:192.0.2.1:25:server=a\:1:source=0.0.0.0",
                "source: 0.0.0.0 is not the address of one machine",
            ),
            (r"socks5:192.0.2.1:25:server=a\:1:source=224.0.0.1", "source: 224.0.0.1 is not the"),
            (r"haproxy:192.0.2.1:25:server=a\:1:source=0.0.0.0", "source: 0.0.0.0 is not the"),
            (
                r"socks5:192.0.2.1:25:server=a\:1:source=10.0.0.1:verifySource=maybe",
                "verifySource: 'maybe' is neither yes nor no",
            ),
            (r"http-connect:192.0.2.1:25:server=a\:1:verifySource=no", "'verifySource' is unknown"),
            (
                r"socks5:192.0.2.1:25:server=socks5\:mx\:1\:server=a\\\:1\:server=b\\\:1",
                "server: an argument is given twice",
            ),
            (r"socks5:192.0.2.1:25:server=a\:1:source=x", "source: 'x' is not an IP address"),
            (
                r"socks5:192.0.2.1:25:server=a\:1:source=\:\:1",
                "source: ::1 is not of the same family as the host 192.0.2.1",
            ),
            (r"socks5:mx.example:25:server=a\:1:source=10.0.0.1", "source: can be chosen only"),
            (r"socks5:192.0.2.1:25:server=a\:1:sorce=10.0.0.1", "did you mean 'source'?"),
            (r"socks5:192.0.2.1:25:server=a\:1:username=u", "password: missing"),
            (r"socks5:192.0.2.1:25:server=a\:1:timeout=soon", "timeout: 'soon' is not"),
            (r"socks5:192.0.2.1:25:server=a\:1:timeout=nan", "timeout: 'nan' is not"),
            (r"socks5:192.0.2.1:25:server=a:1", r"server: neither HOST\:PORT nor"),
            (r"socks5:192.0.2.1:25:26:server=a\:1", "1 argument(s) too many"),
            (
                rf"haproxy:192.0.2.1:25:server=a\:1:source=10.0.0.1:uniqueId={'x' * 129}",
                "a unique id of 129 octets (128 are possible)",
            ),
            (r"haproxy:192.0.2.1:25:server=a\:1", "source: missing (such as source=10.0.0.1)"),
            (r"haproxy:mx.example:25:server=a\:1:source=10.0.0.1", "host: 'mx.example' is a name"),
            (r"haproxy:192.0.2.1:25:server=a\:1:source=\:\:1", "source: ::1 is not of the same"),
        ):
            error = self.assertRaises(ValueError, EndpointTemplate.parse, text)
            self.assertIn(words, str(error))
            self.assertLess(len(str(error)), 200)
            if ":" in text:
                error = self.assertRaises(ValueError, clientFromString, MemoryReactorClock(), text)
                self.assertIn(words, str(error))

    def test_wrong_templates(self) -> None:
        """What only a template can get wrong."""
        for text, words in (
            (r"socks5:{hots}:{port}:server=a\:1", "{hots} is unknown"),
            (r"socks5:mx{host}:{port}:server=a\:1", "host: {host} must stand alone"),
            ("socks5:{host}:{port}\\", "a backslash at the end"),
            (r"socks5:{host}:{port}:server=a\:1:server=b\:1", "an argument is given twice"),
            ("nokind:{host}:{port}", "unknown endpoint type 'nokind'"),
            ("unix:/x:nokey=1", "unix: "),
            ("ssl:{host}:{port}:certKey=/nonexistent", "ssl: "),
            ("tcp:{host}:{port}:bindAddress=x", "bindAddress: "),
        ):
            error = self.assertRaises(ValueError, EndpointTemplate.parse, text)
            self.assertIn(words, str(error))

    def test_secrets(self) -> None:
        """No message quotes a password, also when its colons were not quoted."""
        start = r"socks5:{host}:{port}:server=a\:1:username=user:password="
        for rest in (
            "s3cret:s3cret",
            "s3cret:s3cret=1",
            "s3cret" * 99,
            "x\\",
            "",
            "x:sorce=s3cret",
        ):
            error = self.assertRaises(ValueError, EndpointTemplate.parse, start + rest)
            self.assertNotIn("s3cret", str(error))
        nested = r"socks5:{host}:{port}:server=" + quoteStringArgument(
            r"socks5:10.0.7.7:1080:server=b\:1:username=u:password=s3cret:s3cret=1"
        )
        error = self.assertRaises(ValueError, EndpointTemplate.parse, nested)
        self.assertIn("server: socks5: ", str(error))
        self.assertNotIn("s3cret", str(error))

    def test_octet_strings(self) -> None:
        """The parsers take octet strings, as clientFromString may pass them."""
        endpoint = EndpointParser("socks5").parseStreamClient(
            Clock(), b"192.0.2.1", b"25", server=b"10.0.5.10:5000"
        )
        self.assertIn("socks5 10.0.5.10:5000 to 192.0.2.1:25", repr(endpoint))
