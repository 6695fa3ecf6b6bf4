"""TLS reports with the real program: a sink reads what a mail host and a web server are sent."""

from __future__ import annotations

import email
import email.policy
import gzip
import json
import os
from typing import Any

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
from tests.integration.program import start_kumo
from tests.integration.sink import Mail, certificate_for, start_sink
from tests.integration.waiting import free_port, until

CONFIG = """
[dns]
nameservers = 127.0.0.1:<dns>
timeout = 20s

[tls-reports]
organization_name = Example Corp
contact_info = postmaster@mta.example.test
sender = tls@mta.example.test
interval = 4s
max_delay = 0s

[path:default]
smtp_port = <port>
prohibited_hosts = 192.0.2.0/24
enable_tls = OpportunisticInsecure
enable_dane = yes
"""

MAIL_HOST, CLEAR_HOST, WEB_HOST = "127.0.0.51", "127.0.0.52", "127.0.0.53"

Report = dict[str, Any]


class _Web(Resource):
    """Takes reports."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[Report] = []

    def render_POST(self, request: Any) -> bytes:
        """Take one."""
        assert request.getHeader(b"content-type") == b"application/tlsrpt+gzip"
        self.reports.append(json.loads(gzip.decompress(request.content.read())))
        request.setResponseCode(201)
        return b""


def _report_in(mail: Mail) -> tuple[Any, Report]:
    message = email.message_from_bytes(mail.body, policy=email.policy.default)
    _, attached = message.iter_parts()
    octets: Any = attached.get_payload(decode=True)
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    return message, json.loads(gzip.decompress(octets))


def _failures(reports: list[Report]) -> int:
    return sum(
        policy["summary"]["total-failure-session-count"]
        for report in reports
        for policy in report["policies"]
    )


class TLSReportTests(TestCase):
    """A node that counts in periods of four seconds."""

    def web(self, authority: trustme.CA, port: int) -> _Web:
        """Start the web server."""
        issued = authority.issue_cert("web.takers.example")
        pem = issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes()
        options: CertificateOptions = PrivateCertificate.loadPEM(pem.decode("ascii")).options()
        resource = _Web()
        site = Site(resource)
        site.noisy = False
        listening = IReactorSSL(global_reactor).listenSSL(port, site, options, interface=WEB_HOST)
        self.addCleanup(maybeDeferred, listening.stopListening)
        return resource

    async def test_reports(self) -> None:
        """A domain that asks gets its numbers by mail, one by HTTPS; one that does not, nothing.
        Broken TLS does not keep a report from arriving."""
        authority = trustme.CA()
        anchor = self.mktemp()
        authority.cert_pem.write_to_path(anchor)
        self.patch(os, "environ", {**os.environ, "SSL_CERT_FILE": os.path.abspath(anchor)})
        port, web_port = free_port(), free_port()
        web = self.web(authority, web_port)
        tlsa = f"_{port}._tcp.mx IN TLSA 3 1 1 {'00' * 32}\n"
        ask = '_smtp._tls IN TXT "v=TLSRPTv1; rua='
        zones = [
            Zone(
                "wrong.example",
                f'@ IN MX 10 mx\nmx IN A {MAIL_HOST}\n{tlsa}{ask}mailto:tls@takers.example"\n',
            ),
            Zone(
                "plain.example",
                f"@ IN MX 10 mx\nmx IN A {CLEAR_HOST}\n"
                f'{ask}https://web.takers.example:{web_port}/reports"\n',
                signed=False,
            ),
            Zone("silent.example", f"@ IN MX 10 mx\nmx IN A {MAIL_HOST}\n", signed=False),
            # Its TLSA records are wrong, too: its reports arrive nevertheless.
            Zone("takers.example", f"@ IN MX 10 mx\nmx IN A {MAIL_HOST}\n{tlsa}web A {WEB_HOST}\n"),
        ]
        dns_port = await start_name_servers(self, zones)
        tls = certificate_for("mx.wrong.example")[0]
        sink = start_sink(self, host=MAIL_HOST, port=port, tls=tls)
        start_sink(self, host=CLEAR_HOST, port=port)
        kumo = await start_kumo(self, CONFIG, names={"dns": dns_port, "port": port})
        for name in ("wrong", "wrong", "plain", "silent"):
            await send_mail(kumo.port, [f"you@{name}.example"])

        def arrived() -> list[tuple[Any, Report]]:
            mails = [mail for mail in sink.mails if mail.recipients == ["tls@takers.example"]]
            return [_report_in(mail) for mail in mails]

        await until(lambda: _failures([one for _, one in arrived()]) >= 1, "reports", 60)
        await until(lambda: _failures(web.reports) >= 1, "a report by HTTPS", 60)
        message, report = arrived()[0]
        self.assertEqual(message["TLS-Report-Domain"], "wrong.example")
        self.assertEqual(message["TLS-Report-Submitter"], "mta.example.test")
        self.assertIn("tls@mta.example.test", message["From"])
        self.assertEqual(report["organization-name"], "Example Corp")
        [policy] = report["policies"]
        self.assertEqual(policy["policy"]["policy-type"], "tlsa")
        self.assertEqual(policy["policy"]["policy-domain"], "wrong.example")
        self.assertEqual(policy["policy"]["policy-string"], [f"3 1 1 {'00' * 32}"])
        [detail] = policy["failure-details"]
        self.assertEqual(detail["result-type"], "validation-failure")
        self.assertEqual(detail["receiving-mx-hostname"], "mx.wrong.example")
        self.assertEqual(detail["receiving-ip"], MAIL_HOST)
        [policy] = web.reports[0]["policies"]
        self.assertEqual(policy["policy"]["policy-type"], "no-policy-found")
        self.assertEqual(policy["failure-details"][0]["result-type"], "starttls-not-supported")
        told = {one["policies"][0]["policy"]["policy-domain"] for _, one in arrived()}
        self.assertEqual(told, {"wrong.example"})
