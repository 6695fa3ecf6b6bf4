"""MTA-STS with the real program: policies from a web server, through a proxy, over a restart."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import attrs
import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorSSL
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.integration.client import send_mail
from tests.integration.nameservers import Zone, start_name_servers
from tests.integration.parts import require_root
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port

CONFIG = """
[dns]
nameservers = 127.0.0.1:<dns>
timeout = 20s

[proxy:local]
listen = 127.0.0.1:<proxy>

[proxy-rule:trial]
proxy = local
clients = 127.0.0.0/8
sources = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 443, 1024-65535
action = allow

[source:one]
socks5_proxy_server = 127.0.0.1:<proxy>
socks5_proxy_source_address = 127.0.0.45

[pool:out]
one = 1

[queue:default]
egress_pool = out

[path:default]
smtp_port = <port>
prohibited_hosts = 192.0.2.0/24
enable_tls = OpportunisticInsecure
"""

MAIL_HOST, SOURCE = "127.0.0.41", "127.0.0.45"
DELIVERED, KEPT = "Delivery", "TransientFailure"


def policy(mode: str, mx: str) -> bytes:
    """A policy file."""
    return f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n".encode()


@attrs.define(frozen=True)
class Case:
    """A domain.

    @ivar answer: the web server's: status, type and body.
    @ivar outcome: the type of the mail's record.
    @ivar words: what stands in its C{tls_policy}, or in its response if it is kept.
    @ivar good: whether the mail host's certificate is for its name.
    @ivar record: the TXT records.
    """

    answer: tuple[int, bytes, bytes]
    outcome: str
    words: str
    good: bool = True
    record: str = '_mta-sts IN TXT "v=STSv1; id=1;"\n'
    web_good: bool = True


PLAIN = b"text/plain; charset=utf-8"
CASES = {
    "enforced": Case((200, PLAIN, policy("enforce", "mx.enforced.example")), DELIVERED, "MTA-STS"),
    "wildcard": Case((200, PLAIN, policy("enforce", "*.wildcard.example")), DELIVERED, "MTA-STS"),
    "unlisted": Case((200, PLAIN, policy("enforce", "mx.other.example")), KEPT, "does not list it"),
    "bad-mx": Case((200, PLAIN, policy("enforce", "*.bad-mx.example")), KEPT, "TLS", good=False),
    "testing": Case(
        (200, PLAIN, policy("testing", "mx.other.example")), DELIVERED, "testing", good=False
    ),
    "none": Case((200, PLAIN, policy("none", "mx.other.example")), DELIVERED, "enable_tls"),
    "redirect": Case((301, PLAIN, policy("enforce", "no.example")), DELIVERED, "enable_tls"),
    "html": Case((200, b"text/html", policy("enforce", "no.example")), DELIVERED, "enable_tls"),
    "large": Case((200, PLAIN, policy("enforce", "no.example") * 1100), DELIVERED, "enable_tls"),
    "bad-web": Case(
        (200, PLAIN, policy("enforce", "no.example")), DELIVERED, "enable_tls", web_good=False
    ),
    "two-records": Case(
        (200, PLAIN, policy("enforce", "no.example")), DELIVERED, "enable_tls",
        record='_mta-sts IN TXT "v=STSv1; id=1;"\n_mta-sts IN TXT "v=STSv1; id=2;"\n',
    ),
    "no-record": Case(
        (200, PLAIN, policy("enforce", "no.example")), DELIVERED, "enable_tls", record=""
    ),
}  # fmt: skip


class _Web(Resource):
    """Gives each domain's answer, and notes who has asked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def render_GET(self, request: Any) -> bytes:
        """Answer one request."""
        host = request.getRequestHostname().decode("ascii")
        self.asked.append((host, request.getClientAddress().host))
        if request.path != b"/.well-known/mta-sts.txt":
            request.setResponseCode(404)
            return b""
        name = host.removeprefix("mta-sts.").removesuffix(".example")
        code, kind, body = CASES[name].answer
        request.setResponseCode(code)
        request.setHeader(b"Location", b"https://mta-sts.enforced.example/.well-known/mta-sts.txt")
        request.setHeader(b"Content-Type", kind)
        return body


def _options(authority: trustme.CA, *names: str) -> CertificateOptions:
    issued = authority.issue_cert(*names)
    pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
    options: CertificateOptions = PrivateCertificate.loadPEM(pem.decode("ascii")).options()
    return options


def _zones(web: str, change: Callable[[str], str] = str) -> list[Zone]:
    return [
        Zone(
            f"{name}.example",
            f"@ IN MX 10 mx\nmx IN A {MAIL_HOST}\nmta-sts IN A {web}\n" + change(case.record),
            signed=False,
        )
        for name, case in CASES.items()
    ]


class MTASTSTests(TestCase):
    """A node behind a proxy, a web server, a mail host, and a domain for each way it can go."""

    def serve(self, authority: trustme.CA, web: str) -> _Web:
        """Start the web server."""
        names = [f"mta-sts.{name}.example" for name, case in CASES.items() if case.web_good]
        resource = _Web()
        site = Site(resource)
        site.noisy = False
        port = IReactorSSL(global_reactor).listenSSL(
            443, site, _options(authority, *names), interface=web
        )
        self.addCleanup(maybeDeferred, port.stopListening)
        return resource

    async def test_every_policy(self) -> None:
        """What a policy demands is kept, and what cannot be believed demands nothing; policies
        are fetched as the mail leaves, and hold over a restart without DNS and web."""
        require_root("it serves HTTPS on port 443")
        authority = trustme.CA()
        anchor = self.mktemp()
        authority.cert_pem.write_to_path(anchor)
        self.patch(os, "environ", {**os.environ, "SSL_CERT_FILE": os.path.abspath(anchor)})
        web_host = f"127.{random.randint(2, 250)}.{random.randint(0, 250)}.42"
        web = self.serve(authority, web_host)
        dns_port, port = await start_name_servers(self, _zones(web_host)), free_port()
        good = [f"mx.{name}.example" for name, case in CASES.items() if case.good]
        sink = start_sink(self, host=MAIL_HOST, port=port, tls=_options(authority, *good))
        names = {"dns": dns_port, "port": port, "proxy": free_port()}
        kumo = await start_kumo(self, CONFIG, names=names)
        for name, case in CASES.items():
            # One at a time: mail waits ten seconds for a policy, and machines may be slow.
            recipient = f"you@{name}.example"
            await send_mail(kumo.port, [recipient])
            await kumo.wait_for_records(seconds=60, type=case.outcome, recipient=recipient)
        for record in [*kumo.records(type=DELIVERED), *kumo.records(type=KEPT)]:
            name = record["recipient"].removeprefix("you@").removesuffix(".example")
            case = CASES[name]
            self.assertEqual(record["type"], case.outcome, record)
            found = record["tls_policy"] if case.outcome == DELIVERED else str(record["response"])
            self.assertIn(case.words, found)
        self.assertEqual({peer for _, peer in web.asked}, {SOURCE})
        self.assertNotIn("mta-sts.no-record.example", {host for host, _ in web.asked})
        self.assertEqual(len(web.asked), len({host for host, _ in web.asked}), web.asked)
        await self.restart(kumo, dns_port, web, sink)

    async def restart(self, kumo: Any, dns_port: int, web: _Web, sink: Any) -> None:
        """Nobody answers for policies any more, and they hold nevertheless."""
        await kumo.stop()
        gone = await start_name_servers(self, _zones("192.0.2.1", lambda record: ""))
        text = kumo.config_path.read_text().replace(f":{dns_port}\n", f":{gone}\n", 1)
        kumo.config_path.write_text(text)
        before, asked = len(sink.mails), len(web.asked)
        kumo = await kumo.restart(self)
        await send_mail(kumo.port, ["again@bad-mx.example"])
        await send_mail(kumo.port, ["again@wildcard.example"])
        [record] = await kumo.wait_for_records(type=DELIVERED, recipient="again@wildcard.example")
        self.assertIn("MTA-STS enforce", record["tls_policy"])
        await kumo.wait_for_records(type=KEPT, recipient="again@bad-mx.example")
        self.assertEqual((len(sink.mails), len(web.asked)), (before + 1, asked))
