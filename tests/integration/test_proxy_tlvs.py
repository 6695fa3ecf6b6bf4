"""What HAProxy is told of each delivery: C{ha_proxy_tlvs}, read by a real HAProxy."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import send_mail
from tests.integration.configurations import through_haproxy
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink

HAPROXY = """\
global
    log stdout format raw local0

defaults
    mode tcp
    timeout connect 10s
    timeout client 30s
    timeout server 30s

listen outbound
    log global
    log-format "told <%[fc_pp_unique_id]> <%[fc_pp_authority]>"
    bind 127.0.0.1:1 accept-proxy
    server any 0.0.0.0:0 source 0.0.0.0 usesrc clientip
"""


class TLVTests(TestCase):
    """One message through C{twistd kumo} and HAProxy."""

    timeout = 90.0

    async def test_unique_id(self) -> None:
        """HAProxy's log has the session id of the delivery's record, and the host's name."""
        haproxy, port = await parts.start_haproxy(self, HAPROXY)
        sink = start_sink(self)
        config = through_haproxy(f"mx.example.test:{sink.port}", port, "127.0.0.3")
        config = config.replace(
            "ha_proxy_source_address",
            "ha_proxy_tlvs = unique-id, authority, alpn=smtp\nha_proxy_source_address",
        )
        kumo = await start_kumo(self, config + "\n[dns]\nhosts = 127.0.0.1 mx.example.test\n")
        await send_mail(kumo.port)
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertTrue(record["session_id"])
        self.assertEqual([mail.peer for mail in sink.mails], ["127.0.0.3"])
        await kumo.stop()
        await haproxy.wait_for_output(f"told <{record['session_id']}> <mx.example.test>")
