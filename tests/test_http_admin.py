"""The admin API: KumoMTA's paths and shapes; what is wrong in a request is said clearly."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kumotwist.http import http_site
from kumotwist.http.body import MAX_BODY
from kumotwist.http.settings import HTTPSettings
from kumotwist.interfaces import ISteering
from kumotwist.journal import Trace
from kumotwist.queue.steering import rebind_of
from tests.http_client import Connection


@implementer(ISteering)
class RecordingSteering:
    """Notes what it is asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.listed: list[dict[str, Any]] = []
        self.missing: list[int] = []

    def order(self, kind: str, whom: dict[str, Any], **facts: Any) -> str:
        """Note an order."""
        self.calls.append((kind, whom, facts))
        return "an-id"

    def cancel(self, kind: str, order_id: str) -> bool:
        """Know one order."""
        return (kind, order_id) == ("bounce", "an-id")

    def orders(self, kind: str) -> list[dict[str, Any]]:
        """Give what the test has put there."""
        return [dict(each) for each in self.listed]

    def rebind(
        self, whom: dict[str, Any], data: dict[str, str], reason: str, *, flush: bool, quiet: bool
    ) -> None:
        """Note a rebind; refuse what the real one refuses."""
        if "bad" in data:
            raise ValueError("data: 'bad' cannot be set")
        self.calls.append((whom, data, reason, flush, quiet))

    def check_rebind(self, whom: dict[str, Any], data: dict[str, str], *, flush: bool) -> None:
        """Refuse what the real one refuses."""
        rebind_of(whom, data, flush=flush)

    def count(self, whom: dict[str, Any]) -> Deferred[dict[str, int]]:
        """Count something."""
        self.calls.append(("count", whom))
        return succeed({"a.example": 2, "b.example": 1})

    def queues(self, limit: int) -> dict[str, Any]:
        """Show the limit."""
        return {"limit": limit}

    def ready_states(self, names: Any) -> dict[str, Any]:
        """Show the names."""
        return {name: {} for name in names}

    def missing_workers(self) -> list[int]:
        """Those that the test has put there."""
        return self.missing

    def inspect(self, message_id: str, want_body: bool) -> Deferred[dict[str, Any] | None]:
        """Know one message."""
        return succeed({"data": want_body} if message_id == "1" else None)


class AdminCase(SynchronousTestCase):
    """A site with an admin API."""

    def setUp(self) -> None:
        """Build it."""
        self.steering = RecordingSteering()
        self.build()

    def build(self, token: str | None = None) -> None:
        """Build it, with a token perhaps."""
        clock = Clock()
        self.site = http_site(
            clock, HTTPSettings().trusted_hosts, Trace(clock), str, None, self.steering, token
        )

    def ask(self, method: str, path: str, body: Any = None, *headers: str) -> tuple[int, Any]:
        """The status and the answer."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = Connection(self.site).ask(
            f"/api/admin/{path}", f"content-length: {len(text)}", *headers, method=method, body=text
        )
        return connection.status, json.loads(connection.body)


class OrderTests(AdminCase):
    """Orders."""

    def test_interface(self) -> None:
        """The double is what the pages ask for."""
        verifyObject(ISteering, self.steering)

    def test_bounce(self) -> None:
        """KumoMTA's request is understood, and answered as KumoMTA does."""
        request = {
            "campaign": "c", "tenant": "t", "domain": "a.example", "routing_domain": "b.example",
            "duration": "20m", "reason": "cleaning up", "suppress_logging": True,
            "queue_names": None,
        }  # fmt: skip
        status, answer = self.ask("POST", "bounce/v1", request)
        self.assertEqual(
            (status, answer), (200, {"id": "an-id", "bounced": {}, "total_bounced": 0})
        )
        ((kind, whom, facts),) = self.steering.calls
        self.assertEqual(kind, "bounce")
        self.assertEqual(
            whom,
            {"campaign": "c", "tenant": "t", "domain": "a.example", "routing_domain": "b.example"},
        )
        self.assertEqual((facts["reason"], facts["quiet"]), ("cleaning up", True))

    def test_dry_run(self) -> None:
        """A dry run tells what would be touched, and touches nothing."""
        status, answer = self.ask("POST", "bounce/v1", {"tenant": "t", "dry_run": True})
        self.assertEqual(
            (status, answer["total_matched"], answer["matched"]),
            (200, 3, {"a.example": 2, "b.example": 1}),
        )
        self.assertEqual(self.steering.calls, [("count", {"tenant": "t"})])

    def test_empty_choice(self) -> None:
        """What chooses is not empty: that would mean everything. What is null is not there."""
        for field, empty in (
            ("ids", []), ("ids", [""]), ("queue_names", []), ("domain", ""), ("tenant", " "),
            ("campaign", ""), ("routing_domain", ""), ("source", ""),
        ):  # fmt: skip
            for path in ("bounce/v1", "rebind/v1"):
                for dry_run in (True, False):
                    status, answer = self.ask(
                        "POST", path, {field: empty, "reason": "r", "dry_run": dry_run}
                    )
                    self.assertEqual(status, 422)
                    self.assertIn(f"{field}: is empty", answer["error"])
        request = {"name": "", "source": "ip-1", "reason": "r"}
        self.assertEqual(self.ask("POST", "suspend-ready-q/v1", request)[0], 422)
        self.assertEqual(self.steering.calls, [])
        nothing = {"ids": None, "queue_names": None, "domain": None, "reason": "r"}
        self.assertEqual(self.ask("POST", "bounce/v1", nothing)[0], 200)
        self.assertEqual(self.steering.calls[0][1], {})

    def test_half_a_character(self) -> None:
        """What cannot be written as UTF-8 is refused wherever it stands."""
        for field, value in (("reason", "a\ud800"), ("tenant", "\udfff"), ("ids", ["\ud800"])):
            status, answer = self.ask("POST", "bounce/v1", {"reason": "r", field: value})
            self.assertEqual((status, answer["error"].partition(":")[0]), (422, field))
        self.assertEqual(self.steering.calls, [])

    def test_long_reason(self) -> None:
        """A reason is bounded: it is kept with the order and stands in each record."""
        for path, more in (("bounce/v1", {}), ("rebind/v1", {"always_flush": True})):
            self.steering.calls.clear()
            for length, expected in ((1000, 200), (1001, 422), (900_000, 422)):
                request = {"tenant": "t", "reason": "ü" * length, **more}
                if length > 1001:
                    request["reason"] = "u" * length
                self.assertEqual(self.ask("POST", path, request)[0], expected)
            self.assertEqual(len(self.steering.calls), 1)
        request = {"tenant": "t", "data": {"x_a": "\ud800"}, "reason": "r"}
        self.assertEqual(self.ask("POST", "rebind/v1", request)[0], 422)

    def test_list_and_cancel(self) -> None:
        """Orders are listed with what they have bounced, and end when they are deleted."""
        self.steering.listed = [{"id": "an-id", "bounced": {"a": 2, "b": 3}, "reason": "r"}]
        self.assertEqual(self.ask("GET", "bounce/v1")[1][0]["total_bounced"], 5)
        self.assertEqual(self.ask("DELETE", "bounce/v1", {"id": "an-id"})[0], 200)
        self.assertEqual(self.ask("DELETE", "bounce/v1", {"id": "other"})[0], 404)
        self.assertEqual(self.ask("DELETE", "suspend/v1", {"id": "an-id"})[0], 404)

    def test_suspend_ready_queue(self) -> None:
        """A ready queue is named as KumoMTA names it."""
        name = "ip-1->mx.a.example@smtp_client"
        request = {"name": name, "reason": "r", "expires": "2099-01-01T00:00:00Z"}
        self.assertEqual(self.ask("POST", "suspend-ready-q/v1", request)[0], 200)
        ((_, whom, facts),) = self.steering.calls
        self.assertEqual(whom, {"ready_queue": name})
        self.assertEqual(facts["expires"], 4070908800.0)
        self.steering.listed = [{"id": "x", "ready_queue": name, "bounced": {}}]
        self.assertEqual(self.ask("GET", "suspend-ready-q/v1")[1], [{"id": "x", "name": name}])

    def test_rebind(self) -> None:
        """A rebind changes what messages are."""
        request = {"tenant": "t", "data": {"tenant": "u"}, "reason": "r", "always_flush": True}
        self.assertEqual(self.ask("POST", "rebind/v1", request), (200, {}))
        self.assertEqual(
            self.steering.calls, [({"tenant": "t"}, {"tenant": "u"}, "r", True, False)]
        )
        status, answer = self.ask("POST", "rebind/v1", {**request, "data": {"bad": "1"}})
        self.assertEqual(status, 422)
        self.assertIn("data: 'bad' cannot be set", answer["error"])

    def test_mistakes(self) -> None:
        """A request that is wrong is refused, with what is wrong with it."""
        cases: tuple[tuple[str, Any, int, str], ...] = (
            ("bounce/v1", b"{", 400, "the body is not JSON"),
            ("bounce/v1", b"[" * 100_000, 400, "the body is not JSON"),
            ("bounce/v1", [], 422, "the body is not a JSON object"),
            ("bounce/v1", {}, 422, "reason: is missing"),
            ("bounce/v1", {"reason": 5}, 422, "reason: is not a text"),
            ("bounce/v1", {"reason": "r", "tennant": "x"}, 422, "unknown field 'tennant'"),
            ("bounce/v1", {"reason": "r", "ids": [1]}, 422, "ids: is not a list of texts"),
            ("bounce/v1", {"reason": "r", "ids": "1"}, 422, "ids: is not a list"),
            ("bounce/v1", {"reason": "r", "dry_run": 1}, 422, "dry_run: is not true or false"),
            ("bounce/v1", {"reason": "r", "expires": "x"}, 422, "expires: 'x' is not a moment"),
            ("suspend/v1", {"reason": "r", "source": "s"}, 422,
             "source: sources are suspended by suspend-ready-q"),
            ("suspend-ready-q/v1", {"reason": "r"}, 422,
             "name: either the name of a ready queue or a source is needed"),
            ("rebind/v1", {"reason": "r", "data": {"a": 1}}, 422,
             "data: is not an object whose values are texts"),
        )  # fmt: skip
        for path, body, status, error in cases:
            self.assertEqual(self.ask("POST", path, body), (status, {"error": error}), error)
        answer = self.ask("POST", "bounce/v1", {"reason": "r", "duration": "soon"})
        self.assertEqual(answer[0], 422)
        self.assertIn("duration: 'soon'", answer[1]["error"])
        self.assertEqual(self.steering.calls, [])

    def test_too_long(self) -> None:
        """A body that is too long is not kept, and refused."""
        status, _ = self.ask("POST", "bounce/v1", b" " * (MAX_BODY + 1))
        self.assertEqual(status, 413)


class LookTests(AdminCase):
    """Looking."""

    def test_pages(self) -> None:
        """Messages, ready queues and counts."""
        self.assertEqual(
            self.ask("GET", "inspect-message/v1?id=1&want_body=true"),
            (200, {"id": "1", "message": {"data": True}}),
        )
        self.assertEqual(self.ask("GET", "inspect-message/v1?id=2")[0], 404)
        self.assertEqual(
            self.ask("GET", "ready-q-states/v1?queues=a&queues=b"),
            (200, {"states_by_ready_queue": {"a": {}, "b": {}}}),
        )
        self.assertEqual(self.ask("GET", "queues/v1?limit=7"), (200, {"limit": 7}))
        self.assertEqual(self.ask("GET", "queues/v1?limit=-7")[0], 422)

    def test_rebind_dry_run_refuses(self) -> None:
        """A dry run of a rebind refuses what the real one refuses, and one that does nothing."""
        for data in (
            {"queue": ""}, {"domain": "*"}, {"routing_domain": "127.0.0.1"}, {"domain": ""},
            {"requiretls": "1"}, {},
        ):  # fmt: skip
            for dry_run in (True, False):
                request = {"tenant": "t", "data": data, "reason": "r", "dry_run": dry_run}
                self.assertEqual(self.ask("POST", "rebind/v1", request)[0], 422)
        self.assertEqual(self.steering.calls, [])
        request = {"source": "ip-1", "reason": "r", "dry_run": True}
        self.assertEqual(self.ask("POST", "rebind/v1", request)[0], 200)

    def test_missing_workers(self) -> None:
        """An answer says which workers' queues it lacks; one that is complete says nothing."""
        self.assertNotIn("missing_workers", self.ask("GET", "queues/v1")[1])
        self.steering.missing = [2]
        self.steering.listed = [{"id": "an-id", "bounced": {}, "reason": "r"}]
        self.assertEqual(self.ask("GET", "queues/v1")[1]["missing_workers"], [2])
        self.assertEqual(self.ask("GET", "bounce/v1")[1][0]["missing_workers"], [2])
        status, answer = self.ask("GET", "inspect-message/v1?id=2")
        self.assertEqual(status, 404)
        self.assertIn("worker 2 were not seen", answer["error"])
        request = {"tenant": "t", "dry_run": True}
        self.assertEqual(self.ask("POST", "bounce/v1", request)[1]["missing_workers"], [2])

    def test_methods(self) -> None:
        """A method that is not known somewhere is refused."""
        self.assertEqual(self.ask("DELETE", "rebind/v1", {})[0], 405)
        self.assertEqual(self.ask("PATCH", "bounce/v1", {})[0], 405)


class TokenTests(AdminCase):
    """A token."""

    def test_token(self) -> None:
        """With a token nothing is said to who does not know it."""
        self.build("secret")
        self.assertEqual(self.ask("GET", "queues/v1")[0], 401)
        self.assertEqual(self.ask("GET", "queues/v1", None, "authorization: Bearer secre")[0], 401)
        self.assertEqual(self.ask("GET", "queues/v1", None, "authorization: Basic secret")[0], 401)
        self.assertEqual(self.ask("GET", "queues/v1", None, "authorization: bearer secret")[0], 200)
