"""The commands that look at queues and steer them: what they ask of a node, and what they say."""

from __future__ import annotations

import json
import os
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.cli import queues
from kumotwist.cli.main import main

ID = "ab" * 16


class QueueCommandTests(SynchronousTestCase):
    """Commands against a node that notes what it is asked."""

    def setUp(self) -> None:
        """Stand between the commands and the network."""
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, Any] = {}
        self.patch(queues, "_ask", self.ask)

    def ask(self, endpoint: str, method: str, path: str, body: Any = None) -> Any:
        """Note a question; a dry run finds three messages."""
        self.asked.append((method, path, body))
        if body is not None and body.get("dry_run"):
            return {"total_matched": 3, "matched": {"a.example": 2, "b\x1b.example": 1}}
        return self.answers.get(path, [] if method == "GET" else {"id": "an-id"})

    def run_command(self, *arguments: str, status: int = 0) -> str:
        """What a command prints."""
        result = CliRunner().invoke(main, arguments)
        self.assertEqual(result.exit_code, status, result.output)
        return result.output

    def test_shown_first(self) -> None:
        """What would be touched is shown before anything is done; a dry run ends there."""
        output = self.run_command("bounce", "--tenant", "t", "--dry-run")
        self.assertIn("3 messages in 2 queues", output)
        self.assertNotIn("\x1b", output)
        ((method, path, body),) = self.asked
        self.assertEqual((method, path), ("POST", "admin/bounce/v1"))
        self.assertEqual((body["tenant"], body["dry_run"]), ("t", True))
        self.run_command("bounce", "--tenant", "t", "--reason", "r", "--duration", "1h")
        method, path, body = self.asked[-1]
        self.assertEqual((method, path), ("POST", "admin/bounce/v1"))
        self.assertEqual((body["tenant"], body["reason"], body["duration"]), ("t", "r", "1h"))

    def test_everything_is_said(self) -> None:
        """Nothing is done to everything by mistake."""
        for command in ("bounce", "suspend", "rebind", "resume"):
            self.assertIn("--everything", self.run_command(command, status=2))
        self.assertIn("nobody out", self.run_command(
            "bounce", "--everything", "--tenant", "t", status=2))  # fmt: skip
        self.assertEqual({method for method, _, _ in self.asked}, {"GET"})

    def test_empty_choice(self) -> None:
        """An option that is there and empty (an unset variable, say) is a mistake."""
        for option in ("--domain", "--id", "--queue", "--source", "--routing-domain"):
            for command in ("bounce", "suspend", "rebind", "resume"):
                output = self.run_command(command, option, "", "--campaign", "c", status=2)
                self.assertIn(f"{option} is empty", output)
        self.run_command("suspend", "--source", "ip-1", "--tenant", "t", status=2)
        self.assertEqual({method for method, _, _ in self.asked}, {"GET"})

    def test_suspend_source(self) -> None:
        """A source, or a ready queue, is suspended where those are."""
        self.assertIn("kumo resume an-id", self.run_command("suspend", "--source", "ip-1"))
        self.assertEqual(self.asked[-1][1], "admin/suspend-ready-q/v1")
        self.run_command("suspend", "--ready-queue", "ip-1->x@smtp_client", "--dry-run")
        self.assertEqual(self.asked[-1][2]["name"], "ip-1->x@smtp_client")

    def test_resume(self) -> None:
        """Orders end by their ids, or by whom they were made for; bounces by their ids alone."""
        self.answers = {
            "admin/suspend/v1": [
                {"id": "1", "reason": "r", "tenant": "t"},
                {"id": "2", "reason": "r", "tenant": "u"},
            ],
            "admin/bounce/v1": [{"id": "3", "reason": "r", "tenant": "t"}],
        }
        self.run_command("resume", "--tenant", "t")
        self.assertEqual(self.ended(), [("admin/suspend/v1", "1")])
        self.assertIn("would end 3", self.run_command("resume", "3", "--dry-run"))
        self.run_command("resume", "3", "2")
        self.assertEqual(self.ended()[1:], [("admin/bounce/v1", "3"), ("admin/suspend/v1", "2")])
        self.assertIn("no order 9", self.run_command("resume", "9", status=1))
        self.assertIn("no order", self.run_command("resume", "--domain", "x", status=1))

    def ended(self) -> list[tuple[str, str]]:
        """Which orders were ended."""
        return [(path, body["id"]) for method, path, body in self.asked if method == "DELETE"]

    def test_rebind(self) -> None:
        """What is set is given as NAME=VALUE."""
        self.run_command("rebind", "--domain", "d", "--set", "tenant=u", "--set", "x_a=b=c")
        self.assertEqual(self.asked[-1][2]["data"], {"tenant": "u", "x_a": "b=c"})
        self.run_command("rebind", "--domain", "d", "--set", "tenant", status=2)
        self.assertIn("--always-flush", self.run_command("rebind", "--domain", "d", status=2))

    def test_dry_run_is_the_same_request(self) -> None:
        """A dry run asks what the real run would, so that what is wrong is found."""
        for command in (("rebind", "--set", "queue="), ("bounce",), ("suspend", "--persist")):
            self.asked.clear()
            self.run_command(*command, "--domain", "d")
            (_, path, shown), (_, real_path, real) = self.asked
            self.assertEqual((path, shown), (real_path, {**real, "dry_run": True}))

    def test_not_complete(self) -> None:
        """Queues and orders that lack a worker are shown with a note."""
        self.answers["admin/suspend/v1"] = [
            {"id": "1", "reason": "r", "duration": "5s", "missing_workers": [2, 3]}
        ]
        output = self.run_command("orders")
        self.assertEqual(output.count("without the queues of worker 2, 3"), 1)
        self.assertIn("1 suspend everything for 5s", output)
        self.answers["admin/queues/v1?limit=20"] = {
            "scheduled_count_total": 0, "scheduled_queue_count": 0, "parked_count": 0,
            "scheduled": [], "ready": [], "missing_workers": [2],
        }  # fmt: skip
        self.assertIn("without the queues of worker 2", self.run_command("queue"))

    def test_trace(self) -> None:
        """A message's life is told from the records, whatever stands in them: also which proxy and
        address it left through, and where it arrived."""
        log = self.mktemp()
        os.mkdir(log)
        record = {
            "type": "Delivery", "id": ID, "queue": "a.example", "egress_source": "ip-1",
            "event_time": "2026-11-22T12:00:00.000000Z", "recipient": "x@a.example",
            "peer_address": {"name": "mx\x1b[2J", "addr": "192.0.2.25"},
            "source_address": {
                "address": "[2001:db8::7]:4021", "server": "10.0.5.10:5000", "protocol": "socks5",
            },
            "response": {"code": 250, "content": "OK"},
        }  # fmt: skip
        other = {**record, "id": "0" * 32, "type": "Bounce", "sender": ID}
        with open(os.path.join(log, "1.jsonl"), "w") as file:
            file.write(f"{json.dumps(record)}\n{json.dumps(other)}\n{ID} half a li")
        output = self.run_command("trace", ID, "--log", log)
        self.assertIn("2026-11-22T12:00:00 Delivery for x@a.example queue a.example", output)
        way = "source ip-1 from [2001:db8::7]:4021 through socks5 proxy 10.0.5.10:5000 host mx"
        self.assertIn(way, output)
        self.assertIn(" at 192.0.2.25: 250 OK", output)
        self.assertNotIn("\x1b", output)
        self.assertNotIn("Bounce", output)
        self.assertIn("no record", self.run_command("trace", "f" * 32, "--log", log, status=1))

    def test_queue(self) -> None:
        """Counts, due times and what is waited for."""
        self.answers["admin/queues/v1?limit=20"] = {
            "scheduled_count_total": 5, "scheduled_queue_count": 1, "parked_count": 2,
            "scheduled": [{"name": "t@a.example", "count": 5, "waits_for": "a look-up",
                           "next_due": "2027-01-01T00:00:00+00:00"}],
            "ready": [{"name": "r", "count": 1, "connections": 2, "connection_limit": 32,
                       "waits_for": "max_message_rate"}],
        }  # fmt: skip
        output = self.run_command("queue")
        self.assertIn("5 messages in 1 scheduled queues, 2 wait for a source", output)
        self.assertIn("next 2027-01-01 00:00:00 UTC, waits for a look-up", output)
        self.assertIn("2 of 32 connections, waits for max_message_rate", output)
        self.assertEqual(json.loads(self.run_command("queue", "--json"))["parked_count"], 2)
