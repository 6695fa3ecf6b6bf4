"""Messages through real queues, sessions and SMTP, over a network in memory."""

from __future__ import annotations

import ipaddress
from typing import Any, cast

from twisted.internet import error
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.settings.types import parse_rate
from kumotwist.smtp.sink import SinkReception
from kumotwist.spool import SpoolFullError
from kumotwist.wire.smtp.replies import Reply
from tests.queue_world import World

ONE_HOST = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
TWO_HOSTS = {
    "b.example": ["MX 10 mx1.b.example", "MX 20 mx2.b.example"],
    "mx1.b.example": ["A 192.0.2.1"],
    "mx2.b.example": ["A 192.0.2.2"],
}


class Scripted(Protocol):
    """Answers each chunk that comes with the next reply; C{b""} closes the connection.

    @ivar heard: the chunks.
    """

    def __init__(self, replies: list[bytes]) -> None:
        self.replies = list(replies)
        self.heard: list[bytes] = []

    def connectionMade(self) -> None:
        """Greet."""
        self.say()

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        self.heard.append(data)
        self.say()

    def say(self) -> None:
        """Say the next thing."""
        transport: Any = self.transport
        if not self.replies:
            return
        reply = self.replies.pop(0)
        if reply:
            transport.write(reply)
        else:
            transport.loseConnection()


def scripted(*replies: bytes) -> Factory:
    """A server that says these replies, whatever it hears."""
    factory = Factory()
    factory.protocol = lambda: Scripted(list(replies))
    return factory


class DeliveryTests(SynchronousTestCase):
    """What becomes of messages."""

    def test_delivered(self) -> None:
        """A message goes to the MX host, is recorded and leaves the spool."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        world.inject("c@b.example")
        (record,) = world.records("Delivery")
        self.assertEqual(record["response"]["code"], 250)
        self.assertEqual(record["peer_address"], {"name": "mx.b.example", "addr": "192.0.2.1"})
        self.assertEqual(record["egress_source"], "direct")
        self.assertEqual(record["num_attempts"], 0)
        self.assertEqual(world.spool.messages, {})
        self.assertEqual(world.bodies.bytes, 0)

    def test_large_batch(self) -> None:
        """As many recipients as C{max_recipients_per_batch} allows are one transaction."""
        for most, connections in ((150, 1), (60, 2)):
            world = World(ONE_HOST, path={"max_recipients_per_batch": most})
            world.sink("192.0.2.1")
            world.inject(*(f"c{number}@b.example" for number in range(120)))
            self.assertEqual(len(world.records("Delivery")), 120)
            self.assertEqual(len(world.network.connections), connections)

    def test_one_connection_for_many_messages(self) -> None:
        """Messages that come one after another share a connection."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        for _ in range(5):
            world.inject("c@b.example")
        self.assertEqual(len(world.records("Delivery")), 5)
        self.assertEqual(len(world.network.connections), 1)

    def test_recipients_share_a_transaction(self) -> None:
        """Recipients of one message at one site travel together, each with its own record."""
        world = World(ONE_HOST)
        sink = world.sink("192.0.2.1")
        world.inject("c@b.example", "d@b.example", "e@b.example")
        delivered = {each["recipient"] for each in world.records("Delivery")}
        self.assertEqual(delivered, {"c@b.example", "d@b.example", "e@b.example"})
        assert isinstance(sink.reception, SinkReception)
        self.assertEqual(sink.reception.counts["messages"], 1)

    def test_many_that_need_not_be_sent(self) -> None:
        """Any number of messages in a row that the host cannot get does not exhaust the stack."""
        world = World(ONE_HOST, path={"connection_limit": 1})
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", b"250-mx\r\n250 SIZE 5\r\n"
        )
        world.scheduler.pause()
        for _ in range(600):
            world.enqueue("c@b.example", sender="")
        world.scheduler.resume()
        world.network.settle()
        self.assertEqual(world.kinds(), ["Bounce"] * 600)
        self.assertEqual(len(world.network.connections), 1)

    def test_nobody_is_overtaken(self) -> None:
        """A message that comes while others wait is behind them, also where a session is idle."""
        world = World(ONE_HOST, path={"max_message_rate": parse_rate("2/s"), "connection_limit": 1})
        world.sink("192.0.2.1")
        names = [f"{number}@b.example" for number in range(6)]
        for name in names:
            world.inject(name)
        for _ in range(10):
            world.network.advance(1)
            world.network.settle()
        self.assertEqual([each["recipient"] for each in world.records("Delivery")], names)

    def test_next_host(self) -> None:
        """When the best host is down, the next one gets the message at once."""
        world = World(TWO_HOSTS)
        world.sink("192.0.2.2")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual(world.records()[0]["peer_address"]["name"], "mx2.b.example")

    def test_equal_hosts_share(self) -> None:
        """Hosts of the same preference share the connections of a busy site, though one look-up
        serves them all (RFC 5321, 5.1)."""
        records = {"b.example": ["MX 10 one.b.example", "MX 10 two.b.example"]}
        records |= {"one.b.example": ["A 192.0.2.1"], "two.b.example": ["A 192.0.2.2"]}
        world = World(records, path={"max_deliveries_per_connection": 1})
        world.sink("192.0.2.1")
        world.sink("192.0.2.2")
        for number in range(20):
            world.inject(f"x{number}@b.example")
        hosts = [record["peer_address"]["name"] for record in world.records("Delivery")]
        self.assertEqual(len(hosts), 20)
        self.assertGreater(min(hosts.count(f"{name}.b.example") for name in ("one", "two")), 3)

    def test_421_moves_on_to_the_next_host(self) -> None:
        """A 421 at any point is temporary: the next host is tried."""
        for when in ("connect", "mail", "rcpt", "data", "message"):
            world = World(TWO_HOSTS)
            world.sink("192.0.2.1", refuse=Reply.of(421, "4.3.2", "not now"), refuse_at=when)
            world.sink("192.0.2.2")
            world.inject("c@b.example")
            self.assertEqual(world.kinds(), ["Delivery"], when)

    def test_every_host_is_down(self) -> None:
        """With no host reachable the message waits twenty minutes, then forty."""
        world = World(TWO_HOSTS)
        (message,) = world.inject("c@b.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertIn("mx1.b.example", record["response"]["content"])
        self.assertIn("mx2.b.example", record["response"]["content"])
        stored = world.spool.messages[message.id]
        self.assertEqual((stored.attempts, stored.due), (1, message.created + 1200))
        world.network.pass_time(1201, step=60)
        self.assertEqual(len(world.records("TransientFailure")), 2)
        self.assertEqual(message.due, message.created + 1200 + 2400)
        world.sink("192.0.2.2")
        world.network.pass_time(2401, step=60)
        self.assertEqual(world.records()[-1]["type"], "Delivery")
        self.assertEqual(world.records()[-1]["num_attempts"], 2)

    def test_temporary_refusal(self) -> None:
        """A 4xx to a recipient keeps the message, with the server's words in the record."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1", refuse=Reply.of(451, "4.7.1", "greylisted"), refuse_at="rcpt")
        world.inject("c@b.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertEqual(record["response"]["content"], "greylisted")

    def test_permanent_refusal_is_reported(self) -> None:
        """A 5xx ends the message; its sender gets a report, from the null sender."""
        records = {**ONE_HOST, "sender.example": ["MX 10 mx.sender.example"]}
        records["mx.sender.example"] = ["A 192.0.2.9"]
        world = World(records)
        world.sink("192.0.2.1", refuse=Reply.of(550, "5.1.1", "no such user"), refuse_at="rcpt")
        world.sink("192.0.2.9")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Bounce", "Reception", "Delivery"])
        bounce, _, delivery = world.records()
        self.assertEqual(bounce["response"]["code"], 550)
        self.assertEqual((delivery["sender"], delivery["recipient"]), ("", "a@sender.example"))
        self.assertEqual(world.spool.messages, {})

    def test_null_sender_is_never_reported(self) -> None:
        """A failed report is dropped: nobody hears of it."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1", refuse=Reply.of(550, "5.1.1", "no"), refuse_at="mail")
        world.inject("c@b.example", sender="")
        self.assertEqual(world.kinds(), ["Bounce"])
        self.assertEqual(world.spool.messages, {})

    def test_expires(self) -> None:
        """C{max_age} ends what could not be delivered, and the sender is told."""
        world = World(ONE_HOST, queue={"max_age": 3000.0})
        world.inject("c@b.example")
        world.network.pass_time(4000, step=60)
        kinds = world.kinds()
        self.assertEqual(kinds[:4], [*["TransientFailure"] * 3, "Expiration"])
        last = world.records("TransientFailure")[-1]
        self.assertEqual(last["timestamp"] - last["created"], 3000)
        expiration = world.records("Expiration")[0]
        self.assertEqual(expiration["response"]["code"], 551)
        self.assertIn("connect", expiration["response"]["content"])

    def test_settings_of_a_domain_are_its_own(self) -> None:
        """A domain with settings of its own never travels on another domain's connection."""
        hosts = {
            "plain.example": ["MX 10 mx.example"],
            "secure.example": ["MX 10 mx.example"],
            "mx.example": ["A 192.0.2.1"],
        }
        world = World(hosts, domain_paths={"secure.example": {"enable_tls": "Required"}})
        world.sink("192.0.2.1")
        world.inject("c@plain.example")
        world.inject("c@secure.example")
        world.inject("d@plain.example")
        outcomes = [(each["type"], each["queue"]) for each in world.records()]
        self.assertEqual(
            outcomes,
            [
                ("Delivery", "plain.example"),
                ("TransientFailure", "secure.example"),
                ("Delivery", "plain.example"),
            ],
        )
        self.assertEqual({each["site"] for each in world.records()}, {"mx.example"})

    def test_pool_of_the_record(self) -> None:
        """The record names the pool of the message's queue, whoever shares the connection."""
        hosts = {
            "one.example": ["MX 10 mx.example"],
            "two.example": ["MX 10 mx.example"],
            "mx.example": ["A 192.0.2.1"],
        }
        world = World(hosts, domain_queues={"two.example": {"egress_pool": "other"}})
        world.sink("192.0.2.1")
        world.inject("c@one.example")
        world.inject("c@two.example")
        pools = [each["egress_pool"] for each in world.records("Delivery")]
        self.assertEqual(pools, ["pool", "other"])
        self.assertEqual(len(world.network.connections), 1)

    def test_too_many_recipients(self) -> None:
        """Recipients beyond what a server takes in one transaction get another one at once."""
        world = World(ONE_HOST)
        ok, more = b"250 ok\r\n", b"452 4.5.3 too many\r\n"
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", LostSessionTests.EHLO, ok + ok + ok + more + b"354 go\r\n", ok,
            ok + ok + b"354 go\r\n", ok,
        )  # fmt: skip
        world.inject("c@b.example", "d@b.example", "e@b.example")
        self.assertEqual(world.kinds(), ["Delivery"] * 3)

    def test_lone_line_ends_are_never_sent(self) -> None:
        """A message that was taken with lone CRs and LFs leaves with proper line ends."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        world.inject("c@b.example", body=b"Subject: x\n\nline\rline\n")
        self.assertEqual(world.kinds(), ["Delivery"])

    def test_plain(self) -> None:
        """What is known of a message's lines does not hide what else it needs."""
        for body, options in (
            (b"Subject: x\r\n\r\nline\r\n", b""),
            ("Subject: x\r\n\r\nÄ\r\n".encode(), b" BODY=8BITMIME"),
        ):
            world = World(ONE_HOST)
            server = Scripted([
                b"220 mx\r\n", b"250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n",
            ])  # fmt: skip
            factory = world.network.servers["192.0.2.1", 25] = Factory()
            factory.protocol = lambda server=server: server
            (message,) = world.enqueue("c@b.example", body=body)
            message.plain = True
            world.network.settle()
            self.assertEqual(world.kinds(), ["Delivery"])
            _, commands, sent = server.heard
            self.assertIn(b"MAIL FROM:<a@sender.example>" + options + b"\r\n", commands)
            self.assertEqual(sent, body + b".\r\n")

    def test_body_that_cannot_be_read(self) -> None:
        """Each attempt of a message whose body is damaged is recorded; the log says it once."""
        world = World(ONE_HOST, queue={"retry_interval": 60.0})
        world.sink("192.0.2.1")
        said: list[str] = []
        observer = cast(ILogObserver, lambda event: said.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        (message,) = world.enqueue("c@b.example")
        world.bodies.drop(message)
        world.spool.bodies.clear()
        world.network.settle()
        world.network.pass_time(200)
        self.assertGreater(len(world.records("TransientFailure")), 1)
        self.assertEqual(len([line for line in said if "cannot read the body" in line]), 1)

    def test_domain_that_does_not_exist(self) -> None:
        """NXDOMAIN is final."""
        world = World({})
        world.inject("c@nowhere.example", sender="")
        self.assertEqual(world.kinds(), ["Bounce"])

    def test_dns_failure_is_temporary(self) -> None:
        """A name server that does not answer bounces nothing."""
        world = World({}, fail={"b.example": "timed out"})
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure"])

    def test_null_mx(self) -> None:
        """A domain with a null MX refuses its mail for good, with the codes of RFC 7505."""
        world = World({"b.example": ["MX 0 ."]})
        world.inject("c@b.example", sender="")
        response = world.records("Bounce")[0]["response"]
        self.assertEqual(response["code"], 556)
        self.assertEqual(response["enhanced_code"], {"class": 5, "subject": 1, "detail": 10})

    def test_prohibited_hosts(self) -> None:
        """A domain whose MX is loopback is refused without a connection."""
        world = World(
            {"b.example": ["MX 10 localhost.b.example"], "localhost.b.example": ["A 127.0.0.1"]}
        )
        world.sink("127.0.0.1")
        world.inject("c@b.example", sender="")
        self.assertEqual(world.kinds(), ["Bounce"])
        self.assertEqual(world.network.connections, [])


class LostSessionTests(SynchronousTestCase):
    """Sessions that end at the wrong moment."""

    EHLO = b"250-mx.b.example\r\n250 PIPELINING\r\n"

    def test_lost_after_the_dot(self) -> None:
        """Without a reply to the final dot the message waits, marked as a possible duplicate."""
        world = World(TWO_HOSTS)
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", self.EHLO, b"250 ok\r\n250 ok\r\n354 go\r\n", b""
        )
        world.sink("192.0.2.2")
        world.inject("c@b.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertIn("more than once", record["response"]["content"])

    def test_250_then_closed(self) -> None:
        """A 250 counts, whatever happens to the connection then."""
        world = World(ONE_HOST)
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", self.EHLO, b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 taken\r\n", b""
        )
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])

    def test_lost_between_messages(self) -> None:
        """A server that closes a reused connection costs the next message no attempt."""
        world = World(ONE_HOST)
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", self.EHLO, b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 taken\r\n",
            b"421 too much\r\n",
        )  # fmt: skip
        world.inject("c@b.example")
        world.inject("d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "Delivery"])
        self.assertEqual([each["num_attempts"] for each in world.records()], [0, 0])

    def test_garbage(self) -> None:
        """A host that does not speak SMTP is passed over."""
        world = World(TWO_HOSTS)
        world.network.servers["192.0.2.1", 25] = scripted(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        world.sink("192.0.2.2")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])

    def test_silence(self) -> None:
        """A host that says nothing is given up after C{banner_timeout}."""
        world = World(ONE_HOST, path={"banner_timeout": 60.0})
        world.network.servers["192.0.2.1", 25] = scripted(b"")
        world.network.servers["192.0.2.1", 25] = Factory.forProtocol(Protocol)
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), [])
        world.network.pass_time(61)
        self.assertEqual(world.kinds(), ["TransientFailure"])
        self.assertIn("timed out", world.records()[0]["response"]["content"])


class SourceTests(SynchronousTestCase):
    """Which way out, and what happens when it is closed."""

    def test_weights(self) -> None:
        """A pool spreads messages by weight."""
        world = World(
            ONE_HOST,
            sources={
                "one": {"source_address": (ipaddress.ip_address("198.51.100.1"),)},
                "two": {"source_address": (ipaddress.ip_address("198.51.100.2"),)},
            },
            weights={"one": 3, "two": 1},
        )
        world.sink("192.0.2.1")
        for _ in range(8):
            world.inject("c@b.example")
        used = [each["egress_source"] for each in world.records("Delivery")]
        self.assertEqual((used.count("one"), used.count("two")), (6, 2))

    def test_unplumbed_source(self) -> None:
        """A source whose address the machine lacks is held; another one carries the mail."""
        world = World(
            ONE_HOST,
            sources={
                "lost": {"source_address": (ipaddress.ip_address("198.51.100.1"),)},
                "good": {},
            },
        )
        sink = world.sink("192.0.2.1")
        world.network.servers["192.0.2.1", 25] = lambda: error.ConnectBindError(99)
        world.inject("c@b.example")
        self.assertEqual(world.kinds()[0], "TransientFailure")
        world.network.servers["192.0.2.1", 25] = sink
        world.network.pass_time(20)
        self.assertEqual(world.records()[-1]["type"], "Delivery")
        self.assertEqual(world.records()[-1]["num_attempts"], 0)

    def test_every_source_is_held(self) -> None:
        """While every proxy is down mail waits, no attempt is charged, and nothing is bounced."""
        world = World(
            ONE_HOST,
            sources={
                "p1": {"socks5_proxy_server": ("tcp:10.0.0.1:1080",)},
                "p2": {"socks5_proxy_server": ("tcp:10.0.0.2:1080",)},
            },
        )
        (message,) = world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure", "TransientFailure", "Delayed"])
        tried = {each["egress_source"] for each in world.records("TransientFailure")}
        self.assertEqual(tried, {"p1", "p2"})
        world.network.pass_time(3600, step=5)
        self.assertEqual(message.attempts, 0)
        self.assertNotIn("Bounce", world.kinds())
        self.assertIn(message.id, world.spool.messages)
        self.assertEqual(world.kinds().count("Delayed"), 1)
        self.assertLess(len(world.network.connections), 60)

    def test_family_is_skipped_not_failed(self) -> None:
        """A destination of a family that the source lacks goes through another source."""
        records = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["AAAA 2001:db8::1"]}
        world = World(
            records,
            sources={
                "four": {"source_address": (ipaddress.ip_address("198.51.100.1"),)},
                "six": {"source_address": (ipaddress.ip_address("2001:db8::99"),)},
            },
        )
        world.sink("2001:db8::1")
        for _ in range(3):
            world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"] * 3)
        self.assertEqual({each["egress_source"] for each in world.records()}, {"six"})

    def test_no_source_of_the_family(self) -> None:
        """With no source of the family at all it is an ordinary temporary failure."""
        records = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["AAAA 2001:db8::1"]}
        world = World(
            records, sources={"four": {"source_address": (ipaddress.ip_address("198.51.100.1"),)}}
        )
        world.inject("c@b.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "TransientFailure")
        self.assertIn("family", record["response"]["content"])
        self.assertTrue(world.health.usable("four"))


class PauseTests(SynchronousTestCase):
    """A spool that cannot be written."""

    def test_nothing_starts_while_the_spool_is_broken(self) -> None:
        """Deliveries pause while their outcome could not be recorded, and go on afterwards."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        world.inject("c@b.example")
        world.scheduler.pause()
        world.inject("d@b.example", "e@b.example")
        self.assertEqual(len(world.records("Delivery")), 1)
        world.scheduler.resume()
        world.network.settle()
        self.assertEqual(len(world.records("Delivery")), 3)
        self.assertEqual(len(world.network.connections), 1)

    def test_a_removal_that_waits(self) -> None:
        """A message whose removal cannot be recorded is not sent again by this process."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        world.scheduler.pause()
        world.inject("c@b.example")
        world.spool.break_down(SpoolFullError("disk full"))
        world.scheduler.resume()
        world.network.settle()
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual(len(world.spool.messages), 1)
        world.spool.repair()
        world.network.pass_time(60)
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual(world.spool.messages, {})

    def test_stop_waits_for_transactions(self) -> None:
        """Stopping ends idle sessions at once."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1")
        world.inject("c@b.example")
        stopped = world.scheduler.stop(30.0)
        world.network.settle()
        self.successResultOf(stopped)

    def test_stop_in_the_middle_of_a_transaction(self) -> None:
        """A transaction under way is finished, and that is all that stopping waits for."""
        world = World(ONE_HOST)
        world.sink("192.0.2.1", delay=5.0, delay_at="data")
        world.inject("c@b.example")
        stopped = world.scheduler.stop(30.0)
        self.assertNoResult(stopped)
        world.network.pass_time(6)
        self.successResultOf(stopped)
        self.assertEqual(world.kinds(), ["Delivery"])

    def test_stop_while_connecting(self) -> None:
        """A connection that is only being made is given up at once."""
        world = World(ONE_HOST)
        world.network.servers["192.0.2.1", 25] = Factory.forProtocol(Protocol)
        (message,) = world.inject("c@b.example")
        stopped = world.scheduler.stop(30.0)
        world.network.settle()
        self.successResultOf(stopped)
        self.assertEqual(world.spool.messages[message.id].attempts, 0)
        self.assertEqual(world.kinds(), [])

    def test_stop_records_what_may_be_a_copy(self) -> None:
        """A transaction that hangs after the final dot is cut off, and its record says so."""
        world = World(ONE_HOST)
        world.network.servers["192.0.2.1", 25] = scripted(
            b"220 mx\r\n", LostSessionTests.EHLO, b"250 ok\r\n250 ok\r\n354 go\r\n"
        )
        (message,) = world.inject("c@b.example")
        stopped = world.scheduler.stop(30.0)
        world.network.pass_time(31)
        self.successResultOf(stopped)
        (record,) = world.records()
        self.assertIn("more than once", record["response"]["content"])
        self.assertEqual(world.spool.messages[message.id].attempts, 0)


class ReportTests(SynchronousTestCase):
    """Who tells a sender of success (RFC 3461, 5.2)."""

    def test_relayed(self) -> None:
        """A host without DSN does not: the sender gets a report that says relayed."""
        world = World({**ONE_HOST, "sender.example": ["A 192.0.2.9"]})
        world.sink("192.0.2.1")
        home = world.sink("192.0.2.9")
        world.inject("c@b.example", "d@b.example", dsn_notify=["SUCCESS"])
        assert isinstance(home.reception, SinkReception)
        self.assertEqual(home.reception.counts["messages"], 2)
        self.assertEqual(world.kinds().count("Delivery"), 4)
        self.assertEqual(world.spool.messages, {})

    def test_passed_on(self) -> None:
        """A host with DSN was told in its RCPT, and there is no report."""
        world = World(ONE_HOST)
        heard = recorded(world, b"250-mx\r\n250 DSN\r\n")
        world.inject("c@b.example", dsn_notify=["SUCCESS"], dsn_envid="QQ1")
        self.assertIn(b"MAIL FROM:<a@sender.example> ENVID=QQ1\r\n", heard)
        self.assertIn(b"RCPT TO:<c@b.example> NOTIFY=SUCCESS\r\n", heard)
        self.assertEqual((world.kinds(), world.spool.messages), (["Delivery"], {}))


class RequireTLSTests(SynchronousTestCase):
    """REQUIRETLS keeps to its own connections (RFC 8689)."""

    def test_no_host_can(self) -> None:
        """Hosts without STARTTLS are passed over; the message is returned, others are not."""
        world = World({**TWO_HOSTS, "sender.example": ["A 192.0.2.9"]})
        for host in ("192.0.2.1", "192.0.2.2", "192.0.2.9"):
            world.sink(host)
        world.inject("c@b.example", requiretls=True)
        world.inject("d@b.example")
        (record,) = world.records("Bounce")
        self.assertEqual(record["recipient"], "c@b.example")
        self.assertEqual(
            (record["response"]["code"], record["response"]["enhanced_code"]["detail"]), (550, 10)
        )
        # The other message, and the report, which must not be lost.
        self.assertEqual(
            sorted(each["recipient"] for each in world.records("Delivery")),
            ["a@sender.example", "d@b.example"],
        )


def recorded(world: World, hello: bytes) -> list[bytes]:
    """Put a server at 192.0.2.1 that takes a message, and remembers what it has heard."""
    heard: list[bytes] = []

    class Recorded(Scripted):
        def dataReceived(self, data: bytes) -> None:
            heard.append(data)
            super().dataReceived(data)

    factory = Factory()
    replies = [b"220 hi\r\n", hello, b"250 a\r\n", b"250 b\r\n", b"354 c\r\n", b"250 d\r\n"]
    factory.protocol = lambda: Recorded(list(replies))
    world.network.servers["192.0.2.1", 25] = factory
    return heard
