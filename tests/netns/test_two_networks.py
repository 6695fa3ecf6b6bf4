"""Mail for two networks leaves through two proxies, from four addresses, IPv4 and IPv6.

Names, proxies, mail hosts and the MTA are on machines of their own (L{tests.netns.world}). Some
mail hosts are slow, greylist, or are down; some domains cannot get mail at all.
"""

from __future__ import annotations

import smtplib
from collections import Counter
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message
from tests.integration.processes import run
from tests.integration.program import Kumo, Record, kumo_command, start_kumo
from tests.integration.sink import Mail
from tests.integration.waiting import greets, until
from tests.netns.namespaces import on
from tests.netns.world import HOSTS, SOURCES, World, at

BASE = """\
[kumo]
hostname = mta.origin.example
state_dir = {state}

[listener:in]
listen = 127.0.0.1:2525
"""
CONFIG = """
[http]
listen = 127.0.0.1:8000

[dns]
nameservers = 10.99.3.1

[source:socks-4]
socks5_proxy_server = 10.99.1.1:5000
socks5_proxy_source_address = 192.0.2.11
ehlo_domain = socks-4.origin.example
[source:socks-6]
socks5_proxy_server = 10.99.1.1:5000
socks5_proxy_source_address = 2001:db8:c::11
ehlo_domain = socks-6.origin.example
[source:haproxy-4]
ha_proxy_server = 10.99.2.1:2527
ha_proxy_source_address = 192.0.2.12
ehlo_domain = haproxy-4.origin.example
[source:haproxy-6]
ha_proxy_server = 10.99.2.1:2527
ha_proxy_source_address = 2001:db8:c::12
ehlo_domain = haproxy-6.origin.example

[pool:out]
socks-4 = 1
socks-6 = 1
haproxy-4 = 1
haproxy-6 = 1

[queue:default]
egress_pool = out
retry_interval = 2s
max_retry_interval = 4s

[queue:dead.example]
max_age = 20s

[path:default]
connect_timeout = 6s
banner_timeout = 6s

[path:equal.example]
max_deliveries_per_connection = 1

[check]
mx = a1.hosts.example
echo = a1.hosts.example:2525
"""
SENDER = "sender@origin.example"
EACH = 35
TAKEN = {
    "ordered": {"a1", "b1"},
    "equal": {"a1", "b2", "a2"},
    "four": {"four"},
    "six": {"six"},
    "implicit": {"implicit"},
    "down": {"b2"},
    "slow": {"slow"},
    "grey": {"grey"},
}
"""Domains whose mail arrives, and the hosts that may take it."""
REFUSED = {
    "nobody{}@ordered.example": (550, (5, 1, 1), "No such user here"),
    "m{}@null.example": (556, (5, 1, 10), "null MX"),
    "m{}@nowhere.ordered.example": (550, (5, 1, 2), "does not exist"),
}
"""Recipients whose mail is returned, and why."""
REFUSALS = 15
DEAD = 3


def address_of(text: str) -> str:
    """The IP address of C{ADDRESS:PORT}."""
    return text.rpartition(":")[0].strip("[]")


class TwoNetworksTests(TestCase):
    """A node whose machine reaches nothing but two proxies and a name server."""

    timeout = 300.0

    async def start(self) -> Kumo:
        """Start the world and the MTA in it."""
        self.world = World(self)
        await self.world.start()
        machine = self.world.mta
        kumo = await start_kumo(self, CONFIG, base=BASE, wait=False, prefix=at(machine))

        def ready() -> bool:
            return on(machine, partial(greets, "127.0.0.1", 2525))

        await until(ready, lambda: str(kumo.complain("does not greet")), 30)
        return kumo

    def send(self, recipients: list[str]) -> None:
        """Hand one message for each recipient to the MTA, from its own machine; blocks."""

        def converse() -> None:
            with smtplib.SMTP("127.0.0.1", 2525, "client.origin.example", timeout=60) as client:
                for recipient in recipients:
                    client.sendmail(SENDER, [recipient], message(recipient))

        on(self.world.mta, converse)

    async def settled(self, kumo: Kumo, number: int, *kinds: str) -> list[Record]:
        """Wait until so many records of these types are there; give all of them."""

        def look() -> list[Record] | None:
            records = [one for one in kumo.records() if one["type"] in kinds]
            return records if len(records) >= number else None

        def complaint() -> str:
            found = Counter((one["type"], one["queue"]) for one in kumo.records())
            return str(kumo.complain(f"no {number} records of {kinds}: {found}"))

        return await until(look, complaint, 150)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run C{kumo} on the MTA's machine; give its status and what it printed."""
        command = [*at(self.world.mta), *kumo_command(*arguments)]
        done = await deferToThread(run, command)
        return done.returncode, done.stdout

    def mails(self) -> list[tuple[str, Mail]]:
        """What all mail hosts took, each with the address that took it."""
        return [
            (address, mail) for address, sink in self.world.sinks.items() for mail in sink.mails
        ]

    def check_way(self, record: Record) -> None:
        """A record names a source with its own proxy and address."""
        self.assertEqual(record["egress_pool"], "out")
        [source] = [one for one in SOURCES if one.name == record["egress_source"]]
        used = record["source_address"]
        self.assertEqual(
            (address_of(used["address"]), used["server"], used["protocol"]),
            (source.address, source.server, source.protocol),
        )

    def check_arrivals(self, deliveries: list[Record]) -> None:
        """Mail hosts and records agree: on recipients, hosts, and addresses on both sides."""
        seen = {mail.recipients[0]: (address, mail) for address, mail in self.mails()}
        for record in deliveries:
            self.check_way(record)
            address, mail = seen[record["recipient"]]
            used = record["source_address"]
            self.assertEqual(mail.peer, address_of(used["address"]))
            self.assertEqual(mail.helo, f"{record['egress_source']}.origin.example")
            if used["protocol"] == "socks5":
                self.assertEqual(str(mail.port), used["address"].rpartition(":")[2])
            self.assertEqual(record["peer_address"]["addr"], address)

    async def test_every_message(self) -> None:
        """Each message arrives once, from one of the four addresses and at a host of its domain, or
        is returned with the code that it deserves; the records say what the mail hosts saw."""
        kumo = await self.start()
        good = [f"m{n}@{domain}.example" for n in range(EACH) for domain in TAKEN]
        bad = [pattern.format(n) for n in range(REFUSALS) for pattern in REFUSED]
        dead = [f"m{n}@dead.example" for n in range(DEAD)]
        await deferToThread(self.send, dead + good + bad)
        reports = len(bad) + len(dead)

        total = len(good) + 2 * reports
        records = await self.settled(kumo, total, "Delivery", "Bounce", "Expiration")
        fates: dict[str, list[Record]] = {}
        for record in records:
            fates.setdefault(record["recipient"], []).append(record)
        again = fates.pop(SENDER)
        self.assertEqual([one["type"] for one in again], ["Delivery"] * reports)
        self.assertEqual(set(fates), set(good + bad + dead))
        self.assertEqual({len(each) for each in fates.values()}, {1})

        arrived = Counter(mail.recipients[0] for _, mail in self.mails())
        self.assertEqual(arrived.pop(SENDER), reports)
        self.assertEqual(arrived, Counter(good))
        self.check_arrivals([fates[recipient][0] for recipient in good])
        for address, mail in self.mails():
            domain = mail.recipients[0].partition("@")[2].removesuffix(".example")
            hosts = TAKEN.get(domain, {"b1"})
            self.assertIn(address, [one for host in hosts for one in HOSTS[host].addresses])
        self.assertEqual({mail.peer for _, mail in self.mails()}, {one.address for one in SOURCES})
        self.check_returned(fates)
        self.check_preferences(kumo, [fates[recipient][0] for recipient in good])

    def check_preferences(self, kumo: Kumo, deliveries: list[Record]) -> None:
        """What is a preference and no duty held for most: better hosts before worse ones, and the
        source that a greylisting host has seen already."""
        taken = Counter((one["queue"], one["peer_address"]["name"]) for one in deliveries)
        self.assertGreater(taken["ordered.example", "a1.hosts.example"], EACH * 3 / 4)
        self.assertLess(taken["equal.example", "a2.hosts.example"], EACH / 4)
        for equal in ("a1", "b2"):
            self.assertGreater(taken["equal.example", f"{equal}.hosts.example"], 3)
        before = {
            (one["id"], one["egress_source"])
            for one in kumo.records(type="TransientFailure", queue="grey.example")
        }
        again = [one for one in deliveries if one["queue"] == "grey.example"]
        same = sum((one["id"], one["egress_source"]) in before for one in again)
        self.assertGreater(same, EACH * 3 / 4)

    def check_returned(self, fates: dict[str, list[Record]]) -> None:
        """What could not be delivered ended as it should."""
        for pattern, (code, enhanced, words) in REFUSED.items():
            for number in range(REFUSALS):
                [record] = fates[pattern.format(number)]
                response: Any = record["response"]
                found = (record["type"], response["code"], *response["enhanced_code"].values())
                self.assertEqual(found, ("Bounce", code, *enhanced), record)
                self.assertIn(words, response["content"])
                if pattern.startswith("nobody"):
                    self.check_way(record)
        for number in range(DEAD):
            [record] = fates[f"m{number}@dead.example"]
            self.assertEqual((record["type"], record["response"]["code"]), ("Expiration", 551))
            self.check_way(record)

    async def test_proxies_fail(self) -> None:
        """While a proxy is gone its sources' mail leaves through the other one, while both are gone
        it waits, uncharged; no message is lost, and none arrives twice of which the record of a
        lost connection does not warn. The commands tell what goes on."""
        kumo = await self.start()
        status, output = await self.command("source", "check", "-c", str(kumo.config_path))
        self.assertEqual(status, 0, output)
        self.assertIn("4 ways out: 4 all right", output)
        first = [f"m{n}@{domain}.example" for n in range(EACH) for domain in TAKEN]
        sending = deferToThread(self.send, first)
        await until(lambda: len(self.mails()) > EACH, "the first messages", 60)
        self.world.processes["haproxy"].kill_9()
        await sending
        await self.settled(kumo, len(first), "Delivery")
        status, output = await self.command("source", "check", "-c", str(kumo.config_path))
        self.assertEqual(status, 1, output)
        self.assertIn("4 ways out: 2 all right, 2 failed", output)

        self.world.processes["kumoproxy"].kill_9()
        second = [f"n{n}@{domain}.example" for n in range(5) for domain in TAKEN]
        await deferToThread(self.send, second)
        await self.settled(kumo, len(second), "Delayed")
        status, output = await self.command("queue")
        self.assertIn(f"{len(second)} wait for a source", output)
        await self.world.start_haproxy()
        await self.world.start_kumoproxy()
        deliveries = await self.settled(kumo, len(first + second), "Delivery")

        self.assertEqual(Counter(one["recipient"] for one in deliveries), Counter(first + second))
        warned = {
            one["recipient"]
            for one in kumo.records(type="TransientFailure")
            if "sent more than once" in one["response"]["content"]
        }
        arrived = Counter(mail.recipients[0] for _, mail in self.mails())
        self.assertEqual(set(arrived), set(first + second))
        self.assertLessEqual({one for one, times in arrived.items() if times > 1}, warned)
        for record in deliveries:
            self.check_way(record)
        for record in kumo.records(type="TransientFailure"):
            self.check_way(record)
        self.check_arrivals([one for one in deliveries if one["recipient"] not in warned])
        waited = [one for one in deliveries if one["recipient"] in second]
        charged = {one["num_attempts"] for one in waited if "grey" not in one["recipient"]}
        self.assertEqual(charged, {0})
        _, output = await self.command("trace", waited[0]["id"], "--log", str(kumo.state / "log"))
        used = waited[0]["source_address"]
        for fact in (waited[0]["recipient"], used["address"], used["server"]):
            self.assertIn(fact, output)
