"""The reactor for many small messages carries what Twisted's own does."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import LOCAL_PROXY, through_socks5
from tests.integration.program import start_kumo
from tests.integration.sink import certificate_for, start_sink
from tests.integration.waiting import free_port


class ReactorTests(TestCase):
    """C{twistd --reactor=kumo-epoll}."""

    timeout = 120

    async def test_small_and_large(self) -> None:
        """Messages of all sizes go through a proxy in the same process, unchanged."""
        for tls in ("Disabled", "OpportunisticInsecure"):
            sink = start_sink(self, tls=certificate_for("127.0.0.1")[0])
            proxy = free_port()
            config = LOCAL_PROXY + through_socks5(sink.route, proxy, source="127.0.0.2")
            kumo = await start_kumo(
                self,
                f"{config}enable_tls = {tls}\n",
                names={"proxy": proxy},
                options=["--reactor=kumo-epoll"],
            )
            bodies = [
                b"Subject: %d\r\n\r\n" % size + (b"x" * 70 + b"\r\n.\r\n") * (size // 70)
                for size in (1, 1_000, 70_000, 3_000_000)
            ]
            for body in bodies:
                await send_mail(kumo.port, body=body)
            await kumo.wait_for_records(len(bodies), type="Delivery", seconds=60)
            received = sorted((mail.body for mail in sink.mails), key=len)
            for body, mail in zip(bodies, received, strict=True):
                self.assertTrue(mail.endswith(body), f"{len(body)} octets were changed")
