"""Which queue a message goes to and when it may be sent, by what it says of itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.queue.naming import Labels, Naming, NamingError
from kumotwist.queue.settings import NamingSettings, QueuePattern, QueueTable
from kumotwist.queue.timing import SchedulingError, Timing
from kumotwist.settings.layers import Rule
from tests.queue_world import BEGINNING, BODY, World
from tests.test_queue_reception import SESSION, transaction

TRUSTED = attrs.evolve(SESSION, may_relay=True)
HEADERS = NamingSettings(
    tenant_header="X-Tenant",
    campaign_header="X-Campaign",
    remove_campaign_header=True,
    scheduling_header="X-Schedule",
)
SITES = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}


def naming(**queues: str) -> Naming:
    """Names by those header fields; C{pattern=routing_domain}, with _ for the rest of a pattern."""
    rules = [
        Rule(QueuePattern.parse(pattern.replace("_", ".")), {"routing_domain": domain})
        for pattern, domain in queues.items()
    ]
    return Naming(HEADERS, QueueTable(rules))


def at(text: str) -> float:
    """A moment in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


class LabelTests(SynchronousTestCase):
    """What a message says of itself."""

    def test_header(self) -> None:
        """Tenant and campaign come from the header; what shall be removed is not sent on."""
        body = (
            b"x-tenant: acme\r\nSubject: s\r\nX-CAMPAIGN:\r\n spring\r\nTo: t\r\n\r\n"
            b"X-Campaign: b\r\n"
        )
        labels, rest = naming().read(TRUSTED, body)
        self.assertEqual(labels, Labels("spring", "acme"))
        self.assertEqual(rest, b"x-tenant: acme\r\nSubject: s\r\nTo: t\r\n\r\nX-Campaign: b\r\n")
        self.assertEqual(naming().name(labels, "b.example"), "spring:acme@b.example")

    def test_strangers_steer_nothing(self) -> None:
        """Of a client that may not relay the header is neither believed nor changed."""
        body = b"X-Tenant: acme\r\nX-Campaign: c\r\n\r\n"
        self.assertEqual(naming().read(SESSION, body), (Labels(), body))

    def test_parts(self) -> None:
        """Parts that are not there leave no sign in the name."""
        names = naming()
        for labels, name in (
            (Labels(), "b.example"),
            (Labels(tenant="acme"), "acme@b.example"),
            (Labels("spring"), "spring:@b.example"),
        ):
            self.assertEqual(names.name(labels, "b.example"), name)

    def test_routing_domain(self) -> None:
        """A queue that is routed by another domain has that in its name."""
        names = naming(b_example="relay.example", **{"acme@c_example": "acme.example"})
        self.assertEqual(names.name(Labels(), "b.example"), "b.example!relay.example")
        self.assertEqual(names.name(Labels(), "c.example"), "c.example")
        self.assertEqual(
            names.name(Labels("x", "acme"), "c.example"), "x:acme@c.example!acme.example"
        )

    def test_login(self) -> None:
        """Who has logged in is the tenant, and cannot be another one."""
        names = Naming(attrs.evolve(HEADERS, tenant_from_login=True), QueueTable())
        user = attrs.evolve(TRUSTED, user="me:you@acme.example")
        labels, _ = names.read(user, b"X-Tenant: other\r\n\r\n")
        self.assertEqual(labels.tenant, "me_you@acme.example")
        self.assertEqual(
            str(names.queues.resolve(names.name(labels, "b.example")).egress_pool), "unspecified"
        )
        self.assertEqual(names.read(TRUSTED, b"X-Tenant: t\r\n\r\n")[0].tenant, "t")

    def test_default_tenant(self) -> None:
        """What names no tenant has the default one."""
        names = Naming(attrs.evolve(HEADERS, default_tenant="house"), QueueTable())
        self.assertEqual(names.read(TRUSTED, b"Subject: s\r\n\r\n")[0].tenant, "house")
        self.assertEqual(names.read(SESSION, b"X-Tenant: t\r\n\r\n")[0].tenant, "house")

    def test_unfit(self) -> None:
        """What cannot be a name is refused, not guessed at."""
        for value in (b"a b", b"a:b", b"*", b"x" * 129, b"\xff", b"a\x01"):
            self.assertRaises(
                NamingError, naming().read, TRUSTED, b"X-Tenant: " + value + b"\r\n\r\n"
            )

    def test_reception(self) -> None:
        """A client that sends such a field is told so; nothing is kept."""
        world = World(SITES, naming=HEADERS)
        answer = world.reception.receive(
            TRUSTED, transaction("x@b.example", body=b"X-Tenant: a b\r\n" + BODY)
        )
        self.assertEqual(self.successResultOf(answer).code, 554)
        self.assertEqual(world.spool.messages, {})


class TimingTests(SynchronousTestCase):
    """When a message may be sent."""

    def world(self, **fields: str) -> World:
        """A node that has just received a message with these wishes."""
        world = World(SITES, naming=HEADERS, queue={"max_age": 86400.0})
        world.sink("192.0.2.1")
        body = f"X-Schedule: {json.dumps(fields)}\r\n".encode() + BODY
        answer = world.reception.receive(TRUSTED, transaction("x@b.example", body=body))
        self.assertEqual(self.successResultOf(answer).code, 250)
        world.network.settle()
        return world

    def moment(self, seconds: float) -> str:
        """So long after the beginning, in writing."""
        return datetime.fromtimestamp(BEGINNING + seconds, UTC).isoformat()

    def test_first_attempt(self) -> None:
        """The first attempt waits for its moment, in the spool too."""
        world = self.world(first_attempt=self.moment(3600))
        (message,) = world.spool.messages.values()
        self.assertEqual(message.due, BEGINNING + 3600)
        world.network.pass_time(3590, step=10)
        self.assertEqual(world.records("Delivery"), [])
        world.network.pass_time(20, step=10)
        self.assertEqual(len(world.records("Delivery")), 1)

    def test_expires(self) -> None:
        """A message that says when it is void is given up then, not at C{max_age}."""
        world = World(SITES, naming=HEADERS, queue={"retry_interval": 600.0})
        body = f'X-Schedule: {{"expires": "{self.moment(1500)}"}}\r\n'.encode() + BODY
        world.reception.receive(TRUSTED, transaction("x@b.example", body=body))
        world.network.settle()
        world.network.pass_time(1490, step=10)
        self.assertEqual(world.records("Expiration"), [])
        world.network.pass_time(60, step=10)
        self.assertEqual(len(world.records("Expiration")), 1)
        self.assertEqual(world.scheduler.waiting, 0)

    def test_hours(self) -> None:
        """A retry that would fall outside of the hours waits for them."""
        hours = Timing.of({"dow": "Mon,wednesday", "tz": "America/Phoenix", "start": "17:00",
                           "end": "19:30:00"})  # fmt: skip
        for moment, allowed in (
            ("2026-11-23T16:59:59-07:00", "2026-11-23T17:00:00-07:00"),
            ("2026-11-23T17:00:00-07:00", "2026-11-23T17:00:00-07:00"),
            ("2026-11-23T19:29:59-07:00", "2026-11-23T19:29:59-07:00"),
            ("2026-11-23T19:30:00-07:00", "2026-11-25T17:00:00-07:00"),
            ("2026-11-26T00:00:00-07:00", "2026-11-30T17:00:00-07:00"),
        ):
            self.assertEqual(hours.next(at(moment)), at(allowed), moment)

    def test_hours_over_midnight(self) -> None:
        """Hours may end on the next day, and clocks may change."""
        night = Timing.of({"dow": "Sat", "tz": "Europe/Berlin", "start": "22:00", "end": "04:00"})
        self.assertEqual(night.next(at("2027-03-28T03:30+02:00")), at("2027-03-28T03:30+02:00"))
        self.assertEqual(night.next(at("2027-03-28T04:00+02:00")), at("2027-04-03T22:00+02:00"))

    def test_never_outside_of_the_hours(self) -> None:
        """A message is sent within its hours, whatever it waited for."""
        now = datetime.fromtimestamp(BEGINNING, UTC)
        start = now.replace(hour=(now.hour + 2) % 24, minute=0, second=0)
        world = World(SITES)
        world.sink("192.0.2.1")
        world.inject(
            "x@b.example",
            timing={
                "dow": "Mon,Tue,Wed,Thu,Fri,Sat,Sun",
                "tz": "UTC",
                "start": start.strftime("%H:%M:%S"),
                "end": start.replace(minute=30).strftime("%H:%M:%S"),
            },
        )
        self.assertEqual(world.records("Delivery"), [])
        world.network.pass_time(3 * 3600, step=60)
        (record,) = world.records("Delivery")
        self.assertEqual(record["event_time"][11:13], start.strftime("%H"))

    def test_mistakes(self) -> None:
        """A wish that cannot be understood is an error that says what is wrong."""
        cases: tuple[tuple[Any, str], ...] = (
            ("[]", "not an object"),
            ("{", "not JSON"),
            ('{"first_attempt": 5}', "values are texts"),
            ('{"first": "x"}', "'first' is none of"),
            ('{"first_attempt": "tomorrow"}', "is not a moment"),
            ('{"dow": "Mon"}', "tz is missing"),
            ('{"dow": "Mo", "tz": "UTC", "start": "1:00", "end": "02:00"}', "not a day"),
            ('{"dow": "Mon", "tz": "Mars", "start": "01:00", "end": "02:00"}', "time zone"),
            ('{"dow": "Mon", "tz": "../x", "start": "01:00", "end": "02:00"}', "time zone"),
            ('{"dow": "Mon", "tz": "UTC", "start": "1:00", "end": "02:00"}', "time of the day"),
            ('{"dow": "Mon", "tz": "UTC", "start": "01:00", "end": "01:00"}', "the same"),
            (
                '{"first_attempt": "2027-03-02T00:00:00Z", "expires": "2027-03-01T23:00:00-01:00"}',
                "expires is not after first_attempt",
            ),
            ("[" * 1999, "not JSON"),
            ("x" * 2001, "too long"),
        )
        for text, problem in cases:
            error = self.assertRaises(SchedulingError, Timing.parse, text)
            self.assertIn(problem, str(error))
