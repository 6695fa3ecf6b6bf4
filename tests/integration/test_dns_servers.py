"""Real name servers: what Unbound says of zones that NSD serves, and what mail makes of it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from kumotwist.dns import DNSError, DNSSettings, Resolver
from kumotwist.settings.types import HostPort
from tests.integration.client import send_mail
from tests.integration.nameservers import Zone, start_name_servers
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port

MANY = "".join(f"@ IN MX {number} mail-exchanger-number-{number}\n" for number in range(90))

SIGNED = Zone(
    "signed.example",
    "@ IN MX 10 mx\n"
    "mx IN A 127.0.0.21\n"
    "alias IN CNAME signed.example.\n"
    "round IN CNAME about\n"
    "about IN CNAME round\n"
    "null IN MX 0 .\n"
    "plain IN A 127.0.0.21\n"
    "empty IN TXT nothing\n"
    "ours IN MX 10 mta.example.test.\n"
    "backup IN MX 20 mta.example.test.\nbackup IN MX 30 worse\nbackup IN MX 10 mx\n"
    "xn--bcher-kva IN MX 10 mx\n",
)
ZONES = (
    SIGNED,
    Zone("plain.example", "@ IN MX 10 mx\nmx IN A 127.0.0.21\n", signed=False),
    Zone("bogus.example", "@ IN MX 10 mx\nmx IN A 127.0.0.21\n", damaged=["MX"]),
    Zone("expired.example", "@ IN MX 10 mx\nmx IN A 127.0.0.21\n", expired=True),
    Zone("many.example", MANY, signed=False),
)


class ResolverTests(TestCase):
    """The resolver against Unbound."""

    async def test_answers(self) -> None:
        """Hosts are found, aliases followed, large answers fetched over TCP; what DNSSEC vouches
        for is known, forged answers are none, and only DNS's own "no" is final."""
        port = await start_name_servers(self, ZONES)
        server = (HostPort("127.0.0.1", port),)
        resolver = Resolver(reactor, DNSSettings(nameservers=server, timeout=20.0))

        async def trouble(domain: str) -> DNSError:
            try:
                await resolver.lookup_mx(domain)
            except DNSError as error:
                return error
            raise self.failureException(f"{domain} was found")

        found: Any = await resolver.lookup_mx("signed.example")
        self.assertEqual((found.hosts, found.secure), (((10, "mx.signed.example"),), True))
        found = await resolver.lookup_mx("alias.signed.example")
        self.assertEqual((found.hosts, found.secure), (((10, "mx.signed.example"),), True))
        found = await resolver.lookup_mx("plain.example")
        self.assertEqual((found.hosts, found.secure), (((10, "mx.plain.example"),), False))
        found = await resolver.lookup_mx("plain.signed.example")
        self.assertEqual((found.implicit, found.secure), (True, True))
        found = await resolver.lookup_mx("null.signed.example")
        self.assertTrue(found.null_mx)
        found = await resolver.lookup_mx("many.example")
        self.assertEqual(found.hosts[0], (0, "mail-exchanger-number-0.many.example"))
        for domain in ("bogus.example", "expired.example", "round.signed.example"):
            self.assertFalse((await trouble(domain)).permanent, domain)
        for domain in ("nowhere.signed.example", "empty.signed.example"):
            self.assertTrue((await trouble(domain)).permanent, domain)
        distrustful = Resolver(
            reactor, DNSSettings(nameservers=server, timeout=20.0, trusted_nameservers=())
        )
        found = await distrustful.lookup_mx("signed.example")
        self.assertFalse(found.secure)


CONFIG = """
[dns]
nameservers = 127.0.0.1:<dns>
timeout = 20s

[path:default]
smtp_port = <port>
prohibited_hosts = 192.0.2.0/24
"""


class DeliveryTests(TestCase):
    """A node that finds its way by Unbound."""

    async def test_ways(self) -> None:
        """Mail follows MX, aliases and A-labels; null MX, unknown domains and loops bounce with
        their codes, forged answers do not."""
        dns_port = await start_name_servers(self, ZONES)
        port = free_port()
        sink = start_sink(self, host="127.0.0.21", port=port)
        kumo = await start_kumo(self, CONFIG, names={"dns": dns_port, "port": port})
        delivered = ["signed", "alias.signed", "backup.signed", "xn--bcher-kva.signed", "plain"]
        bounced = {
            "null.signed": (556, "null MX"),
            "nowhere.signed": (550, "does not exist"),
            "ours.signed": (554, "loops back to this node (mta.example.test"),
        }
        for name in (*delivered, *bounced, "bogus"):
            await send_mail(kumo.port, [f"you@{name}.example"], sender="")
        await sink.wait_for_mails(len(delivered))
        bounces = await kumo.wait_for_records(len(bounced), type="Bounce")
        for record in bounces:
            name = record["recipient"].removeprefix("you@").removesuffix(".example")
            code, words = bounced[name]
            self.assertEqual(record["response"]["code"], code)
            self.assertIn(words, record["response"]["content"])
        [record] = await kumo.wait_for_records(type="TransientFailure")
        self.assertEqual(record["recipient"], "you@bogus.example")
        self.assertEqual(
            {mail.recipients[0] for mail in sink.mails},
            {f"you@{name}.example" for name in delivered},
        )
